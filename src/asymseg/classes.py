"""What the ids in a mask mean: class names, colours, and how raw ids on disk become classes."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from asymseg.errors import DataError

IGNORE = 255
"""The id of a pixel that counts nowhere, in every mask inside the program, whatever its raw id on disk was."""

MAX_CLASSES = 255
"""Masks are bytes inside the program, and one value is taken by `IGNORE`."""

KEYS = ("classes", "palette", "ignore", "ignore_index", "ignore_color", "values", "categories")
"""What `classes.json` may say; `ignore_index` is another word for `ignore`."""

_MISSPELT = 0.8
"""How near an unknown key is to one of these where it is hardly meant as another."""
_SHOWN = 5

Colour = tuple[int, int, int]


def default_palette(count: int) -> tuple[Colour, ...]:
    """`count` colours that differ well, always the same (the bit-shift colours of PASCAL VOC, without black)."""
    colours = []
    for number in range(1, count + 1):
        red = green = blue = 0
        for bit in range(8):
            red |= ((number >> (3 * bit)) & 1) << (7 - bit)
            green |= ((number >> (3 * bit + 1)) & 1) << (7 - bit)
            blue |= ((number >> (3 * bit + 2)) & 1) << (7 - bit)
        colours.append((red, green, blue))
    return tuple(colours)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set or a model, in the order of their ids.

    `palette` has one colour per class, RGB in 0..255. `ignore` is the raw id on disk that counts nowhere. `values` maps
    a raw id on disk to a class, or to `IGNORE`; without it a raw id is the class itself. `ignore_colour` is what
    ignored pixels have in RGB masks, where there is such a colour. `categories`, if given, says for each class which
    coarser group it belongs to, by name.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...] = ()
    ignore: int = IGNORE
    values: Mapping[int, int] | None = None
    ignore_colour: Colour | None = None
    declared_palette: bool = field(default=True, compare=False)
    """False where the colours were made up: then they say nothing about RGB masks."""
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise DataError(f"a data set has 1 to {MAX_CLASSES} classes; this one lists {len(self.names)}")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(f"class names occur more than once: {', '.join(repeated)}; give each class its own name")
        if not self.palette:
            object.__setattr__(self, "palette", default_palette(len(self.names)))
            object.__setattr__(self, "declared_palette", False)
        if len(self.palette) != len(self.names):
            raise DataError(f"{len(self.names)} classes but {len(self.palette)} palette colours; list one per class")
        if self.categories and len(self.categories) != len(self.names):
            raise DataError(f"{len(self.names)} classes but {len(self.categories)} categories; name one for each class")
        if self.ignore < len(self.names) and self.values is None:
            raise DataError(
                f"the ignored id {self.ignore} is also the class {self.names[self.ignore]!r}; "
                "choose an id outside the classes, or list raw ids under 'values'"
            )

    def __len__(self) -> int:
        return len(self.names)

    def same_names(self, other: "Classes") -> bool:
        """Whether both hold the same names in the same order, however they are spelt: case, blanks, - and _ aside."""
        return [_plain(name) for name in self.names] == [_plain(name) for name in other.names]

    def lookup(self, size: int) -> np.ndarray:
        """Table from raw id to class, `size` entries of int16; -1 where a raw id is not declared."""
        table = np.full(size, -1, dtype=np.int16)
        entries = self.values if self.values is not None else {number: number for number in range(len(self))}
        for raw, number in entries.items():
            if raw < size:
                table[raw] = number
        if self.ignore < size and table[self.ignore] == -1:
            table[self.ignore] = IGNORE
        return table

    def to_dict(self) -> dict[str, Any]:
        """The form of `classes.json` and of a model's `config.json`."""
        content: dict[str, Any] = {"classes": list(self.names)}
        if self.declared_palette:
            content["palette"] = [list(colour) for colour in self.palette]
        content["ignore"] = self.ignore
        if self.ignore_colour is not None:
            content["ignore_color"] = list(self.ignore_colour)
        if self.values is not None:
            content["values"] = {str(raw): number for raw, number in self.values.items()}
        if self.categories:
            content["categories"] = list(self.categories)
        return content

    @classmethod
    def from_dict(cls, content: Any, where: str) -> "Classes":
        """Check and read the form of `classes.json`; `where` names the file in messages."""
        if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
            raise DataError(f'{where}: expected an object with a list "classes", as in {{"classes": ["sky", "road"]}}')
        names = content["classes"]
        if not all(_is_name(name) for name in names):
            raise DataError(f'{where}: every entry of "classes" must be a non-empty text of one line')
        palette = [] if content.get("palette") is None else content["palette"]
        if not isinstance(palette, list) or not all(_is_colour(colour) for colour in palette):
            raise DataError(f'{where}: "palette" must be a list, and every entry of it three numbers from 0 to 255')
        ignore = content.get("ignore", content.get("ignore_index", IGNORE))
        if not _is_id(ignore):
            raise DataError(f'{where}: "ignore" must be a whole number from 0 to 65535, not {ignore!r}')
        ignore_colour = content.get("ignore_color")
        if ignore_colour is not None and not _is_colour(ignore_colour):
            raise DataError(f'{where}: "ignore_color" must be three numbers from 0 to 255')
        values = content.get("values")
        categories = [] if content.get("categories") is None else content["categories"]
        if not isinstance(categories, list) or not all(_is_name(category) for category in categories):
            raise DataError(f'{where}: "categories" must be a list with the name of each class\'s group')
        try:
            return cls(
                names=tuple(names),
                palette=tuple((red, green, blue) for red, green, blue in palette),
                ignore=ignore,
                values=None if values is None else _read_values(values, names),
                ignore_colour=None if ignore_colour is None else (ignore_colour[0], ignore_colour[1], ignore_colour[2]),
                categories=tuple(categories),
            )
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    @classmethod
    def from_file(cls, path: Path) -> "Classes":
        """Read `classes.json`. A key that is nearly one of `KEYS` is refused; `unread_keys` are not looked at."""
        content = _read_json(path)
        for key in content if isinstance(content, dict) else ():
            close = difflib.get_close_matches(key, KEYS, n=1, cutoff=_MISSPELT)
            if close and key not in KEYS and not key.startswith("_"):
                raise DataError(f"{path}: no key {key!r} is known; did you mean {close[0]!r}?")
        return cls.from_dict(content, str(path))


