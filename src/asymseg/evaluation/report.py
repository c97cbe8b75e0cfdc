"""The report of an evaluation: one HTML page that needs nothing but itself, readable at a glance."""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from asymseg.atomic import atomic_file
from asymseg.classes import IGNORE, Classes
from asymseg.evaluation.metrics import Scores

PICTURE_WIDTH = 480
"""Pictures are embedded at most this wide."""

WRONG = (214, 69, 32)
"""The page's one accent, kept for mistakes: also `--accent` in the template."""


@dataclass(frozen=True)
class Example:
    """One image of the gallery, as it was judged; 255 in `truth` is ignored."""

    name: str
    miou: float
    image: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]

    def __post_init__(self) -> None:
        if not self.image.shape[:2] == self.truth.shape == self.prediction.shape:
            shapes = f"{self.image.shape}, {self.truth.shape} and {self.prediction.shape}"
            raise ValueError(f"{self.name}: image, truth and prediction must be of one size, not {shapes}")


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
    page = render(report)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def render(report: Report) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("asymseg.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, grouped=_grouped)
    matrix = report.matrix.cpu().numpy() if isinstance(report.matrix, Tensor) else report.matrix
    masks = [mask for example in (*report.worst, *report.best) for mask in (example.truth, example.prediction)]
    shown = {int(number) for mask in masks for number in np.unique(mask)}
    template = environment.get_template("report.html.j2")
    text: str = template.render(
        report=report,
        scores=report.scores,
        names=report.classes.names,
        colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in report.classes.palette],
        order=_best_first(report.scores.iou),
        weakest=_weakest(report.scores),
        labelled=sum(report.scores.support),
        counts=matrix.tolist(),
        shares=(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)).tolist(),
        confusions=_confusions(matrix),
        shown=sorted(number for number in shown if number < len(report.classes)),
        ignores=IGNORE in shown,
        curves=_curves(report.history),
        galleries=[
            (heading, [(example, _pictures(example, report.classes)) for example in group])
            for heading, group in (("Worst", report.worst), ("Best", report.best))
            if group
        ],
        isnan=math.isnan,
    )
    return text


def _percent(value: float, digits: int = 1) -> str:
    return "absent" if math.isnan(value) else f"{100 * value:.{digits}f}"


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _best_first(iou: Sequence[float]) -> list[int]:
    """Class ids by IoU, absent ones last."""
    return sorted(range(len(iou)), key=lambda number: (math.isnan(iou[number]), -iou[number], number))


