"""PASCAL Context: 59 classes of things and stuff on the images of VOC 2010, with or without a background."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asymseg.classes import IGNORE, Classes
from asymseg.data.catalog.folders import files_by_stem, need_files, not_there, optional_folder, read_list
from asymseg.data.catalog.mat_files import MatLabels
from asymseg.data.catalog.run_lengths import region
from asymseg.data.pairing import DataSet, Origin, Pair
from asymseg.errors import DataError
from asymseg.model.foreign.known_classes import PASCAL_CONTEXT

IDS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
"""The original id, of 459, of each class. The classes are in alphabetical order, as all converters have them; the list
59_labels.txt has another order, that of no mask."""

_ALL = 459

CLASSES_59 = replace(
    PASCAL_CONTEXT,
    values={**{number: IGNORE for number in range(_ALL + 1)}, **{raw: number for number, raw in enumerate(IDS)}},
)
CLASSES_60 = Classes(
    ("background", *PASCAL_CONTEXT.names),
    values={**{number: 0 for number in range(_ALL + 1)}, **{raw: number + 1 for number, raw in enumerate(IDS)}},
)

ORIGIN_59 = Origin(
    name="pascal-context",
    protocol="mean IoU over 59 classes on the val images at their own size, pixels of no class left out; with the "
    "background as a 60th class the same network scores much lower",
    source="VOC 2010: VOCtrainval_03-May-2010.tar; labels: trainval_merged.json of the Detail API, or trainval.tar.gz "
    "(.mat) from https://cs.stanford.edu/~roozbeh/pascal-context",
    licence="images from Flickr, under Flickr's terms of use",
)
ORIGIN_60 = replace(
    ORIGIN_59,
    name="pascal-context-60",
    protocol="mean IoU over 59 classes and the background, which is every pixel of none of them",
)

_JSON = "trainval_merged.json"
_EXPECTED = (
    f"VOC2010 with JPEGImages/*.jpg, and the labels in it or beside it: {_JSON}, or trainval/*.mat with "
    "ImageSets/Main/{train,val}.txt, or converted SegmentationClassContext/*.png with ImageSets/SegmentationContext"
)


@dataclass(frozen=True)
class DetailLabels:
    """Draws the regions of one image of `trainval_merged.json`, in their order in that file."""

    size: tuple[int, int]
    regions: tuple[tuple[int, bytes], ...]
    """Category and run lengths, in COCO's compressed form."""

    def __call__(self, path: Path) -> np.ndarray:
        """Original ids H W; 0 where no region is."""
        labels = np.zeros(self.size, dtype=np.int32)
        for category, runs in self.regions:
            labels[region(runs, self.size, path)] = category
        return labels


def open_59(root: Path) -> DataSet:
    """train and val with 59 classes."""
    return _open(root, CLASSES_59, ORIGIN_59, converted={0: IGNORE, **{number + 1: number for number in range(59)}})


def open_60(root: Path) -> DataSet:
    """train and val with the background as the first of 60 classes."""
    return _open(root, CLASSES_60, ORIGIN_60, converted={number: number for number in range(60)})


def _open(root: Path, classes: Classes, origin: Origin, converted: dict[int, int]) -> DataSet:
    """The labels in the first form there is: the JSON that published scores follow, .mat files, converted PNGs."""
    place = _voc2010(root)
    images = files_by_stem(place / "JPEGImages", ".jpg")
    around = (place, root, place.parent, place.parent.parent)
    described = next((base / _JSON for base in around if (base / _JSON).is_file()), None)
    mats = next((found for base in around if (found := _mat_folder(base)) is not None), None)
    pngs = optional_folder(place, ["SegmentationClassContext"])
    if described is not None:
        splits, form = _from_json(described, images, place), _JSON
    elif mats is not None:
        splits, form = _from_lists(place, "Main", images, mats, ".mat", MatLabels("LabelMap")), "the .mat files"
    elif pngs is not None:
        splits, form = _from_lists(place, "SegmentationContext", images, pngs, ".png", None), "converted PNGs"
        classes = replace(classes, values=converted)
    else:
        raise not_there(place, _EXPECTED)
    counts = ", ".join(f"{len(pairs)} {split}" for split, pairs in splits.items())
    return DataSet(classes, splits, (f"labels from {form}: {counts}; the forms differ by a few images",), origin)


def _voc2010(root: Path) -> Path:
    place = optional_folder(root, ["VOC2010", "VOCdevkit/VOC2010", "."])
    if place is None or not (place / "JPEGImages").is_dir():
        raise not_there(root, _EXPECTED)
    return place


def _mat_folder(base: Path) -> Path | None:
    return next((base / name for name in ("trainval", ".") if any((base / name).glob("20*.mat"))), None)


def _from_lists(
    place: Path, lists: str, images: dict[str, Path], folder: Path, ending: str, labels: MatLabels | None
) -> dict[str, tuple[Pair, ...]]:
    masks = files_by_stem(folder, ending)
    splits = {}
    for split in ("train", "val"):
        names = read_list(place / "ImageSets" / lists / f"{split}.txt")
        need_files(images, names, place / "JPEGImages", "JPEG")
        need_files(masks, names, folder, ending)
        splits[split] = tuple(Pair(name, images[name], masks[name], labels=labels) for name in names)
    return splits


def _from_json(path: Path, images: dict[str, Path], place: Path) -> dict[str, tuple[Pair, ...]]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        regions: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        for entry in content["annos_segmentation"]:
            runs = entry["segmentation"]["counts"].encode("ascii")
            regions[entry["image_id"]].append((entry["category_id"], runs))
        found: dict[str, list[Pair]] = {"train": [], "val": []}
        for image in content["images"]:
            if image["phase"] in found:
                name = Path(image["file_name"]).stem
                labels = DetailLabels((image["height"], image["width"]), tuple(regions[image["image_id"]]))
                found[image["phase"]].append(
                    Pair(name, images.get(name, place / image["file_name"]), path, None, labels)
                )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not the Detail API's form ({error!r}); download it again") from None
    need_files(images, [pair.name for pairs in found.values() for pair in pairs], place / "JPEGImages", "JPEG")
    return {split: tuple(pairs) for split, pairs in found.items()}
