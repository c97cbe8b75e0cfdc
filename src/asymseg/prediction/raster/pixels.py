"""The pixels that are done, as bytes in the files of an unfinished prediction."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from asymseg.classes import IGNORE
from asymseg.prediction.raster.state import Unfinished

CLASSES, SHARES = "classes.raw", "probabilities.raw"
"""Names of the files."""

PROBABILITY_STEPS = 254
"""A probability of 1 as a byte; 255 is no data."""


def put_shares(
    state: Unfinished,
    shares: Float[Tensor, "n h w"],
    valid: Bool[np.ndarray, "h w"],
    corner: tuple[int, int],
    width: int,
    probabilities: bool,
) -> None:
    """Put class ids made from probabilities, and with `probabilities` these too, at a corner of a raster."""
    put_classes(state, shares.argmax(dim=0).byte(), valid, corner, width)
    if probabilities:
        steps = (shares * PROBABILITY_STEPS).round().clamp(0, PROBABILITY_STEPS).byte().cpu().numpy()
        steps[:, ~valid] = IGNORE
        state.write(SHARES, steps, *corner, width)


def put_classes(
    state: Unfinished,
    classes: UInt8[Tensor, "h w"],
    valid: Bool[np.ndarray, "h w"],
    corner: tuple[int, int],
    width: int,
) -> None:
    """Put class ids at a corner of a raster that is `width` wide."""
    ids = np.where(valid, classes.cpu().numpy(), np.uint8(IGNORE))
    state.write(CLASSES, ids[None], *corner, width)