def _weakest(scores: Scores) -> list[int]:
    """Up to three classes, worst first, and never more than half of those that have labels."""
    known = [number for number in reversed(_best_first(scores.iou)) if scores.support[number]]
    return known[: min(3, len(known) // 2)]


def _confusions(matrix: np.ndarray) -> list[tuple[int, int, float, int]]:
    """The biggest mistakes as label, prediction, share of the label's pixels, pixels: up to eight, from 1 % on."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    rows, columns = np.nonzero(shares >= 0.01)
    cells = zip(rows.tolist(), columns.tolist(), strict=True)
    found = [(row, column, float(shares[row, column]), int(matrix[row, column])) for row, column in cells]
    return sorted(found, key=lambda item: (-item[2], item[0], item[1]))[:8]


def _series(history: Sequence[Mapping[str, Any]], kind: str, key: str) -> list[tuple[float, float]]:
    """Step and value of the log lines of one kind, those left out that have no finite number."""
    lines = [line for line in history if line.get("kind") == kind and "step" in line]
    points = [(line["step"], line.get(key)) for line in lines]
    known = [(step, value) for step, value in points if isinstance(value, int | float) and math.isfinite(value)]
    return [(float(step), float(value)) for step, value in known]


def _curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Markup]]:
    """Heading, what to see, and drawing of each curve that has at least two points."""
    loss, held_out = _series(history, "train", "loss"), _series(history, "validation", "loss")
    miou = [(step, 100 * value) for step, value in _series(history, "validation", "miou")]
    rate = _series(history, "train", "learning_rate")
    curves = []
    if len(miou) > 1:
        step, best = max(miou, key=lambda point: point[1])
        seen = f"best {best:.1f} at step {step:.0f}"
        curves.append(("Validation mIoU, %", seen, _draw("miou", miou, mark=(step, best))))
    if len(loss) > 1:
        seen = f"last {loss[-1][1]:.3g}" + (f"; validation, heavier line, {held_out[-1][1]:.3g}" if held_out else "")
        curves.append(("Training loss", seen, _draw("loss", loss, held_out)))
    if len(rate) > 1:
        curves.append(("Learning rate", f"from {rate[0][1]:.2g} to {rate[-1][1]:.2g}", _draw("rate", rate)))
    return curves


def _draw(
    name: str,
    points: list[tuple[float, float]],
    heavier: Sequence[tuple[float, float]] = (),
    mark: tuple[float, float] | None = None,
) -> Markup:
    """An SVG to be put in the page, in the page's own colours so that it follows light and dark."""
    ink, muted, hair, accent = "#010101", "#020202", "#030303", "#040404"  # stand-ins, replaced below
    # svg.hashsalt: matplotlib names clip paths at random otherwise; one salt per drawing keeps ids apart in the page
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.2, 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*points, strict=True), color=muted if heavier else ink, linewidth=1.2 if heavier else 1.6)
        if heavier:
            axes.plot(*zip(*heavier, strict=True), color=ink, linewidth=2)
        if mark:
            axes.plot(*mark, marker="o", markersize=6, color=accent)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(hair)
        axes.grid(axis="y", color=hair, linewidth=0.8)
        axes.tick_params(length=0, labelcolor=muted)
        axes.ticklabel_format(axis="y", scilimits=(-2, 4), useOffset=False)
        axes.yaxis.offsetText.set_color(muted)
        axes.locator_params(nbins=4)
        axes.set_xlabel("step", color=muted)
        content = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=metadata)
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML and document type lines
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # group names, the same in each drawing
    for side in ("width", "height"):  # the page's column decides
        svg = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", svg, count=1)
    for stand_in, variable in ((ink, "ink"), (muted, "muted"), (hair, "hair"), (accent, "accent")):
        svg = svg.replace(stand_in, f"var(--{variable})")
    return Markup(svg)


def _pictures(example: Example, classes: Classes) -> list[tuple[str, str]]:
    """Caption and data address of the image, the truth, the prediction and the mistakes."""
    height, width = example.truth.shape
    size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width))) if width > PICTURE_WIDTH else (width, height)
    image = Image.fromarray(example.image).resize(size, Image.Resampling.BOX)
    truth, prediction = (
        np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        for mask in (example.truth, example.prediction)
    )
    grey = np.asarray(image.convert("L"), dtype=np.uint8) // 2 + 112  # faint, so that mistakes stand out
    mistakes = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=2)  # h w rgba
    mistakes[truth != prediction] = (*WRONG, 255)
    mistakes[truth == IGNORE] = 0  # see-through: the page's hatching shows
    return [
        ("image", _png(image)),
        ("truth", _png(_coloured(truth, classes))),
        ("prediction", _png(_coloured(prediction, classes))),
        ("mistakes", _png(Image.fromarray(mistakes))),
    ]


def _coloured(mask: np.ndarray, classes: Classes) -> Image.Image:
    picture = Image.fromarray(mask)
    unused = (0,) * (3 * (256 - len(classes)))  # a full palette, so that the ignored id has an entry as well
    picture.putpalette([*(part for colour in classes.palette for part in colour), *unused])
    return picture


def _png(picture: Image.Image) -> str:
    content = io.BytesIO()
    transparency = {"transparency": IGNORE} if picture.mode == "P" else {}
    picture.save(content, format="PNG", optimize=True, **transparency)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
