"""The diagrams of the site, as SVG that takes the page's colours: python docs/diagrams/draw.py

Boxes stand on a grid of columns and rows; arrows go from one to another, straight or around corners.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
CELL = (132, 74)
BOX = (116, 46)
MARGIN = 12


@dataclass(frozen=True)
class Box:
    """A named place; `kind` is plain, strong (a block of the paper) or few (works on 110 tokens)."""

    column: float
    row: float
    text: str
    note: str = ""
    kind: str = "plain"

    @property
    def middle(self) -> tuple[float, float]:
        return MARGIN + BOX[0] / 2 + self.column * CELL[0], MARGIN + BOX[1] / 2 + self.row * CELL[1]

    def draw(self) -> str:
        x, y = self.middle
        lift = 4 if not self.note else -3
        corner = f'x="{x - BOX[0] / 2}" y="{y - BOX[1] / 2}"'
        lines = [f'<rect class="{self.kind}" {corner} width="{BOX[0]}" height="{BOX[1]}" rx="5"/>']
        lines.append(f'<text x="{x}" y="{y + lift}">{escape(self.text)}</text>')
        if self.note:
            lines.append(f'<text class="note" x="{x}" y="{y + 13}">{escape(self.note)}</text>')
        return "".join(lines)


def arrow(start: Box, end: Box, label: str = "", bend: str = "") -> str:
    """A line from the edge of one box to the edge of another; `bend` is "across" or "down" first, or none."""
    (x0, y0), (x1, y1) = start.middle, end.middle
    wide, tall = BOX[0] / 2, BOX[1] / 2
    if bend == "across":
        points = [(x0 + (wide if x1 > x0 else -wide), y0), (x1, y0), (x1, y1 + (-tall if y1 > y0 else tall))]
    elif bend == "down":
        points = [(x0, y0 + (tall if y1 > y0 else -tall)), (x0, y1), (x1 + (-wide if x1 > x0 else wide), y1)]
    elif abs(y1 - y0) < 1:
        points = [(x0 + (wide if x1 > x0 else -wide), y0), (x1 + (-wide if x1 > x0 else wide), y1)]
    else:
        leave, reach, between = y0 + (tall if y1 > y0 else -tall), y1 + (-tall if y1 > y0 else tall), (y0 + y1) / 2
        points = [(x0, leave), (x0, between), (x1, between), (x1, reach)] if x0 != x1 else [(x0, leave), (x1, reach)]
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    drawn = f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>'
    if label:
        x, y = (points[-2][0] + points[-1][0]) / 2, (points[-2][1] + points[-1][1]) / 2
        drawn += f'<text class="note" x="{x}" y="{y - 5}">{escape(label)}</text>'
    return drawn


STYLE = (
    "text{font:600 13px var(--md-text-font,sans-serif);fill:currentColor;text-anchor:middle}"
    ".note{font-weight:400;font-size:11px;opacity:.75}"
    "rect{fill:none;stroke:currentColor;stroke-width:1.2;opacity:.9}"
    ".strong{fill:var(--md-accent-fg-color,#b4552d);fill-opacity:.16;stroke:var(--md-accent-fg-color,#b4552d);stroke-width:2}"
    ".few{stroke:var(--md-accent-fg-color,#b4552d);stroke-dasharray:5 3;stroke-width:1.6}"
    ".arrow{fill:none;stroke:currentColor;stroke-width:1.2;opacity:.7}"
    ".tip{fill:currentColor;stroke:none}"
)


def svg(name: str, title: str, boxes: Iterable[Box], arrows: Iterable[str]) -> None:
    """Write a diagram, its size as large as its boxes need."""
    boxes = list(boxes)
    width = 2 * MARGIN + BOX[0] + max(box.column for box in boxes) * CELL[0]
    height = 2 * MARGIN + BOX[1] + max(box.row for box in boxes) * CELL[1]
    view = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {view}>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        *arrows,
        *(box.draw() for box in boxes),
        "</svg>",
    ]
    (HERE / f"{name}.svg").write_text("\n".join(parts) + "\n", encoding="utf-8")


def network() -> None:
    image = Box(0, 1, "image", "3 x H x W")
    low = Box(1, 0, "stage 4", "1024 x H/8 x W/8")
    high = Box(1, 1, "stage 5", "2048 x H/8 x W/8")
    afnb = Box(2, 1, "AFNB", "fusion", "strong")
    conv = Box(3, 1, "3x3 conv", "2048 to 512")
    apnb = Box(4, 1, "APNB", "context", "strong")
    classifier = Box(5, 1, "1x1 classifier", "then enlarged")
    aux = Box(5, 0, "auxiliary", "loss x 0.4")
    svg(
        "network",
        "ANNNet: an image goes through the backbone; AFNB fuses its two last stages, a 3x3 convolution follows, then "
        "APNB, then the classifier; an auxiliary classifier looks at stage 4 in training",
        (image, low, high, afnb, conv, apnb, classifier, aux),
        (
            arrow(image, low, bend="down"),
            arrow(low, high),
            arrow(image, high),
            arrow(low, afnb, bend="across"),
            arrow(high, afnb),
            arrow(afnb, conv),
            arrow(conv, apnb),
            arrow(apnb, classifier),
            arrow(low, aux),
        ),
    )


def block() -> None:
    x = Box(0, 1, "X", "C x N pixels")
    query = Box(1.35, 0, "query", "K x N")
    key = Box(2.7, 0, "key", "K x 110", "few")
    pooled = Box(1.35, 2, "P(X)", "C x 110", "few")
    value = Box(2.7, 2, "W_c (W_o value)", "O x 110", "few")
    weights = Box(4.05, 0, "weights", "110 x N, sum 1")
    spread = Box(4.05, 1, "spread + W_x X", "O x N")
    out = Box(5.25, 1, "BN, ReLU", "O x N")
    svg(
        "block",
        "APNB as it is computed: queries of all pixels, keys pooled from them to 110 tokens; the value, output and "
        "merge projections act on 110 pooled tokens; the weights spread these over the pixels, where the input's share "
        "is added",
        (x, query, key, pooled, value, weights, spread, out),
        (
            arrow(x, query, bend="down"),
            arrow(query, key, "P"),
            arrow(x, pooled, bend="down"),
            arrow(pooled, value),
            arrow(
                key,
                weights,
            ),
            arrow(value, spread, bend="across"),
            arrow(weights, spread),
            arrow(x, spread),
            arrow(spread, out),
        ),
    )


def stages() -> None:
    names = ("config", "blocks", "model", "data", "prediction", "evaluation", "training")
    boxes = [Box(k % 4, k // 4, name) for k, name in enumerate(names)]
    leaving = [Box(3, 1, "benchmarking"), Box(0, 2, "exporting", "from prediction"), Box(1, 2, "serving")]
    cli = Box(3, 2, "cli", "sees everything")
    chain = [*boxes, leaving[0]]
    svg(
        "stages",
        "Stages of the package, each importing only those before it: classes and config, blocks, model, data, "
        "prediction, evaluation, training, benchmarking; exporting and serving stand on prediction; the command line "
        "sees everything",
        (*boxes, *leaving, cli),
        (
            *(arrow(one, two) for one, two in pairwise(chain[:4])),
            *(arrow(one, two) for one, two in pairwise(chain[4:])),
            arrow(boxes[4], leaving[1]),
            arrow(leaving[1], leaving[2]),
            arrow(boxes[3], boxes[4]),
        ),
    )


if __name__ == "__main__":
    network()
    block()
    stages()
