"""Work done ahead: its order, and no more of it than was asked for."""

from types import SimpleNamespace

import pytest

from asymseg.data import prefetching
from asymseg.data.prefetching import prefetched, timed_waits
from asymseg.errors import ConfigError


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_little_is_done_early(workers):
    begun = []

    def double(number):
        begun.append(number)
        return 2 * number

    results = prefetched(range(50), double, workers, ahead=2)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(begun) <= 5 + 2 * workers
    assert list(results) == list(range(10, 100, 2))


def test_fewer_than_no_workers_are_refused():
    with pytest.raises(ConfigError, match="workers = -1: give 0"):
        next(prefetched([1], abs, -1))


class Lazy:
    """A pool whose work is done when its result is asked for, so that it is always waited for."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, function, item):
        return SimpleNamespace(result=lambda: function(item))

    def shutdown(self, cancel_futures: bool) -> None:
        pass


@pytest.mark.parametrize("workers", [0, 1])
def test_waiting_is_what_passes_until_an_item_is_there(monkeypatch, workers):
    """By a clock that goes on by 2 while an item is made and by 5 while it is used."""
    clock = [0.0]
    monkeypatch.setattr(prefetching, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(prefetching, "ThreadPoolExecutor", Lazy)

    def make(item: int) -> int:
        clock[0] += 2
        return item

    with timed_waits() as waits:
        for _ in prefetched(range(3), make, workers):
            clock[0] += 5
    assert waits.seconds == 6
    assert list(prefetched(range(3), make, workers)) == [0, 1, 2]
    assert waits.seconds == 6  # its block is over
