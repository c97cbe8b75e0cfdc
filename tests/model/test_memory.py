"""Memory that is kept from one pass to the next: harmless where it cannot be, and undone afterwards."""

import ctypes
import platform
import threading

import pytest
import torch

from asymseg.model import memory
from asymseg.model.memory import reused_memory

CPU = torch.device("cpu")
MMAP_MAX = -4  # of glibc's malloc.h, as are the others below


class Library(ctypes.CDLL):
    """Notes what it is told."""

    def __init__(self):
        super().__init__(None)
        self.told = []

    def mallopt(self, parameter, value):
        self.told.append((parameter, value))
        return 1


@pytest.fixture
def library(monkeypatch):
    """In the place of the C library, as it is seen once it was told what to keep."""
    library = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    return library


@pytest.fixture
def asked_anew():
    """As in a process that has not yet used the C library."""
    memory._glibc.cache_clear()
    yield
    memory._glibc.cache_clear()


def test_told_and_told_back(library):
    with reused_memory(CPU):
        assert library.told == [(MMAP_MAX, 0)]
    assert library.told == [(MMAP_MAX, 0), (MMAP_MAX, 65_536)]


def test_told_back_after_a_failure(library):
    with pytest.raises(ArithmeticError), reused_memory(CPU):
        raise ArithmeticError
    assert library.told[-1] == (MMAP_MAX, 65_536)


def test_within_itself(library):
    """What the outer one was promised lasts until it ends."""
    with reused_memory(CPU):
        with reused_memory(CPU):
            pass
        assert library.told[-1] == (MMAP_MAX, 0)
    assert library.told[-1] == (MMAP_MAX, 65_536)


def test_nothing_on_another_device(library):
    with reused_memory(torch.device("meta")):
        pass
    assert not library.told


@pytest.mark.usefixtures("asked_anew")
def test_nothing_without_glibc(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("there is no such library"))
    for _ in range(2):
        with reused_memory(CPU):
            assert torch.ones(3).sum() == 3


@pytest.mark.usefixtures("asked_anew")
def test_what_glibc_is_told_once(monkeypatch):
    library = Library()  # before `ctypes.CDLL` becomes another
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    for _ in range(2):
        with reused_memory(CPU):
            pass
    assert library.told[:2] == [(-1, 2**31 - 1), (-3, 32 * 2**20)]  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    assert library.told[2:] == [(MMAP_MAX, 0), (MMAP_MAX, 65_536)] * 2


def test_nothing_while_compiling(monkeypatch):
    """What traces a network cannot see through calls of the C library."""
    monkeypatch.setattr(memory, "_glibc", lambda: pytest.fail("asked for the C library"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with reused_memory(CPU):
        pass


def large_maps():
    """Maps above and below every threshold, by turns."""
    sums = []
    with reused_memory(CPU):
        for megabytes in (1, 80, 33, 100, 80):
            x = torch.ones(megabytes * 2**18)
            sums.append(x.sum(dtype=torch.float64).item() / 2**18)
    return sums


def test_large_maps_can_be_had():
    assert large_maps() == [1, 80, 33, 100, 80]


def test_large_maps_can_be_had_in_another_thread():
    """Which has a heap of its own, of at most 64 MB."""
    given = []
    thread = threading.Thread(target=lambda: given.append(large_maps()))
    thread.start()
    thread.join()
    assert given == [[1, 80, 33, 100, 80]]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is nothing to tell the C library here")
def test_freed_memory_is_used_again():
    """The same place for the next map, where fresh memory would cost a page fault for every page."""
    resource = pytest.importorskip("resource")
    faults = []
    with reused_memory(CPU):
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(16 * 2**20)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert max(faults[1:]) < 16  # 64 MB are 16384 pages, or 32 large ones
