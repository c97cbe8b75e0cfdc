"""The report of an evaluation: one HTML page that needs nothing but itself, readable at a glance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from asymseg.classes import IGNORE, Classes
from asymseg.evaluation.bootstrap import Intervals
from asymseg.evaluation.boundary import BoundaryScores
from asymseg.evaluation.calibration import COVERAGES, CalibrationScores
from asymseg.evaluation.drawings import calibration_diagram, risk_curve, training_curves
from asymseg.evaluation.metrics import Scores
from asymseg.evaluation.pictures import Example as Example
from asymseg.evaluation.pictures import pictures
from asymseg.pages import hex_colour, render_page, save_page


@dataclass(frozen=True)
class Report:
    """What the page says."""

    title: str
    subtitle: Sequence[str]
    """Facts, one per line: model, data, split, date, hardware; `name: value` lines are aligned."""
    classes: Classes
    matrix: Tensor | np.ndarray
    """Pixel counts, rows by label."""
    scores: Scores
    history: Sequence[Mapping[str, Any]] = ()
    """Lines of the training log; those of kind "train" and "validation" are drawn."""
    worst: Sequence[Example] = ()
    best: Sequence[Example] = ()
    notes: Sequence[str] = ()
    intervals: Intervals | None = None
    boundary: BoundaryScores | None = None
    calibration: CalibrationScores | None = None
    categories: Mapping[str, float] = field(default_factory=dict)
    """IoU of each category, in the order to be shown."""
    confused: Sequence[tuple[int, int, Example]] = ()
    """Label, prediction, and an image in which the one is called the other."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        if tuple(self.matrix.shape) != (count, count) or len(self.scores.iou) != count:
            shape = tuple(self.matrix.shape)
            raise ValueError(f"{count} classes, a matrix {shape} and scores of {len(self.scores.iou)} classes")


def write_report(path: Path, report: Report) -> Path:
    """Write the page to `path`, or to `report.html` in it where it is a folder; return the file.

    The same report gives the same bytes, and a file that was there stays as it was until the new one is whole.
    """
    path = path / "report.html" if path.is_dir() else path
    save_page(path, render(report))
    return path


def render(report: Report) -> str:
    """The page as text."""
    matrix = report.matrix.cpu().numpy() if isinstance(report.matrix, Tensor) else report.matrix
    masks = [mask for example in _examples(report) for mask in (example.truth, example.prediction)]
    shown = {int(number) for mask in masks for number in np.unique(mask)}
    return render_page(
        "asymseg.evaluation",
        "report.html.j2",
        report=report,
        scores=report.scores,
        names=report.classes.names,
        colours=[hex_colour(colour) for colour in report.classes.palette],
        order=_best_first(report.scores.iou),
        weakest=_weakest(report.scores),
        labelled=sum(report.scores.support),
        counts=matrix.tolist(),
        shares=(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)).tolist(),
        confusions=confusions(matrix),
        confused=[
            (label, called, example.name, pictures(example, report.classes, (label, called)))
            for label, called, example in report.confused
        ],
        shown=sorted(number for number in shown if number < len(report.classes)),
        ignores=IGNORE in shown,
        curves=training_curves(report.history),
        diagrams=(calibration_diagram(report.calibration), risk_curve(report.calibration))
        if report.calibration
        else (),
        coverages=COVERAGES,
        galleries=[
            (heading, [(example, pictures(example, report.classes)) for example in group])
            for heading, group in (("Worst", report.worst), ("Best", report.best))
            if group
        ],
    )


def _examples(report: Report) -> list[Example]:
    return [*report.worst, *report.best, *(example for _, _, example in report.confused)]


def _best_first(iou: Sequence[float]) -> list[int]:
    """Class ids by IoU, absent ones last."""
    return sorted(range(len(iou)), key=lambda number: (math.isnan(iou[number]), -iou[number], number))


def _weakest(scores: Scores) -> list[int]:
    """Up to three classes, worst first, and never more than half of those that have labels."""
    known = [number for number in reversed(_best_first(scores.iou)) if scores.support[number]]
    return known[: min(3, len(known) // 2)]


def confusions(matrix: np.ndarray) -> list[tuple[int, int, float, int]]:
    """The biggest mistakes as label, prediction, share of the label's pixels, pixels: up to eight, from 1 % on."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    rows, columns = np.nonzero(shares >= 0.01)
    cells = zip(rows.tolist(), columns.tolist(), strict=True)
    found = [(row, column, float(shares[row, column]), int(matrix[row, column])) for row, column in cells]
    return sorted(found, key=lambda item: (-item[2], item[0], item[1]))[:8]
