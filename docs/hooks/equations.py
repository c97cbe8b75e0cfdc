"""Equations as pictures in the text: what stands between dollars becomes an SVG by matplotlib's TeX, at build time.

A page then needs no script and no font to show them. They take the text's colour and size; read aloud they are their
TeX.
"""

import html
import re
from functools import cache
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextToPath

SIZE = 10.0
FONT = FontProperties(size=SIZE, math_fontfamily="stix")
LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """The page with every equation drawn."""
    content = INLINE.sub(lambda match: draw(clean(match[1])), content)
    return DISPLAY.sub(lambda match: block(clean(match[1])), content)


def clean(tex: str) -> str:
    return " ".join(html.unescape(tex).split())


def block(tex: str) -> str:
    """An equation of its own, or several below one another where they were aligned."""
    lines = tex.replace(r"\begin{aligned}", "").replace(r"\end{aligned}", "").split(r"\\")
    rows = "".join(f"<div>{draw(clean(line.replace('&', '')))}</div>" for line in lines if line.strip())
    return f'<div class="equation">{rows}</div>'


@cache
def draw(tex: str) -> str:
    """The equation as an SVG whose foot lies as far below the line as it should."""
    width = MathTextParser("path").parse(f"${tex}$", dpi=72, prop=FONT).width
    points, codes = TextToPath().get_text_path(FONT, f"${tex}$", ismath=True)
    outline = Outline(np.asarray(points) * SIZE / TextToPath.FONT_SCALE, codes)
    low, high = outline.get_extents().y0, outline.get_extents().y1
    data = " ".join(
        LETTERS[code] + " ".join(f"{number:.2f}" for number in (() if code == Outline.CLOSEPOLY else corners))
        for corners, code in outline.iter_segments(curves=True, simplify=False)
    )
    pad = 0.4
    left, top, wide, tall = -pad, -high - pad, width + 2 * pad, high - low + 2 * pad
    return (
        f'<svg class="tex" role="img" aria-label="{html.escape(tex, quote=True)}" '
        f'viewBox="{left:.2f} {top:.2f} {wide:.2f} {tall:.2f}" '
        f'style="width:{wide / SIZE:.3f}em;height:{tall / SIZE:.3f}em;vertical-align:{(low - pad) / SIZE:.3f}em">'
        f'<path transform="scale(1 -1)" d="{data}"/></svg>'
    )
