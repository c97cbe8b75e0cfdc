"""Work done ahead: its order, and no more of it than was asked for."""

import pytest

from asymseg.data.prefetching import prefetched
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
