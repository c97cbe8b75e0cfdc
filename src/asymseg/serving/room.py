"""How much the server takes on at once: requests, bytes and pixels; what is beyond that is asked to come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asymseg.errors import ConfigError
from asymseg.serving.refusals import Refusal

_BODIES, _IMAGES = 8, 8
"""So many bodies, and images, of the largest size may be held at once."""
_RETRY_AFTER = 1


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how many there may be. Raises ConfigError."""

    max_bytes: int = 64 * 2**20
    """Of a request's body."""
    max_pixels: int = 20_000_000
    """Of an image, told from its head before it is decoded."""
    queue: int = 64
    """Requests for predictions that are in work or wait, from the last byte of the body to the last of the answer."""
    batch: int = 8
    """Images of one size that go through the network together, at most."""
    timeout: float = 60.0
    """Seconds for a body to arrive, and as many for its answer."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "queue", "batch", "timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: give a number above 0")


class Room:
    """What is taken on at the moment. All of it belongs to the thread of the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = self.bytes = self.pixels = 0
        self.stopping = False

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """What one request holds, for as long as the block lasts. Raises Refusal where there is no use in its body.

        Who sends slowly takes no place in the queue: a body counts by the bytes that are there, and as a request later,
        when it is whole.
        """
        if self.stopping:
            raise Refusal(503, "stopping", "the server is about to stop; try again soon", retry_after=_RETRY_AFTER)
        self.check_queue()
        place = Place(self)
        try:
            yield place
        finally:
            self.requests -= place.entered
            self.bytes -= place.bytes
            self.pixels -= place.pixels

    def check_queue(self) -> None:
        """Raises Refusal where no place is free."""
        if self.requests >= self.limits.queue:
            raise busy(f"as many requests are in work as may be, {self.requests}")


class Place:
    """What one request holds."""

    def __init__(self, room: Room) -> None:
        self.room, self.bytes, self.pixels, self.entered = room, 0, 0, False

    def enter(self) -> None:
        """Take a place in the queue. Raises Refusal where none is free."""
        self.room.check_queue()
        self.entered = True
        self.room.requests += 1

    def take_bytes(self, count: int) -> None:
        """Raises Refusal where the requests together hold too many already."""
        if self.room.bytes + count > _BODIES * self.room.limits.max_bytes:
            raise busy("other requests fill the memory for uploads")
        self.bytes += count
        self.room.bytes += count

    def take_pixels(self, count: int) -> None:
        """Raises Refusal where the requests together hold too many already."""
        if self.room.pixels + count > _IMAGES * self.room.limits.max_pixels:
            raise busy("other requests fill the memory for images")
        self.pixels += count
        self.room.pixels += count


def busy(why: str) -> Refusal:
    """What is said where others are to blame, and later all may be well."""
    return Refusal(503, "busy", f"{why}; try again in a moment", retry_after=_RETRY_AFTER)
