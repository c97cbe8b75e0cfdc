"""COCO's annotation files: polygons and run lengths of objects, drawn by pycocotools."""

import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from asymseg.classes import Classes
from asymseg.data.catalog.folders import is_file, names_of, need_files
from asymseg.data.catalog.run_lengths import region
from asymseg.data.pairing import DataSet, Pair
from asymseg.errors import DataError

_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

_TRIED = 10
_FARTHEST = 2**22


@dataclass(frozen=True)
class CocoLabels:
    """Draws the objects of one image in their order in the file, later ones over earlier ones, as COCO's tools do."""

    size: tuple[int, int]
    regions: bytes
    """Class and `segmentation` of each object, as compressed JSON: a big data set has a million of them."""

    def __call__(self, path: Path) -> np.ndarray:
        """Class ids H W; 0, the background, where no object is."""
        labels = np.zeros(self.size, dtype=np.uint8)
        for number, shape in json.loads(zlib.decompress(self.regions)):
            if isinstance(shape, dict):
                labels[region(shape["counts"], self.size, path)] = number
                continue
            for corners in shape:
                if len(corners) >= 6:  # of two corners there is nothing inside
                    labels[polygon(corners, self.size, path)] = number
        return labels


def open_coco(path: Path) -> DataSet:
    """The images of an annotation file; as val and test those of the files that are named alike but for "train"."""
    files = {split: found for split in _SPLITS if (found := _file_of(path, split)) is not None} or {"train": path}
    contents = {split: _read(file) for split, file in files.items()}
    names = {split: _categories(content, files[split]) for split, content in contents.items()}
    first = next(iter(names.values()))
    for split, own in names.items():
        if own != first:
            raise DataError(f"{files[split]}: other categories than {next(iter(files.values()))}; make them the same")
    objects = [category for category, name in first.items() if name.casefold() != "background"]
    classes = Classes(("background", *(first[category] for category in objects)))
    numbers = dict.fromkeys(first, 0) | {category: number for number, category in enumerate(objects, start=1)}
    splits = {split: _pairs(content, files[split], numbers) for split, content in contents.items()}
    return DataSet(classes, splits, ("the pixels of no object are the class background",))


def pycocotools_mask(path: Path) -> Any:
    """The module that draws; `path` is what it is needed for."""
    try:
        from pycocotools import mask
    except ImportError:
        raise DataError(f'{path}: its regions are drawn by pycocotools; pip install "asymseg[formats]"') from None
    return mask


def polygon(corners: Sequence[float | int], size: tuple[int, int], path: Path) -> Bool[np.ndarray, "h w"]:
    """Which pixels lie within a polygon of corners x, y, x, y, ..., as pycocotools draws it.

    It trusts its numbers: of coordinates beyond a C integer, or more outline than memory, the process would die.
    """
    places = np.array(corners, dtype=np.float64)
    places = places[: len(places) // 2 * 2].reshape(-1, 2)
    outline = np.abs(places - np.roll(places, 1, axis=0)).max(axis=1, initial=0).sum()
    if not (np.abs(places).max(initial=0) <= _FARTHEST and outline <= _FARTHEST):  # neither holds for nan
        raise DataError(f"{path}: a polygon whose corners lie {_FARTHEST} pixels from the image or apart; mend it")
    (runs,) = pycocotools_mask(path).frPyObjects([places.ravel().tolist()], *size)
    return region(runs["counts"], size, path)


def _file_of(path: Path, split: str) -> Path | None:
    """The file of a split: `path` or its folder with that split's name in the place of "train"."""
    if "train" not in path.name and "train" not in path.parent.name:
        return None
    for word in _SPLITS[split]:
        inside = "train" in path.name
        other = (
            path.with_name(path.name.replace("train", word))
            if inside
            else path.parent.with_name(path.parent.name.replace("train", word)) / path.name
        )
        if other.is_file():
            return other
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name COCO's annotations, as in coco:annotations.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict) or not all(key in content for key in ("images", "annotations", "categories")):
        raise DataError(f'{path}: not COCO\'s form; expected "images", "annotations" and "categories"')
    return content


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Name of each category, by id."""
    try:
        found = {entry["id"]: entry["name"] for entry in sorted(content["categories"], key=lambda entry: entry["id"])}
        if not all(isinstance(name, str) for name in found.values()):
            raise TypeError("a name that is no text")
        return found
    except (KeyError, TypeError):
        raise DataError(f'{path}: every entry of "categories" needs an "id" and a "name"') from None


def _pairs(content: dict[str, Any], path: Path, numbers: dict[int, int]) -> tuple[Pair, ...]:
    pycocotools_mask(path)  # said now, and not by each worker
    regions: dict[int, list[tuple[int, Any]]] = defaultdict(list)
    try:
        for entry in content["annotations"]:
            if entry.get("segmentation"):
                regions[entry["image_id"]].append((numbers[entry["category_id"]], entry["segmentation"]))
        images = content["images"]
        folder = _folder(path, [image["file_name"] for image in images[:_TRIED]])
        pairs = []
        for image, name in zip(images, names_of([image["file_name"] for image in images]), strict=True):
            drawn = zlib.compress(json.dumps(regions.get(image["id"], [])).encode())
            labels = CocoLabels((image["height"], image["width"]), drawn)
            pairs.append(Pair(name, folder / image["file_name"], path, labels=labels))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not COCO's form ({error!r} is missing or wrong)") from None
    there = {pair.name: pair.image for pair in pairs if is_file(pair.image)}
    need_files(there, [pair.name for pair in pairs], folder, "file")
    return tuple(sorted(pairs, key=lambda pair: pair.name))


def _folder(path: Path, names: list[str]) -> Path:
    """Where the images lie: beside the file, in a folder of theirs, or where COCO unpacks them."""
    part = path.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    bases = (path.parent, path.parent.parent)
    places = [base / name for base in bases for name in (".", "images", part, f"images/{part}", "data")]
    return next((place for place in places if any(is_file(place / name) for name in names)), path.parent)
