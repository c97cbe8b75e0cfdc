"""The page of a comparison: one HTML file that needs nothing but itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asymseg.evaluation.bootstrap import Interval
from asymseg.evaluation.comparison import Comparison
from asymseg.evaluation.records import write_json
from asymseg.pages import render_page, save_page


@dataclass(frozen=True)
class Difference:
    """One image on which two models differ."""

    name: str
    miou_a: float
    miou_b: float
    pictures: list[tuple[str, str]]
    """Caption and data address."""


def write_comparison(
    folder: Path, result: Comparison, shown: tuple[Sequence[Difference], Sequence[Difference]] = ((), ())
) -> None:
    """Write `compare.json` and the page `compare.html`; `shown` are images where B gains and where it loses."""
    write_json(folder / "compare.json", result.to_dict())
    save_page(folder / "compare.html", render(result, shown))


def render(result: Comparison, shown: tuple[Sequence[Difference], Sequence[Difference]] = ((), ())) -> str:
    """The page as text."""
    rows = [
        ("mean IoU", result.miou, result.difference),
        ("pixel accuracy", result.pixel_accuracy, result.accuracy_difference),
    ]
    classes = sorted(
        zip(result.classes, result.iou, result.iou_differences, strict=True),
        key=lambda row: (math.isnan(row[2].value), -row[2].value if not math.isnan(row[2].value) else 0.0),
    )
    rows += classes
    ends = [abs(end) for _, _, span in rows for end in (span.low, span.high, span.value) if not math.isnan(end)]
    return render_page(
        "asymseg.evaluation",
        "compare.html.j2",
        result=result,
        rows=rows,
        reach=max(ends, default=0.0) or 1.0,
        side=_side,
        apart=result.apart(),
        most=result.most_different(10),
        galleries=[pair for pair in zip(("B gains most", "B loses most"), shown, strict=True) if pair[1]],
    )


def _side(span: Interval) -> str:
    """How a row is coloured: where the whole interval is on one side of 0."""
    return "better" if span.low > 0 else "worse" if span.high < 0 else ""
