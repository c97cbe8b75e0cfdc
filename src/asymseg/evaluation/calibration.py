"""Whether a model knows when it is right: calibration error by class, and risk against coverage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from asymseg.classes import IGNORE
from asymseg.evaluation.metrics import json_number, ratio

BINS = 15
"""Bins of equal width between the confidences 0 and 1 (Guo et al., ICML 2017)."""

STEPS = 512
"""Steps of the finer histogram to each halving of 1 - confidence."""

_HALVINGS = 24  # 1 - confidence is 0 or at least 2^-24 in float32
_SHIFT = 23 - int(math.log2(STEPS))  # a float32 has 23 bits behind its exponent
_LOWEST = (127 - _HALVINGS) * STEPS  # 127 is the exponent of 1.0
FINE = 2 + _HALVINGS * STEPS
"""Bins of the finer histogram: confidence 1, and then 1 - confidence from 2^-24 to 1."""

COVERAGES = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Shares of the pixels, the surest first, at which the risk is told."""


@dataclass(frozen=True)
class CalibrationCounts:
    """Sums over the labelled pixels of an image, or of all: they add up, and their size is the same for any number."""

    pixels: Int64[np.ndarray, "classes bins"]
    """By predicted class and confidence."""
    correct: Int64[np.ndarray, "classes bins"]
    confidence: Float64[np.ndarray, "classes bins"]
    """The sum of the confidences."""
    ranked: Int64[np.ndarray, "2 fine"]
    """Pixels and mistakes from the surest on: see `STEPS`."""

    def __add__(self, other: "CalibrationCounts") -> "CalibrationCounts":
        return CalibrationCounts(
            self.pixels + other.pixels,
            self.correct + other.correct,
            self.confidence + other.confidence,
            self.ranked + other.ranked,
        )


