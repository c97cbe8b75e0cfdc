"""Pictures of a comparison: lines over the number of pixels where sizes differ much, else bars."""

from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from asymseg.atomic import atomic_file
from asymseg.benchmarking.figures import Comparison, growth
from asymseg.benchmarking.tables import figures_of, milliseconds
from asymseg.data.measure import LoaderFigures

INK, MUTED, HAIR = "#1f2328", "#59636e", "#d1d9e0"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, which stay apart for colour-blind eyes; the first is ours."""
MARKERS = "osD^vP"


def draw_stages(figures: LoaderFigures, path: Path) -> None:
    """Write a PNG of how long each stage of the loader takes for an image."""
    times = {name: median(seconds) for name, seconds in figures.stages.items()}
    with _style():
        figure = Figure(figsize=(9, 0.8 + 0.34 * len(times)), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(times), list(times.values()), color=COLOURS[0], height=0.66)
        axes.invert_yaxis()
        for place, seconds in enumerate(times.values()):
            axes.text(seconds, place, f" {milliseconds(seconds)}", va="center", fontsize=9)
        axes.set_title("Time for one image in one process", loc="left", fontsize=10, color=MUTED)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: milliseconds(value)))
        axes.margins(x=0.12)
        _clean(axes, "x")
        _save(figure, path)


def draw(comparison: Comparison, path: Path) -> None:
    """Write a PNG of time and memory."""
    with _style():
        figure = _lines(comparison) if growth(comparison) else _bars(comparison)
        figure.suptitle(f"{comparison.title}, batch {comparison.batch}, {comparison.precision}", x=0.01, ha="left")
        _save(figure, path)


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context({"font.size": 10, "axes.edgecolor": HAIR, "text.color": INK, "axes.labelcolor": MUTED})


def _save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def _lines(comparison: Comparison) -> Figure:
    """Time and memory over pixels on logarithmic axes, each line with its name and fitted exponent at its end."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    slopes = {one.name: one for one in growth(comparison)}
    for number, name in enumerate(_ours_first(comparison)):
        figures, slope = figures_of(comparison, name), slopes[name]
        pixels = [one.pixels for one in figures]
        style = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6], "linewidth": 2, "markersize": 5}
        left.plot(pixels, [one.median for one in figures], label=f"{name}: $N^{{{slope.time_exponent:.2f}}}$", **style)
        if slope.memory_exponent is not None:
            label = f"{name}: $N^{{{slope.memory_exponent:.2f}}}$"
            right.plot(pixels, [(one.peak_bytes or 0) / 1e6 for one in figures], label=label, **style)
    for axes, title in ((left, "Time"), (right, "Memory beyond input and output, MB")):
        axes.set_title(title, loc="left", fontsize=10, color=MUTED)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("N, pixels of the feature map")
        axes.xaxis.set_major_formatter(FuncFormatter(_grouped))
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.16))
        _clean(axes, "both")
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: milliseconds(value)))
    right.yaxis.set_major_formatter(FuncFormatter(_grouped))
    return figure


def _bars(comparison: Comparison) -> Figure:
    """A row of bars for each size: times on the left, memory on the right."""
    sizes, names = comparison.sizes, _ours_first(comparison)
    figure = Figure(figsize=(9, 0.6 + len(sizes) * (0.5 + 0.34 * len(names))), layout="constrained")
    panels = figure.subplots(len(sizes), 2, sharey="row", squeeze=False)
    for size, (left, right) in zip(sizes, panels, strict=True):
        shown = [one for name in names if (one := comparison.find(name, size))]
        labels = [one.name for one in shown]
        colours = [COLOURS[0] if one.name == comparison.ours else "#8c959f" for one in shown]
        left.barh(labels, [one.median for one in shown], color=colours, height=0.66)
        left.invert_yaxis()
        for place, one in enumerate(shown):
            left.text(one.median, place, f" {milliseconds(one.median)}", va="center", fontsize=9)
        left.set_title(f"Time at {size[0]}x{size[1]}", loc="left", fontsize=10, color=MUTED)
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: milliseconds(value)))
        memory = [(one.peak_bytes or 0) / 1e6 for one in shown]
        right.barh(labels, memory, color=colours, height=0.66)
        for place, value in enumerate(memory):
            right.text(value, place, f" {_grouped(value)} MB", va="center", fontsize=9)
        right.set_title("Memory beyond input and output, MB", loc="left", fontsize=10, color=MUTED)
        for axes in (left, right):
            axes.margins(x=0.18)
            _clean(axes, "x")
    return figure


def _grouped(value: float, place: int | None = None) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 1 else f"{value:g}"


def _ours_first(comparison: Comparison) -> list[str]:
    return sorted(comparison.names, key=lambda name: name != comparison.ours)


def _clean(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=HAIR, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=MUTED)
