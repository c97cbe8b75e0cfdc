"""What was measured, as plain data, and what follows from it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from asymseg.benchmarking.settings import Precision, Size


@dataclass(frozen=True)
class Figures:
    """What was measured of a contestant."""

    name: str
    size: Size
    seconds: tuple[float, ...] = ()
    """Of each round."""
    peak_bytes: int | None = None
    """The most memory it needs beyond inputs and outputs."""
    kept_bytes: int | None = None
    """What its first call leaves behind for the next, such as transformed weights."""
    parameters: int = 0
    multiply_adds: int = 0
    like: str | None = None
    error: float | None = None
    """Largest relative difference from `like`."""
    saved_bytes: int | None = None
    """What autograd keeps for the backward pass."""
    traffic: int | None = None
    note: str = ""

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the middle half of all rounds, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


@dataclass(frozen=True)
class Comparison:
    """Figures of all contestants, at one batch size and precision."""

    title: str
    ours: str
    """The name that ratios refer to."""
    batch: int
    precision: Precision
    figures: tuple[Figures, ...]
    copy_rate: float | None = None
    """Bytes a second of a plain copy on this machine, read and written."""
    product_rate: float | None = None
    """Multiply-adds a second of a large matrix product."""
    counts_images: bool = False
    """Whether images per second are worth a column."""

    @property
    def sizes(self) -> list[Size]:
        return list(dict.fromkeys(figures.size for figures in self.figures))

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(figures.name for figures in self.figures))

    def find(self, name: str, size: Size) -> Figures | None:
        """The figures of a contestant, or None where it did not run at this size."""
        return next((one for one in self.figures if (one.name, one.size) == (name, size)), None)

    def times_slower(self, figures: Figures) -> float | None:
        """Its time over ours: the median of the ratios within a round."""
        ours = self.find(self.ours, figures.size)
        return None if ours is None else paired_ratio(figures.seconds, ours.seconds)

    def roofline_share(self, figures: Figures) -> float | None:
        """How much of its time the machine's own rates for its bytes or its products explain; 1 is the limit."""
        if figures.traffic is None or self.copy_rate is None or self.product_rate is None:
            return None
        return max(figures.traffic / self.copy_rate, figures.multiply_adds / self.product_rate) / figures.median


def paired_ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios of samples taken in the same round, so that a slow minute hits both sides."""
    return statistics.median(ours / theirs for ours, theirs in zip(seconds, reference, strict=True))


def exponent(pixels: Sequence[int], values: Sequence[float | int]) -> float:
    """The p of values = c pixels^p that fits best on logarithmic axes."""
    return statistics.linear_regression(
        [math.log(count) for count in pixels], [math.log(value) for value in values]
    ).slope


@dataclass(frozen=True)
class Growth:
    """How a contestant's cost grows with the number of pixels."""

    name: str
    time_exponent: float
    memory_exponent: float | None
    fourfold: tuple[tuple[Size, Size, float], ...]
    """Pairs of sizes of which the second has four times the pixels, with the ratio of their times."""


def growth(comparison: Comparison) -> list[Growth]:
    """The fitted exponents of each contestant that ran at three sizes or more; none where there are fewer."""
    found = []
    for name in comparison.names:
        figures = [one for one in comparison.figures if one.name == name]
        if len({one.pixels for one in figures}) < 3:
            continue
        pixels = [one.pixels for one in figures]
        peaks = [one.peak_bytes for one in figures if one.peak_bytes]
        fourfold = tuple(
            (small.size, large.size, paired_ratio(large.seconds, small.seconds))
            for small in figures
            for large in figures
            if large.pixels == 4 * small.pixels
        )
        memory = exponent(pixels, peaks) if len(peaks) == len(pixels) else None
        found.append(Growth(name, exponent(pixels, [one.median for one in figures]), memory, fourfold))
    return found