@dataclass(frozen=True)
class CalibrationScores:
    """Fractions of 1; nan where no pixel was counted."""

    ece: float
    """Expected calibration error of the predicted classes: over the bins, the mean of |accuracy - confidence|."""
    class_ece: tuple[float, ...]
    """The same over the pixels predicted as each class."""
    overconfidence: float
    """Mean confidence minus accuracy: above 0 where the model is too sure."""
    pixels: tuple[int, ...]
    """Of each bin."""
    accuracy: tuple[float, ...]
    confidence: tuple[float, ...]
    coverage: tuple[float, ...]
    """Points of the risk-coverage curve, the surest pixels first."""
    risk: tuple[float, ...]
    """The share of mistakes among the pixels covered."""
    aurc: float
    """The area under that curve: the mean risk over all coverages (Geifman and El-Yaniv, NeurIPS 2017)."""
    aurc_resolution: float
    """How far at most `aurc` is from that of the unbinned confidences, whatever their order within the bins."""

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The form for JSON."""
        return {
            "bins": BINS,
            "ece": json_number(self.ece),
            "overconfidence": json_number(self.overconfidence),
            "class_ece": {name: json_number(error) for name, error in zip(names, self.class_ece, strict=True)},
            "pixels": list(self.pixels),
            "accuracy": [json_number(value) for value in self.accuracy],
            "confidence": [json_number(value) for value in self.confidence],
            "aurc": json_number(self.aurc),
            "aurc_resolution": json_number(self.aurc_resolution),
            "risk_at_coverage": {f"{share:g}": json_number(self.risk_at(share)) for share in COVERAGES},
        }

    def risk_at(self, share: float) -> float:
        """The share of mistakes among this share of the pixels, the surest; linear between the points of the curve."""
        mistakes = [coverage * risk for coverage, risk in zip(self.coverage, self.risk, strict=True)]
        return float(np.interp(share, [0.0, *self.coverage], [0.0, *mistakes])) / share if mistakes else math.nan


def count_calibration(
    prediction: UInt8[Tensor, "h w"], confidence: Float[Tensor, "h w"], label: UInt8[Tensor, "h w"], num_classes: int
) -> CalibrationCounts:
    """The sums of one image for `calibration_scores`.

    A bin holds the confidences from its lower edge to below its upper one; the last holds 1 as well.

    Args:
        prediction: Class ids.
        confidence: The probability of each pixel's predicted class.
        label: Class ids or `IGNORE`.
        num_classes: Ids run from 0 to one below it.
    """
    counted = label != IGNORE
    guess, sure = prediction[counted].int(), confidence[counted]
    right = guess == label[counted]
    cell = guess * BINS + (sure.double() * BINS).int().clamp_(0, BINS - 1)

    def table(cells: Tensor, weights: Tensor | None = None) -> np.ndarray:
        return torch.bincount(cells, weights, num_classes * BINS).reshape(num_classes, BINS).numpy()

    # The bits of a positive float32, read as a whole number, rise with it: its leading ones are a logarithmic bin.
    fine = ((1 - sure.float()).clamp_(0, 1).view(torch.int32) >> _SHIFT).sub_(_LOWEST - 1).clamp_(min=0)
    pixels, mistakes = torch.bincount(fine, minlength=FINE), torch.bincount(fine[~right], minlength=FINE)
    confidences = table(cell, sure.double()).astype(np.float64)  # bincount of nothing gives whole numbers
    return CalibrationCounts(table(cell), table(cell[right]), confidences, torch.stack([pixels, mistakes]).numpy())


def calibration_scores(counts: CalibrationCounts) -> CalibrationScores:
    """Calibration errors, the bins of the diagram, and the risk-coverage curve."""
    gap = np.abs(counts.correct - counts.confidence)  # classes x bins, in pixels
    pixels, correct, confidence = counts.pixels.sum(0), counts.correct.sum(0), counts.confidence.sum(0)
    total = int(pixels.sum())
    filled = counts.ranked[:, counts.ranked[0] > 0]
    covered, mistakes = filled.cumsum(axis=1)
    low, middle, high = (_mean_risk(filled, order) for order in ("right first", "mixed", "wrong first"))
    return CalibrationScores(
        ece=float(np.abs(correct - confidence).sum() / total) if total else math.nan,
        class_ece=tuple(ratio(gap.sum(axis=1), counts.pixels.sum(axis=1), math.nan).tolist()),
        overconfidence=float((confidence.sum() - correct.sum()) / total) if total else math.nan,
        pixels=tuple(pixels.tolist()),
        accuracy=tuple(ratio(correct, pixels, math.nan).tolist()),
        confidence=tuple(ratio(confidence, pixels, math.nan).tolist()),
        coverage=tuple((covered / max(total, 1)).tolist()),
        risk=tuple(ratio(mistakes, covered, math.nan).tolist()),
        aurc=middle,
        aurc_resolution=max(high - middle, middle - low),
    )


def _mean_risk(ranked: Int64[np.ndarray, "2 bins"], order: str) -> float:
    """The mean over k of the share of mistakes among the k surest pixels, for one order within each bin.

    Along a stretch of n pixels with m mistakes spread evenly, after N pixels with M mistakes, the sum of
    (M + j m/n) / (N + j) over j = 1..n is M D + m/n (n - N D), where D = 1/(N+1) + ... + 1/(N+n).
    """
    pixels, mistakes = ranked.astype(np.float64)
    if order == "mixed":
        lengths, wrong = pixels, mistakes
    else:
        first, second = (pixels - mistakes, mistakes) if order == "right first" else (mistakes, pixels - mistakes)
        lengths = np.stack([first, second], axis=1).ravel()
        halves = (np.zeros_like(mistakes), mistakes) if order == "right first" else (mistakes, np.zeros_like(mistakes))
        wrong = np.stack(halves, axis=1).ravel()
    before, wrong_before = lengths.cumsum() - lengths, wrong.cumsum() - wrong
    harmonic = torch.special.digamma(torch.from_numpy(np.stack([before, before + lengths])) + 1).numpy()
    sums = harmonic[1] - harmonic[0]
    slope = ratio(wrong, lengths, 0.0)
    total = lengths.sum()
    return float((wrong_before * sums + slope * (lengths - before * sums)).sum() / total) if total else math.nan
