"""Whether an error says that there was not enough memory, whatever library raised it. Needs no torch."""

SHORTAGE = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED", "bad allocation", "bad_alloc")
"""What CUDA, Apple's GPUs, the CPU, cuBLAS and onnxruntime say."""


def ran_out(error: Exception) -> bool:
    """Whether an error says that there was not enough memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in SHORTAGE)
