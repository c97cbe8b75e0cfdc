"""Work done ahead by threads, in order."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from asymseg.errors import ConfigError

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass
class Waits:
    """For how long callers of `prefetched` were kept waiting."""

    seconds: float = 0.0


_WAITS: ContextVar[Waits | None] = ContextVar("waits", default=None)


@contextmanager
def timed_waits() -> Iterator[Waits]:
    """What adds up, within the block, the time that is spent waiting for data."""
    waits = Waits()
    before = _WAITS.set(waits)
    try:
        yield waits
    finally:
        _WAITS.reset(before)


def prefetched(items: Iterable[Item], function: Callable[[Item], Done], workers: int, ahead: int = 2) -> Iterator[Done]:
    """`function` of each item, in order, computed by threads at most `workers * ahead` results early.

    Raises ConfigError.
    """
    if workers < 0:
        raise ConfigError(f"workers = {workers}: give 0, which does without threads, or more")
    if workers == 0:
        for item in items:
            yield _timed(partial(function, item))
        return
    waiting: deque[Future[Done]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="asymseg-read")
    try:
        for item in islice(remaining, workers * ahead):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = _timed(waiting.popleft().result)
            for item in islice(remaining, 1):
                waiting.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _timed(get: Callable[[], Done]) -> Done:
    waits, started = _WAITS.get(), time.monotonic()
    try:
        return get()
    finally:
        if waits is not None:
            waits.seconds += time.monotonic() - started
