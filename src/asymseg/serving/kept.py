"""Results that are kept for a while, so that the page may ask about their pixels."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from asymseg.prediction.result import Result
from asymseg.serving.loading import Loaded
from asymseg.serving.refusals import Refusal
from asymseg.serving.worker import Worker

TIDY_EVERY = 10.0
"""Seconds between looks for results that are too old."""


@dataclass(frozen=True)
class Entry:
    """A result, and who can say more about it while its model is the one that is served."""

    result: Result
    worker: Worker
    model: Loaded
    expires: float


class Kept:
    """The results asked for last, so many and of so many bytes at most, for some minutes after they were last used.

    Each holds the network that gave it, so those of a replaced model are forgotten. Their names cannot be guessed. All
    of it belongs to the thread of the event loop.
    """

    def __init__(
        self,
        *,
        most: int = 32,
        most_bytes: int = 2**30,
        seconds: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.most_bytes, self.seconds, self.clock = most, most_bytes, seconds, clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        return sum(entry.result.nbytes for entry in self._entries.values())

    def add(self, result: Result, worker: Worker, model: Loaded) -> str | None:
        """The name by which the result is found; None where it is larger than all there is, or its model replaced."""
        if result.nbytes > self.most_bytes:
            return None
        name = secrets.token_urlsafe(18)
        self._entries[name] = Entry(result, worker, model, self.clock() + self.seconds)
        self.tidy()
        return name if name in self._entries else None

    def forget(self, name: str | None) -> None:
        """What is not there is forgotten already."""
        self._entries.pop(name or "", None)

    def get(self, name: str) -> Entry:
        """Raises Refusal for what is not, or no longer, there."""
        self.tidy()
        entry = self._entries.pop(name, None)
        if entry is None:
            raise Refusal(404, "expired", "no such prediction, or it is no longer kept; predict the image again")
        self._entries[name] = replace(entry, expires=self.clock() + self.seconds)
        return entry

    async def watch(self, seconds: float = TIDY_EVERY) -> None:
        """Forget what is too old even while nobody asks for anything, for ever."""
        while True:
            await asyncio.sleep(seconds)
            self.tidy()

    def tidy(self) -> None:
        """Forget what is too old or of a replaced model, then what was not used longest while there is too much.

        Attention adds to a result that is kept already, so this is for calling after it too.
        """
        now = self.clock()
        for name, entry in list(self._entries.items()):
            if entry.expires <= now or entry.model is not entry.worker.model:
                del self._entries[name]
        while len(self._entries) > self.most or (self.bytes > self.most_bytes and len(self._entries) > 1):
            self._entries.popitem(last=False)
