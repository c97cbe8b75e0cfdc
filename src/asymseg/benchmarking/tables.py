"""Figures as rows of text, which the terminal and the results' Markdown share."""

from dataclasses import dataclass

from asymseg.benchmarking.figures import Comparison, Figures, growth
from asymseg.benchmarking.settings import Size


@dataclass(frozen=True)
class TextTable:
    """A heading, the names of the columns and the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells are empty where nothing was measured."""

    def to_markdown(self) -> str:
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [self.columns, rule, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison_tables(comparison: Comparison) -> list[TextTable]:
    """A table of figures for each size and, where there are sizes enough, one of growth."""
    tables = [_figures_table(comparison, size) for size in comparison.sizes]
    return [*tables, *_growth_table(comparison)]


def _figures_table(comparison: Comparison, size: Size) -> TextTable:
    """Columns without a single value are left out."""
    figures = [one for one in comparison.figures if one.size == size]
    ours = comparison.find(comparison.ours, size)
    columns: dict[str, list[str]] = {
        "form": [_bold(one.name, one is ours) for one in figures],
        "time": [f"{milliseconds(one.median)} ±{one.spread:.0%}" for one in figures],
        "time / ours": [times(comparison.times_slower(one)) for one in figures],
        "images/s": [f"{comparison.batch / one.median:.3g}" if comparison.counts_images else "" for one in figures],
        "memory": [megabytes(one.peak_bytes) for one in figures],
        "memory / ours": [times(_ratio(one.peak_bytes, ours.peak_bytes if ours else None)) for one in figures],
        "kept": [megabytes(one.kept_bytes) if (one.kept_bytes or 0) > 1e5 else "" for one in figures],
        "saved": [megabytes(one.saved_bytes) for one in figures],
        "saved / ours": [times(_ratio(one.saved_bytes, ours.saved_bytes if ours else None)) for one in figures],
        "parameters": [f"{one.parameters / 1e6:.3g} M" for one in figures],
        "multiply-adds": [f"{one.multiply_adds / 1e9:.3g} G" for one in figures],
        "roofline": [_share(comparison.roofline_share(one)) for one in figures],
        "difference": ["" if one.error is None else f"{one.error:.0e}" for one in figures],
        "note": [one.note for one in figures],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    title = f"{comparison.title}, {comparison.batch} x {size[0]}x{size[1]}, {comparison.precision}"
    return TextTable(title, tuple(kept), tuple(zip(*kept.values(), strict=True)))


def _growth_table(comparison: Comparison) -> list[TextTable]:
    found = growth(comparison)
    if not found:
        return []
    pairs = [(small, large) for small, large, _ in found[0].fourfold]
    columns = (
        "form",
        "time grows as pixels to the",
        "memory grows as pixels to the",
        *(f"time, {small[0]}x{small[1]} to {large[0]}x{large[1]}" for small, large in pairs),
    )
    rows = tuple(
        (
            _bold(one.name, one.name == comparison.ours),
            f"{one.time_exponent:.2f}",
            "" if one.memory_exponent is None else f"{one.memory_exponent:.2f}",
            *(f"x {ratio:.2f}" for _, _, ratio in one.fourfold),
        )
        for one in found
    )
    return [TextTable(f"{comparison.title}: growth, {comparison.precision}", columns, rows)]


def milliseconds(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def megabytes(count: int | None) -> str:
    return "" if count is None else f"{three_digits(count / 1e6)} MB"


def times(ratio: float | None) -> str:
    return "" if ratio is None else three_digits(ratio)


def three_digits(value: float) -> str:
    """Three digits at least, and never an exponent for large values."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: int | None, reference: int | None) -> float | None:
    return value / reference if value is not None and reference else None


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _bold(text: str, yes: bool) -> str:
    return f"**{text}**" if yes else text


def figures_of(comparison: Comparison, name: str) -> list[Figures]:
    """A contestant's figures by number of pixels."""
    return sorted((one for one in comparison.figures if one.name == name), key=lambda one: one.pixels)
