"""How sure a score is: the same score on images drawn again and again from those that were measured."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from asymseg.errors import ConfigError
from asymseg.evaluation.metrics import json_number, ratio

REPLICATES = 2000
LEVEL = 0.95
SEED = 0

_DRAWN_AT_ONCE = 2_000_000
"""Images of all replicates that are drawn and summed together."""


@dataclass(frozen=True)
class Interval:
    """A score and the range that its replicates fall in; nan where the class occurs nowhere."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The range, to be put behind the score."""
        return "" if math.isnan(self.low) else f" ({self.low:.4f} to {self.high:.4f})"

    def to_list(self) -> list[float | None]:
        """Both ends, for JSON."""
        return [json_number(self.low), json_number(self.high)]


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals of the scores of one model on one set of images."""

    level: float
    replicates: int
    seed: int
    miou: Interval
    pixel_accuracy: Interval
    iou: tuple[Interval, ...]
    """Of each class; a replicate in which the class occurs nowhere is left out."""

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The form for JSON."""
        return {
            "level": self.level,
            "replicates": self.replicates,
            "seed": self.seed,
            "resampled": "images",
            "miou": self.miou.to_list(),
            "pixel_accuracy": self.pixel_accuracy.to_list(),
            "iou": {name: interval.to_list() for name, interval in zip(names, self.iou, strict=True)},
        }


@dataclass(frozen=True)
class Replicates:
    """Scores of a set of images and of its replicates, which come last to first axis."""

    miou: Float64[np.ndarray, " replicates"]
    pixel_accuracy: Float64[np.ndarray, " replicates"]
    iou: Float64[np.ndarray, "replicates classes"]


def bootstrap(
    counts: Int64[np.ndarray, "images 3 classes"],
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = SEED,
) -> Intervals:
    """Percentile intervals (Efron, 1979) of mIoU, pixel accuracy and IoU from each image's `image_counts`.

    Images are taken for independent of each other; of the frames of one video the true intervals are wider.
    """
    measured, drawn = scores_of(counts.sum(axis=0)[None]), resampled(counts, replicates, seed)
    classes = range(counts.shape[2])
    return Intervals(
        level,
        replicates,
        seed,
        interval(float(measured.miou[0]), drawn.miou, level),
        interval(float(measured.pixel_accuracy[0]), drawn.pixel_accuracy, level),
        tuple(interval(float(measured.iou[0, number]), drawn.iou[:, number], level) for number in classes),
    )


def need_sensible(replicates: int = REPLICATES, level: float = LEVEL) -> None:
    """Raises ConfigError where a bootstrap cannot be drawn so; to be asked before anything is measured for it."""
    if replicates < 1:
        raise ConfigError(f"replicates = {replicates}: a bootstrap needs at least 1, as in 2000")
    if not 0 < level < 1:
        raise ConfigError(f"level = {level:g} must lie between 0 and 1, as in 0.95")


def image_counts(matrix: Int64[np.ndarray, "classes classes"]) -> Int64[np.ndarray, "3 classes"]:
    """By class: pixels that are correct, labelled so, predicted so. All that IoU and accuracy need of an image."""
    return np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)])


def resampled(
    counts: Int64[np.ndarray, "images 3 classes"], replicates: int = REPLICATES, seed: int = SEED
) -> Replicates:
    """The scores of sets that hold as many images, drawn with replacement.

    How often an image is drawn depends on the number of images, `seed` and the replicate alone: two models on the same
    images, in the same order, are measured on the same draws.
    """
    need_sensible(replicates)
    parts = [scores_of(sums) for sums in _sums(counts, replicates, seed)]
    return Replicates(
        np.concatenate([part.miou for part in parts]),
        np.concatenate([part.pixel_accuracy for part in parts]),
        np.concatenate([part.iou for part in parts]),
    )


def _sums(counts: np.ndarray, replicates: int, seed: int) -> Iterator[Float64[np.ndarray, "portion 3 classes"]]:
    """The counts of some replicates, summed over the images drawn; exact, since they stay below 2^53."""
    images = len(counts)
    flat = counts.reshape(images, 3 * counts.shape[2]).astype(np.float64)
    generator = np.random.default_rng(seed)
    together = max(1, _DRAWN_AT_ONCE // max(1, images))
    for first in range(0, replicates, together):
        portion = min(together, replicates - first)
        draws = generator.integers(0, images, (portion, images)) if images else np.zeros((portion, 0), dtype=np.int64)
        cells = (draws + images * np.arange(portion)[:, None]).ravel()
        times = np.bincount(cells, minlength=portion * images).reshape(portion, images)
        yield (times.astype(np.float64) @ flat).reshape(portion, *counts.shape[1:])


def scores_of(sums: Float64[np.ndarray, "sets 3 classes"] | Int64[np.ndarray, "sets 3 classes"]) -> Replicates:
    """mIoU, pixel accuracy and IoU of several sets; a class that a set has nowhere is nan and left out of its mean."""
    correct, labelled, predicted = (sums[:, number].astype(np.float64) for number in range(3))
    iou = ratio(correct, labelled + predicted - correct, math.nan)
    known = ~np.isnan(iou)
    miou = ratio(np.where(known, iou, 0).sum(axis=1), known.sum(axis=1), math.nan)
    return Replicates(miou, ratio(correct.sum(axis=1), labelled.sum(axis=1), math.nan), iou)


def interval(value: float, drawn: Float64[np.ndarray, " replicates"], level: float = LEVEL) -> Interval:
    """The percentile interval of a score: the middle share `level` of its replicates, those that are nan left out."""
    need_sensible(level=level)
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
