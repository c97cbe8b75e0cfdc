"""LabelMe: a JSON file of shapes beside each image, drawn as labelme itself draws them."""

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from asymseg.classes import IGNORE, Classes
from asymseg.data.catalog.folders import is_file, not_there
from asymseg.data.pairing import DataSet, Pair, listed
from asymseg.errors import DataError

_IGNORED, _BACKGROUND = "__ignore__", "_background_"
_LINE_WIDTH, _POINT_RADIUS = 10, 5
_FARTHEST = 2**20
"""Further out Pillow draws for minutes."""
_SHOWN = 5
_EXPECTED = "LabelMe's *.json, each with the image that its imagePath names"


@dataclass(frozen=True)
class LabelMeLabels:
    """Draws the shapes of a file in their order, later ones over earlier ones."""

    names: tuple[str, ...]

    def __call__(self, path: Path) -> np.ndarray:
        """Class ids H W; 0, the background, where no shape is."""
        content = _read(path)
        try:
            size = (content["imageHeight"], content["imageWidth"])
            labels = np.zeros(size, dtype=np.uint8)
            for shape in content["shapes"]:
                labels[_drawn(shape, size, path)] = self._number(shape["label"])
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise _strange(path, error) from None
        return labels

    def _number(self, label: str) -> int:
        return IGNORE if label == _IGNORED else 0 if _is_background(label) else self.names.index(label)


def open_labelme(root: Path) -> DataSet:
    """Every image with a file below `root`. The classes are those of labels.txt there, or all labels by their names."""
    if not root.is_dir():
        raise not_there(root, _EXPECTED)
    images: dict[Path, Path] = {}
    found: set[str] = set()
    for path in sorted(path for path in root.rglob("*.json") if not path.name.startswith(".")):
        content = _read(path)  # and forgotten: it may hold the whole image
        if "shapes" in content:
            images[path] = _image_of(path, content)
            found |= _used(content, path)
    if not images:
        raise not_there(root, _EXPECTED)
    given = root / "labels.txt"
    if given.is_file():
        names = [line.strip() for line in given.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        surplus = sorted(name for name in found - set(names) - {_IGNORED} if not _is_background(name))
        if surplus:
            raise DataError(f"{given}: lacks the label {surplus[0]!r} that is used; add it")
    else:
        names = sorted(found)
    names = ["background", *(name for name in names if name != _IGNORED and not _is_background(name))]
    labels = LabelMeLabels(tuple(names))
    pairs = tuple(
        Pair(path.relative_to(root).with_suffix("").as_posix(), image, path, labels=labels)
        for path, image in images.items()
    )
    splits: dict[str, tuple[Pair, ...]] = {}
    for split in ("train", "val", "test"):
        part = tuple(pair for pair in pairs if pair.name.startswith(f"{split}/"))
        if part:
            splits[split] = part
    notes = ["the pixels of no shape are the class background"]
    beside = [pair.name for pair in pairs if not pair.name.startswith(tuple(f"{split}/" for split in splits))]
    if splits and beside:
        notes.append(f"left out what lies beside {', '.join(splits)}: {listed(beside, _SHOWN)}")
    return DataSet(Classes(tuple(names)), splits or {"train": pairs}, tuple(notes))


def _is_background(label: str) -> bool:
    """Whether somebody has drawn what is there anyway."""
    return label.casefold() in ("background", _BACKGROUND)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise _strange(path, "no object at its top")
    return content


def _used(content: dict[str, Any], path: Path) -> set[str]:
    """The labels of a file's shapes."""
    try:
        labels = [shape["label"] for shape in content["shapes"]]
    except (KeyError, TypeError) as error:
        raise _strange(path, error) from None
    if not all(isinstance(label, str) for label in labels):
        raise _strange(path, "a label that is no text")
    return set(labels)


def _strange(path: Path, fault: object) -> DataError:
    return DataError(f"{path}: not LabelMe's form ({fault!r}); remove it, or save it by LabelMe again")


def _image_of(path: Path, content: dict[str, Any]) -> Path:
    image = path.parent / str(content.get("imagePath", "")).replace("\\", "/")
    if not is_file(image):
        raise DataError(f"{path}: its image {image} is not there; imagePath must name it, seen from the file")
    return image


def _drawn(shape: dict[str, Any], size: tuple[int, int], path: Path) -> np.ndarray:
    """Where a shape is, H W."""
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if not all(abs(value) <= _FARTHEST for point in points for value in point):  # nor is nan
        raise DataError(f"{path}: a {kind} with a point {_FARTHEST} pixels from the image; mend it in LabelMe")
    if kind == "mask":
        return _pasted(shape["mask"], points, size)
    picture = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    if kind == "polygon" and len(points) > 2:
        draw.polygon(points, outline=1, fill=1)
    elif kind == "rectangle" and len(points) == 2:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*points, strict=True))
        draw.rectangle((left, top, right, bottom), outline=1, fill=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), rim = points[0], math.dist(points[0], points[1])
        draw.ellipse((x - rim, y - rim, x + rim, y + rim), outline=1, fill=1)
    elif kind in ("line", "linestrip") and len(points) > 1:
        draw.line(points, fill=1, width=_LINE_WIDTH)
    elif kind in ("point", "points") and points:
        for x, y in points:
            draw.ellipse((x - _POINT_RADIUS, y - _POINT_RADIUS, x + _POINT_RADIUS, y + _POINT_RADIUS), 1, 1)
    else:
        raise DataError(f"{path}: a {kind} of {len(points)} points cannot be drawn; mend it in LabelMe")
    return np.array(picture)


def _pasted(content: str, points: list[tuple[float, float]], size: tuple[int, int]) -> np.ndarray:
    """A shape that is kept as a small picture with the place of its first corner."""
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        small = np.array(opened).astype(bool)
    left, top = (int(value) for value in points[0])
    where = np.zeros(size, dtype=bool)
    part = where[top : top + small.shape[0], left : left + small.shape[1]]
    part[:] = small[: part.shape[0], : part.shape[1]]
    return where