def unread_keys(path: Path) -> tuple[str, ...]:
    """A line about the keys of a `classes.json` that mean nothing here, where there are such. Raises DataError."""
    unknown = [repr(key) for key in _read_json(path) if key not in KEYS]
    if not unknown:
        return ()
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return (f"{path}: not read: {', '.join(unknown[:_SHOWN])}{more}; what is read is {', '.join(KEYS)}",)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); docs/data.md shows the form") from None


def _plain(name: str) -> str:
    return "".join(name.casefold().replace("-", " ").replace("_", " ").split())


def _is_name(value: Any) -> bool:
    """A text that can be printed on one line and written to a file: JSON can hold half characters, UTF-8 cannot."""
    return (
        isinstance(value, str) and value.splitlines() == [value] and not any("\ud800" <= c <= "\udfff" for c in value)
    )


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(_is_id(part) and part <= 255 for part in value)


def _read_values(values: Any, names: list[str]) -> dict[int, int]:
    """Raw id -> class from its JSON form, whose keys are texts and whose classes may be names, numbers or null."""
    if not isinstance(values, dict):
        raise DataError('"values" must be an object from raw ids to classes, as in {"7": "road"}')
    numbers = {name: number for number, name in enumerate(names)}
    result: dict[int, int] = {}
    for key, target in values.items():
        raw = _read_raw_id(key)
        if raw in result:
            raise DataError(f'"values" maps raw id {raw} more than once; keep one of them')
        number = numbers.get(target) if isinstance(target, str) else IGNORE if target is None else target
        if not (_is_id(number) and (number < len(names) or number == IGNORE)):
            raise DataError(f'"values" maps raw id {raw} to {target!r}, which is not a class')
        result[raw] = number
    return result


def _read_raw_id(key: Any) -> int:
    text = str(key)
    # Other scripts have digits too, some of which int() refuses, and it refuses any text of thousands of digits.
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and _is_id(int(text))):
        raise DataError(f'"values" maps {key!r}, which is not a raw id from 0 to 65535')
    return int(text)
