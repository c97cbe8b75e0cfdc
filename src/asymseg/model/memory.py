"""Memory that a network's maps are laid out in, kept from one forward pass to the next."""

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# The parameters of glibc's mallopt(3), and the most or usual value of each.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MOST_TO_KEEP = 2**31 - 1
_MOST_ON_HEAP = 32 * 2**20
_USUAL_MAPPINGS = 65_536


def keep_freed_memory() -> None:
    """Make this process keep blocks of up to 32 MB that it frees, where its C library is glibc."""
    _glibc()


@contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """While this lasts, CPU memory that was freed is used again instead of going back to the system.

    glibc takes each block of over 32 MB fresh from the system and gives it back when it is freed; the next forward
    pass then pays a page fault for every 4 KiB of every map. Without glibc, or on another device, nothing changes.
    """
    libc = None if device.type != "cpu" or torch.compiler.is_compiling() else _glibc()
    if libc is None:
        yield
        return
    with _nesting.lock:
        _nesting.depth += 1
        libc.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        with _nesting.lock:
            _nesting.depth -= 1
            if _nesting.depth == 0:
                libc.mallopt(_MMAP_MAX, _USUAL_MAPPINGS)


class _Nesting:
    """How many `reused_memory` last, in all threads: the setting is the process's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0


_nesting = _Nesting()


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, once it is told to keep what is freed. The second line is what it comes to by itself."""
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    libc.mallopt(_TRIM_THRESHOLD, _MOST_TO_KEEP)
    libc.mallopt(_MMAP_THRESHOLD, _MOST_ON_HEAP)
    return libc
