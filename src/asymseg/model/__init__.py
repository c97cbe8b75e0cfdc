"""The network: a backbone, the two blocks around a 3x3 convolution, a classifier; and its folder on disk."""
