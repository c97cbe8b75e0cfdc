"""How much is done at once, and less of it once memory has run out: the same numbers in more time."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from asymseg.prediction.shortage import ran_out
from asymseg.prediction.upsampling import NUMBERS_AT_ONCE

Done = TypeVar("Done")

WINDOW_PIXELS = {"cuda": 2**22}
"""Pixels of windows that the network sees together, where more than one pays."""
FEW_PIXELS = 2**18


@dataclass
class Portions:
    """What a predictor does at once. It is lowered for good, so that the next image is not tried in vain."""

    pixels: int
    """Of windows that go through the network together; one window always does."""
    numbers: int = NUMBERS_AT_ONCE
    """Logits that are upsampled together; one row always is."""
    hosting: bool = True
    """Whether what the network said of whole views waits outside the device's memory until all are there."""
    lowered: bool = False

    @classmethod
    def usual(cls, device: torch.device) -> "Portions":
        return cls(WINDOW_PIXELS.get(device.type, FEW_PIXELS), hosting=device.type == "cpu")

    def lower(self, what: str) -> None:
        """Say, the first time, that things go on in smaller portions."""
        if not self.lowered:
            self.lowered = True
            warnings.warn(f"memory ran out: {what}; the results stay the same, but take longer", stacklevel=2)

    def windows(self, count: int, size: tuple[int, int]) -> int:
        """How many of `count` windows go through the network together, all portions being about equal."""
        most = max(1, self.pixels // (size[0] * size[1]))
        return -(-count // -(-count // most))


def attempt(work: Callable[[], Done]) -> Done | None:
    """What the work gives; None where there was not enough memory for it."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
    # Only here the traceback is gone, and with it what the attempt held.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
