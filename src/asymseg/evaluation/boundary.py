"""Boundary IoU: how well the edges of the classes are found, which the IoU of large regions hides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from asymseg.classes import IGNORE
from asymseg.evaluation.metrics import confusion_matrix, json_number, mean_known, ratio

SHARE = 0.02
"""How far a rim reaches inwards, as a share of the image's diagonal: Cheng et al. for images of usual size."""


@dataclass(frozen=True)
class BoundaryCounts:
    """Pixel counts of an image, or of all of them: they add up.

    `rims` holds for each class the pixels of both rims, of the label's and of the prediction's. `interior` is the
    confusion matrix of the pixels that lie in no rim of the label.
    """

    rims: Int64[np.ndarray, "3 classes"]
    interior: Int64[np.ndarray, "classes classes"]

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(self.rims + other.rims, self.interior + other.interior)


@dataclass(frozen=True)
class BoundaryScores:
    """Fractions of 1, nan for a class that has no such pixels; the means leave it out."""

    mean: float
    iou: tuple[float, ...]
    """Boundary IoU of each class."""
    interior_mean: float
    interior_iou: tuple[float, ...]
    """IoU over the pixels that are further from any edge of the label than the rim reaches."""

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The form for JSON."""
        pairs = zip(names, zip(self.iou, self.interior_iou, strict=True), strict=True)
        return {
            "rim": f"{100 * SHARE:g} % of the image's diagonal",
            "mean_boundary_iou": json_number(self.mean),
            "mean_interior_iou": json_number(self.interior_mean),
            "classes": {
                name: {"boundary_iou": json_number(rim), "interior_iou": json_number(interior)}
                for name, (rim, interior) in pairs
            },
        }


def count_boundary(
    prediction: UInt8[Tensor, "h w"], label: UInt8[Tensor, "h w"], num_classes: int, share: float = SHARE
) -> BoundaryCounts:
    """The counts of one image for `boundary_scores`.

    Boundary IoU (Cheng et al., Boundary IoU, CVPR 2021) of a class is |Gd & Pd| / |Gd | Pd|. G is the class's mask in
    the label, P in the prediction, ignored pixels taken out of both. Gd is the rim of G: those of its pixels that have
    a pixel outside of G among the (2d + 1) x (2d + 1) around them; what lies beyond the image is outside, as is what is
    ignored. d is `share` of the image's diagonal, rounded, and at least 1. The counts are summed over images before the
    ratio is taken, where Cheng et al. average over objects.
    """
    reach = rim_width(tuple(label.shape), share)
    counted = label != IGNORE
    guess = torch.where(counted, prediction, IGNORE)
    label_rim, guess_rim = (_rim(mask.numpy(), reach) & counted.numpy() for mask in (label, guess))
    truth, said = label.numpy(), guess.numpy()
    both = label_rim & guess_rim & (truth == said)
    rims = [np.bincount(mask, minlength=num_classes) for mask in (truth[both], truth[label_rim], said[guess_rim])]
    interior = confusion_matrix(guess, torch.where(torch.from_numpy(label_rim), IGNORE, label), num_classes)
    return BoundaryCounts(np.stack(rims).astype(np.int64), interior.numpy())


def boundary_scores(counts: BoundaryCounts) -> BoundaryScores:
    """Boundary and interior IoU of each class and their means."""
    both, labelled, predicted = counts.rims
    iou = ratio(both, labelled + predicted - both, math.nan)
    inside = counts.interior
    correct = inside.diagonal()
    interior = ratio(correct, inside.sum(axis=1) + inside.sum(axis=0) - correct, math.nan)
    return BoundaryScores(mean_known(iou), tuple(iou.tolist()), mean_known(interior), tuple(interior.tolist()))


def rim_width(size: tuple[int, ...], share: float = SHARE) -> int:
    """How many pixels a rim is wide in an image of this height and width."""
    return max(1, round(share * math.hypot(*size)))


def _rim(classes: UInt8[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Where a pixel of another value, or the end of the image, is at most `reach` rows and columns away.

    One pass serves all classes: a square holds one value alone where its least is its greatest.
    """
    height, width = classes.shape
    rim = np.ones((height, width), dtype=bool)
    if height > 2 * reach and width > 2 * reach:
        least, greatest = (_over_squares(classes, 2 * reach + 1, pick) for pick in (np.minimum, np.maximum))
        rim[reach : height - reach, reach : width - reach] = least != greatest
    return rim


def _over_squares(values: UInt8[np.ndarray, "h w"], side: int, pick: np.ufunc) -> UInt8[np.ndarray, "i j"]:
    """`pick` over each square of that side that lies in the image, in about 2 log2(side) steps."""
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        length = 1
        while 2 * length <= side:
            values = pick(values[:-length], values[length:])
            length *= 2
        if length < side:
            values = pick(values[: len(values) - (side - length)], values[side - length :])
        values = np.moveaxis(values, 0, axis)
    return values
