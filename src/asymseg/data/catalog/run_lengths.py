"""COCO's run lengths: a region as the lengths of stretches outside and inside of it, column by column.

Read here and not by pycocotools, whose own `decode` makes NumPy 2 warn with every region.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from asymseg.errors import DataError


def region(counts: bytes | str | Sequence[int], size: tuple[int, int], path: Path) -> Bool[np.ndarray, "h w"]:
    """Which pixels belong to a region; texts are COCO's compressed form. `path` names the file in messages."""
    compressed = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    lengths = _expanded(compressed) if isinstance(compressed, bytes) else np.asarray(compressed, dtype=np.int64)
    height, width = size
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise DataError(
            f"{path}: run lengths that do not fill an image of {height} x {width} (height x width); "
            "the file may be damaged: export or download it again"
        )
    inside = np.arange(len(lengths)) % 2 == 1
    columns: np.ndarray = np.repeat(inside, lengths).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def _expanded(counts: bytes) -> Int64[np.ndarray, " runs"]:
    """The lengths: numbers of 5 bits to a character, the lowest first, and a sixth bit where more follow.

    From the fourth on each is the difference from the length two before it.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    codes = codes[: ends[-1] + 1] if len(ends) else codes[:0]
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    digits = ends - starts + 1  # of each number
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, digits))
    numbers = np.add.reduceat((codes & 31) << place, starts) if len(ends) else codes
    numbers = numbers - np.where(codes[ends] & 16, 1 << (5 * digits), 0)  # the highest bit is the sign
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
