"""What a process holds while it does the same thing again and again."""

import gc
import tracemalloc
from collections.abc import Callable

import psutil


def growth(work: Callable[[int], None], *, warm: int, times: int) -> int:
    """Bytes that Python's objects have grown by over `times` calls; threads and open files must be what they were."""
    process = psutil.Process()
    for number in range(warm):
        work(number)
    gc.collect()
    before = process.num_threads(), len(process.open_files())
    tracemalloc.start()
    try:
        for number in range(times // 10):  # what is made once is made here
            work(number)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        for number in range(times):
            work(number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    assert (process.num_threads(), len(process.open_files())) == before
    return grown
