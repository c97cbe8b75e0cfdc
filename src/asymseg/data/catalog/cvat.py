"""CVAT: one XML file ("CVAT for images 1.1") with the shapes of all images, drawn by pycocotools."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asymseg.classes import Classes, Colour, default_palette
from asymseg.data.catalog.coco import polygon, pycocotools_mask
from asymseg.data.catalog.folders import is_file, names_of, need_files
from asymseg.data.pairing import DataSet, Pair
from asymseg.errors import DataError

_SHAPES = ("polygon", "box", "mask", "ellipse")
_FLAT = ("points", "polyline", "cuboid", "skeleton", "tag")
_COLOUR = re.compile("#[0-9a-fA-F]{6}")
_CORNERS = 72
"""Of the polygon that an ellipse is drawn as."""


@dataclass(frozen=True)
class CvatLabels:
    """Draws the shapes of one image from the lowest z_order to the highest, and of one z_order in their order."""

    size: tuple[int, int]
    shapes: bytes
    """Class and form of each shape, in the order of drawing, as compressed JSON."""

    def __call__(self, path: Path) -> np.ndarray:
        """Class ids H W; 0, the background, where no shape is."""
        labels = np.zeros(self.size, dtype=np.uint8)
        for number, kind, numbers in json.loads(zlib.decompress(self.shapes)):
            if kind == "mask":
                left, top, width, height, *runs = numbers
                values = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
                labels[top : top + height, left : left + width][values] = number
            else:
                labels[polygon(numbers, self.size, path)] = number
        return labels


def open_cvat(path: Path) -> DataSet:
    """The images of the file; their parts are those of its subsets, where it has any."""
    pycocotools_mask(path)
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name CVAT's XML, as in cvat:annotations.xml") from None
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:  # the last two of its encoding
        raise DataError(f"{path}: not readable as XML ({error})") from None
    if root.find("track") is not None:
        raise DataError(f'{path}: tracks of a video; export the task as "CVAT for images 1.1"')
    colours = _labels(root, path)
    numbers = {name: number for number, name in enumerate(colours, start=1)}
    splits: dict[str, list[Pair]] = {}
    left_out: set[str] = set()
    images = list(root.iter("image"))
    files = [image.get("name", "") for image in images]
    if not all(Path(file).name for file in files):
        raise DataError(f"{path}: an image without a name; export the task once more")
    for image, file, name in zip(images, files, names_of(files), strict=True):
        flat = {shape.tag for shape in image if shape.tag in _FLAT and shape.tag != "tag"}
        left_out |= flat
        pair = Pair(name, _image(path, file), path, labels=_drawing(image, numbers, path))
        splits.setdefault(_split(image.get("subset", "")), []).append(pair)
    if not splits:
        raise DataError(f'{path}: no image in it; export the task as "CVAT for images 1.1"')
    pairs = [pair for part in splits.values() for pair in part]
    need_files({pair.name: pair.image for pair in pairs if is_file(pair.image)}, [p.name for p in pairs], path, "file")
    notes = ["the pixels of no shape are the class background"]
    if left_out:
        notes.append(f"left out, for they have no area: {', '.join(sorted(left_out))}")
    classes = Classes(("background", *colours), ((0, 0, 0), *colours.values()))
    return DataSet(classes, {split: tuple(part) for split, part in splits.items()}, tuple(notes))


def _labels(root: ElementTree.Element, path: Path) -> dict[str, Colour]:
    """Names and colours of the labels, in the order of the file, or those that the shapes use."""
    entries = [(label.findtext("name") or "", label.findtext("color") or "") for label in root.findall("meta//label")]
    if not entries:
        used = {shape.get("label", "") for image in root.iter("image") for shape in image if shape.tag in _SHAPES}
        entries = [(name, "") for name in sorted(used)]
    entries = [(name, colour) for name, colour in entries if name.casefold() != "background"]
    if not entries:
        raise DataError(f"{path}: no labels in it; export the task once more")
    made_up = default_palette(len(entries))
    return {
        name: (int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16))
        if _COLOUR.fullmatch(code)
        else made_up[number]
        for number, (name, code) in enumerate(entries)
    }


def _drawing(image: ElementTree.Element, numbers: dict[str, int], path: Path) -> CvatLabels:
    try:
        shapes = [shape for shape in image if shape.tag in _SHAPES]
        shapes.sort(key=lambda shape: int(shape.get("z_order", "0")))
        drawn = [(_number(shape.attrib["label"], numbers), shape.tag, _form(shape)) for shape in shapes]
        size = int(image.attrib["height"]), int(image.attrib["width"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: a shape of {image.get('name')} is not CVAT's form ({error!r})") from None
    return CvatLabels(size, zlib.compress(json.dumps(drawn).encode()))


def _number(label: str, numbers: dict[str, int]) -> int:
    return 0 if label.casefold() == "background" else numbers[label]


def _form(shape: ElementTree.Element) -> list[float] | list[int]:
    """Corners x, y, x, y, ... or, of a mask, left, top, width, height and its run lengths."""
    if shape.tag == "mask":
        place = [int(shape.attrib[name]) for name in ("left", "top", "width", "height")]
        return place + [int(run) for run in shape.attrib["rle"].split(",")]
    if shape.tag == "polygon":
        return [float(value) for point in shape.attrib["points"].split(";") for value in point.split(",")]
    if shape.tag == "box":
        left, top, right, bottom = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        middle, reach = np.array([left + right, top + bottom]) / 2, np.array([right - left, bottom - top]) / 2
        corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])  # corners 2
    else:
        x, y, across, down = (float(shape.attrib[name]) for name in ("cx", "cy", "rx", "ry"))
        middle, reach = np.array([x, y]), np.array([across, down])
        turns = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        corners = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    angle = math.radians(float(shape.get("rotation", "0")))  # clockwise, for y runs down
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return [float(value) for value in (middle + corners * reach @ turn).ravel()]


def _image(path: Path, name: str) -> Path:
    places = [base / part for base in (path.parent, path.parent.parent) for part in ("images", ".", "data")]
    return next((place / name for place in places if is_file(place / name)), path.parent / "images" / name)


def _split(subset: str) -> str:
    """train, val or test, from what somebody has named a subset."""
    word = subset.casefold()
    return "val" if word.startswith("val") else "test" if word.startswith("test") else "train"
