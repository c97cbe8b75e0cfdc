"""Where overlapping windows lie along a side of an image, and how much each has to say about each pixel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from asymseg.model.seeing import Weighting


@dataclass(frozen=True)
class Axis:
    """Windows along one side of an image; a grid is two of these, and the weight of a pixel the product of both."""

    window: int
    """Pixels of a window: at most the side."""
    starts: tuple[int, ...]
    """First pixel of each window; the last window ends where the image does."""
    weights: Float64[np.ndarray, " w"]
    """Of the pixels of a window, never 0."""
    total: Float64[np.ndarray, " length"]
    """Weights of all windows over each pixel of the side."""

    def share(self, number: int) -> Float32[np.ndarray, " w"]:
        """A window's part in each of its pixels; over all windows these add up to 1, and are 1 where it is alone."""
        start = self.starts[number]
        part: np.ndarray = self.weights / self.total[start : start + self.window]
        return part.astype(np.float32)

    def touching(self, first: int, stop: int) -> list[int]:
        """The windows that hold any of the pixels from `first` up to `stop`."""
        return [number for number, start in enumerate(self.starts) if start < stop and start + self.window > first]


def make_axis(length: int, window: int, stride: int, weighting: Weighting) -> Axis:
    """Windows from the first pixel on, `stride` apart, the last moved back so that it ends with the image.

    With "flat" weights the blend is mmsegmentation's and the authors': the sum over windows, divided by their number.
    "tapered" weights are sin^2 from border to border: what a window says of its middle, where it sees most, counts.
    """
    window = min(window, length)
    count = -(-(length - window) // stride) + 1
    starts = tuple(min(number * stride, length - window) for number in range(count))
    weights = np.ones(window)
    if weighting == "tapered":
        weights = np.square(np.sin((np.arange(window) + 0.5) * (np.pi / window)))
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += weights
    return Axis(window, starts, weights, total)
