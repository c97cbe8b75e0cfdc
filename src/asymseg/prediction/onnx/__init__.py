"""An exported file in place of a network, on onnxruntime and NumPy."""
