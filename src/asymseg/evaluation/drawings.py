"""The reports' drawings: SVG in the page's own colours, the same bytes for the same numbers."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asymseg.evaluation.calibration import BINS, CalibrationScores

Points = Sequence[tuple[float, float]]

_INK, _MUTED, _HAIR, _ACCENT = "#010101", "#020202", "#030303", "#040404"  # stand-ins, replaced in `_as_svg`


def _series(history: Sequence[Mapping[str, Any]], kind: str, key: str) -> list[tuple[float, float]]:
    """Step and value of the log lines of one kind, those left out that have no finite number."""
    lines = [line for line in history if line.get("kind") == kind and "step" in line]
    points = [(line["step"], line.get(key)) for line in lines]
    known = [(step, value) for step, value in points if isinstance(value, int | float) and math.isfinite(value)]
    return [(float(step), float(value)) for step, value in known]


def training_curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Markup]]:
    """Heading, what to see, and drawing of each curve that has at least two points."""
    loss, held_out = _series(history, "train", "loss"), _series(history, "validation", "loss")
    miou = [(step, 100 * value) for step, value in _series(history, "validation", "miou")]
    rate = _series(history, "train", "learning_rate")
    curves = []
    if len(miou) > 1:
        step, best = max(miou, key=lambda point: point[1])
        seen = f"best {best:.1f} at step {step:.0f}"
        curves.append(("Validation mIoU, %", seen, draw("miou", miou, mark=(step, best))))
    if len(loss) > 1:
        seen = f"last {loss[-1][1]:.3g}" + (f"; validation, heavier line, {held_out[-1][1]:.3g}" if held_out else "")
        curves.append(("Training loss", seen, draw("loss", loss, held_out)))
    if len(rate) > 1:
        curves.append(("Learning rate", f"from {rate[0][1]:.2g} to {rate[-1][1]:.2g}", draw("rate", rate)))
    return curves


def calibration_diagram(scores: CalibrationScores) -> Markup:
    """Accuracy of each bin against its confidence; on the diagonal, the model is as sure as it is right."""
    known = [point for point in zip(scores.confidence, scores.accuracy, strict=True) if not math.isnan(point[0])]
    shares = [pixels / max(sum(scores.pixels), 1) for pixels in scores.pixels]
    # svg.hashsalt: matplotlib names clip paths at random otherwise; one salt per drawing keeps ids apart in the page
    with matplotlib.rc_context({"svg.hashsalt": "calibration", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = _axes("confidence, %")
        centres = [100 * (number + 0.5) / BINS for number in range(BINS)]
        axes.bar(centres, [100 * share for share in shares], width=95 / BINS, color=_HAIR)
        axes.plot([0, 100], [0, 100], color=_MUTED, linewidth=0.8)
        if known:
            sure, right = ([100 * value for value in values] for values in zip(*known, strict=True))
            axes.plot(sure, right, color=_INK, linewidth=1.6, marker="o", markersize=4, markerfacecolor=_ACCENT)
        axes.set(xlim=(0, 100), ylim=(0, 103))
        return _as_svg(figure)


def risk_curve(scores: CalibrationScores) -> Markup:
    """The share of mistakes among the surest pixels, against how many those are."""
    points = list(zip(scores.coverage, scores.risk, strict=True))
    thin = max(1, len(points) // 200)
    points = points[::thin] + points[-1:] if points else []
    with matplotlib.rc_context({"svg.hashsalt": "risk", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = _axes("coverage, %")
        if points:
            axes.plot(
                *zip(*[(100 * share, 100 * risk) for share, risk in points], strict=True), color=_INK, linewidth=1.6
            )
        axes.set(xlim=(0, 100))
        axes.set_ylim(bottom=0)
        return _as_svg(figure)


def draw(
    name: str,
    points: Points,
    heavier: Points = (),
    mark: tuple[float, float] | None = None,
) -> Markup:
    """A curve over the steps of a training run."""
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure, axes = _axes("step")
        axes.plot(*zip(*points, strict=True), color=_MUTED if heavier else _INK, linewidth=1.2 if heavier else 1.6)
        if heavier:
            axes.plot(*zip(*heavier, strict=True), color=_INK, linewidth=2)
        if mark:
            axes.plot(*mark, marker="o", markersize=6, color=_ACCENT)
        axes.ticklabel_format(axis="y", scilimits=(-2, 4), useOffset=False)
        return _as_svg(figure)


def _axes(below: str) -> tuple[Figure, Axes]:
    """Empty axes with as little ink as can be, and words below them."""
    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_HAIR)
    axes.grid(axis="y", color=_HAIR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_MUTED)
    axes.yaxis.offsetText.set_color(_MUTED)
    axes.locator_params(nbins=4)
    axes.set_xlabel(below, color=_MUTED)
    return figure, axes


def _as_svg(figure: Figure) -> Markup:
    """The drawing to be put in the page, in colours that follow light and dark."""
    content = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(content, format="svg", transparent=True, metadata=metadata)
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML and document type lines
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # group names, the same in each drawing
    for side in ("width", "height"):  # the page's column decides
        svg = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", svg, count=1)
    for stand_in, variable in ((_INK, "ink"), (_MUTED, "muted"), (_HAIR, "hair"), (_ACCENT, "accent")):
        svg = svg.replace(stand_in, f"var(--{variable})")
    return Markup(svg)
