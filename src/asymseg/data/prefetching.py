"""Work done ahead by threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from asymseg.errors import ConfigError

Item = TypeVar("Item")
Done = TypeVar("Done")


def prefetched(items: Iterable[Item], function: Callable[[Item], Done], workers: int, ahead: int = 2) -> Iterator[Done]:
    """`function` of each item, in order, computed by threads at most `workers * ahead` results early.

    Raises ConfigError.
    """
    if workers < 0:
        raise ConfigError(f"workers = {workers}: give 0, which does without threads, or more")
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Done]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="asymseg-read")
    try:
        for item in islice(remaining, workers * ahead):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(remaining, 1):
                waiting.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
