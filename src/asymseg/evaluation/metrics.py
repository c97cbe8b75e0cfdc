"""Scores of a segmentation: one exact table of pixel counts over a whole data set, and every number from that table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from asymseg.classes import IGNORE, MAX_CLASSES
from asymseg.errors import DataError

Absent = Literal["nan", "zero", "one"]


@dataclass(frozen=True)
class Scores:
    """Every number that one confusion matrix gives, as fractions of 1; nan where a number has no meaning.

    The tuples have one entry per class, in the order of the class ids.
    """

    miou: float
    """The macro mean: the plain mean of `iou` over the classes, nan left out."""
    micro_iou: float
    """All correct pixels over the sum of all unions, so that big classes weigh more."""
    fwiou: float
    """The mean of `iou`, each class weighted by its share of the labelled pixels."""
    pixel_accuracy: float
    """The share of labelled pixels that got their class; also the micro mean of recall, precision and F1."""
    mean_accuracy: float
    """The plain mean of `accuracy` over the classes that occur in the labels."""
    mean_f1: float
    """The plain mean of `f1` over the classes, nan left out."""
    iou: tuple[float, ...]
    """Correct pixels over pixels that have the class in the label, the prediction or both."""
    accuracy: tuple[float, ...]
    """Recall: the share of the pixels labelled so that were found; nan for a class without labels."""
    precision: tuple[float, ...]
    """The share of the pixels predicted so that are right; nan for a class never predicted."""
    f1: tuple[float, ...]
    """The Dice coefficient: the harmonic mean of recall and precision."""
    support: tuple[int, ...]
    """Labelled pixels."""
    classes_present: int
    """The number of classes that occur in the labels or the predictions."""
    absent: Absent
    """What a class counts that occurs in neither: see `scores`."""

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The form for JSON: nan becomes null, and the classes go by name."""
        if len(names) != len(self.iou):
            raise ValueError(f"{len(names)} names for the scores of {len(self.iou)} classes")
        return {
            "miou": json_number(self.miou),
            "macro_iou": json_number(self.miou),  # the same number, named as the counterpart of micro_iou
            "micro_iou": json_number(self.micro_iou),
            "fwiou": json_number(self.fwiou),
            "pixel_accuracy": json_number(self.pixel_accuracy),
            "mean_accuracy": json_number(self.mean_accuracy),
            "mean_f1": json_number(self.mean_f1),
            "classes_present": self.classes_present,
            "num_classes": len(self.iou),
            "absent": self.absent,
            "pixels": sum(self.support),
            "classes": {
                name: {
                    "iou": json_number(self.iou[number]),
                    "accuracy": json_number(self.accuracy[number]),
                    "precision": json_number(self.precision[number]),
                    "f1": json_number(self.f1[number]),
                    "pixels": self.support[number],
                }
                for number, name in enumerate(names)
            },
        }


def confusion_matrix(
    prediction: Integer[Tensor, "*shape"], label: Integer[Tensor, "*shape"], num_classes: int
) -> Int64[Tensor, "classes classes"]:
    """Pixel counts by label (rows) and prediction (columns), exact however many pixels there are.

    Pixels labelled `IGNORE` are left out, whatever was predicted there. The matrices of several images add up to the
    matrix of the set.

    Args:
        prediction: class ids, of one image or a batch.
        label: class ids or `IGNORE`, of the same shape.
        num_classes: ids run from 0 to one below it.

    Raises:
        DataError: a label is neither a class nor `IGNORE`.
        ValueError: a counted prediction is not a class, or the shapes differ.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes must be from 1 to {MAX_CLASSES}, not {num_classes}")
    if prediction.shape != label.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and label {tuple(label.shape)} differ in shape")
    counted = label != IGNORE
    stray = _outside(label, num_classes, counted)
    if stray:
        raise DataError(
            f"a label holds the id {stray}, but the classes are 0 to {num_classes - 1} and {IGNORE} is ignored; "
            'list its raw id under "values" of the class list'
        )
    stray = _outside(prediction, num_classes, counted)
    if stray:
        raise ValueError(f"a prediction holds the id {stray}, but the classes are 0 to {num_classes - 1}")
    # one number per pixel: row * C + column, and a bin of their own for ignored pixels, cut off afterwards
    cell = torch.where(counted, label.int() * num_classes + prediction.int(), num_classes**2)
    counts = torch.bincount(cell.flatten(), minlength=num_classes**2 + 1)[:-1]
    return counts.reshape(num_classes, num_classes)


def scores(matrix: Int64[Tensor, "classes classes"], absent: Absent = "nan") -> Scores:
    """All scores from a confusion matrix, computed in float64.

    Args:
        matrix: pixel counts, rows by label, columns by prediction.
        absent: the IoU and F1 of a class that occurs neither in labels nor in predictions. `"nan"` leaves it out of the
            means (Cityscapes, mmsegmentation); `"zero"` counts it as 0 (CSAIL, for ADE20K); `"one"` as 1 (PaddleSeg).
    """
    if absent not in ("nan", "zero", "one"):
        raise ValueError(f'absent must be "nan", "zero" or "one", not {absent!r}')
    counts = matrix.cpu().numpy()
    correct = counts.diagonal()
    labelled = counts.sum(axis=1)
    predicted = counts.sum(axis=0)
    union = labelled + predicted - correct
    value_of_absent = {"nan": math.nan, "zero": 0.0, "one": 1.0}[absent]
    iou = ratio(correct, union, value_of_absent)
    f1 = ratio(2 * correct, labelled + predicted, value_of_absent)
    accuracy = ratio(correct, labelled, math.nan)
    occurs = labelled > 0
    return Scores(
        miou=mean_known(iou),
        micro_iou=_fraction(correct.sum(), union.sum()),
        fwiou=_fraction((labelled[occurs] * iou[occurs]).sum(), labelled.sum()),
        pixel_accuracy=_fraction(correct.sum(), labelled.sum()),
        mean_accuracy=mean_known(accuracy),
        mean_f1=mean_known(f1),
        iou=tuple(iou.tolist()),
        accuracy=tuple(accuracy.tolist()),
        precision=tuple(ratio(correct, predicted, math.nan).tolist()),
        f1=tuple(f1.tolist()),
        support=tuple(labelled.tolist()),
        classes_present=int((union > 0).sum()),
        absent=absent,
    )


def category_scores(matrix: Int64[Tensor, "classes classes"], categories: Sequence[str]) -> dict[str, float]:
    """IoU by category, where each class counts as the category it belongs to; confusions within one are no mistake.

    The category IoU of Cityscapes. Categories stand in the order of their first class; nan for one that occurs nowhere.
    """
    names = list(dict.fromkeys(categories))
    group = np.array([names.index(category) for category in categories])
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (group[:, None], group[None, :]), matrix.cpu().numpy())
    return dict(zip(names, scores(torch.from_numpy(counts)).iou, strict=True))


def _outside(ids: Tensor, num_classes: int, counted: Tensor) -> str:
    """The smallest counted id that is not a class, as text; empty where there is none."""
    wrong = counted & ((ids < 0) | (ids >= num_classes))
    return str(int(ids[wrong].min())) if bool(wrong.any()) else ""


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    """`part / whole`, and `otherwise` where `whole` is 0."""
    result = np.full(whole.shape, otherwise, dtype=np.float64)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _fraction(part: np.number, whole: np.number) -> float:
    return float(part / whole) if whole else math.nan


def mean_known(values: np.ndarray) -> float:
    """The mean without nan; nan, and no warning, where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def json_number(value: float) -> float | None:
    """The form for JSON, which has no nan and no infinity."""
    return value if math.isfinite(value) else None
