"""Pages that need nothing but themselves: a template made into one HTML file, its pictures inside."""

import base64
import io
import math
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from asymseg.atomic import atomic_file


def render_page(package: str, template: str, **values: Any) -> str:
    """The page as text, from a template that lies in a package; a value that the template wants and lacks raises."""
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, grouped=grouped)
    return environment.get_template(template).render(**values, isnan=math.isnan)


def save_page(path: Path, text: str) -> None:
    """Write a page; a file that was there stays until the new one is whole.

    A question mark stands for what UTF-8 cannot say: names of files may hold bytes that are none.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def picture_address(picture: Image.Image, form: Literal["PNG", "JPEG"], **settings: Any) -> str:
    """The picture as a data address; `settings` are those of Pillow for the form."""
    content = io.BytesIO()
    picture.save(content, format=form, optimize=True, **settings)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def hex_colour(colour: tuple[int, int, int]) -> str:
    """As style sheets write it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 in per cent; "absent" for nan."""
    return "absent" if math.isnan(share) else f"{100 * share:.{digits}f}"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in points of per cent, with its sign; "absent" for nan."""
    if math.isnan(difference):
        return "absent"
    return f"{100 * difference:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def grouped(count: int) -> str:
    """A count with a narrow space between thousands."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
