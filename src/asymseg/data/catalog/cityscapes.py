"""Cityscapes: streets of 50 cities at 2048 x 1024; fine labels of 5,000 images and coarse ones of 20,000 more."""

from dataclasses import replace
from pathlib import Path

from asymseg.classes import IGNORE
from asymseg.data.catalog.folders import files_by_stem, find_folder, need_files, not_there, optional_folder
from asymseg.data.pairing import DataSet, Origin, Pair, Unlabelled
from asymseg.model.foreign.known_classes import CITYSCAPES

IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The id in `_labelIds.png` of each class, in the order of the classes; submissions are written in these."""

COUNT = 34
"""Ids there are, from 0 to 33. Those of no class count nowhere; licence plates, -1, are not drawn in the files."""

CATEGORIES = (*("flat",) * 2, *("construction",) * 3, *("object",) * 3, *("nature",) * 2, "sky", *("human",) * 2) + (
    "vehicle",
) * 6

CLASSES = replace(
    CITYSCAPES,
    values={**{number: IGNORE for number in range(COUNT)}, **{raw: k for k, raw in enumerate(IDS)}},
    categories=CATEGORIES,
)

FINE = Origin(
    name="cityscapes",
    protocol="mean IoU over 19 classes on the 500 val images at 2048 x 1024; the 1,525 test images are scored by the "
    "server from PNGs of the original ids",
    source="https://www.cityscapes-dataset.com: leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip",
    licence="own terms: research and other non-commercial use, no redistribution",
    submission_ids=IDS,
    submission_ending="_leftImg8bit.png",
)
COARSE = replace(FINE, name="cityscapes-coarse", source=f"{FINE.source}, leftImg8bit_trainextra.zip, gtCoarse.zip")

_CORRUPT = "troisdorf_000000_000073"
"""An image of train_extra that is black, as the download page says."""

_EXPECTED = (
    "PATH/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png with PATH/gtFine/{train,val}/CITY/*_gtFine_labelIds.png"
)
_EXPECTED_COARSE = (
    "PATH/leftImg8bit/{train,train_extra}/CITY/*_leftImg8bit.png with "
    "PATH/gtCoarse/{train,train_extra}/CITY/*_gtCoarse_labelIds.png"
)


def open_fine(root: Path) -> DataSet:
    """train and val with fine labels, test without: its label files are there, but hold no class."""
    images, labels = find_folder(root, ["leftImg8bit"], _EXPECTED), find_folder(root, ["gtFine"], _EXPECTED)
    splits = {
        split: _pairs(images / split, labels / split, "gtFine") for split in ("train", "val") if _both(images, split)
    }
    if not splits:
        raise not_there(images, _EXPECTED)
    test = files_by_stem(images / "test", "_leftImg8bit.png", below=True)
    if not test:
        return DataSet(CLASSES, splits, (), FINE)
    unlabelled = {"test": tuple(Unlabelled(name, path) for name, path in test.items())}
    note = f"test: {len(test)} images without labels, for the published label files of this part are not filled in"
    return DataSet(CLASSES, splits, (note,), FINE, unlabelled)


def open_coarse(root: Path) -> DataSet:
    """train: all coarsely labelled images but those of val; val: with fine labels, where these are there."""
    images = find_folder(root, ["leftImg8bit"], _EXPECTED_COARSE)
    labels = find_folder(root, ["gtCoarse"], _EXPECTED_COARSE)
    parts = [part for part in ("train", "train_extra") if _both(images, part) and _both(labels, part)]
    if not parts:
        raise not_there(images, _EXPECTED_COARSE)
    train = [pair for part in parts for pair in _pairs(images / part, labels / part, "gtCoarse")]
    notes = []
    if len(parts) == 1:
        notes.append(f"train: the images of {parts[0]} alone; the other coarse part is not there")
    if any(pair.name == _CORRUPT for pair in train):
        notes.append(f"{_CORRUPT}: left out, for the published image is black")
        train = [pair for pair in train if pair.name != _CORRUPT]
    splits = {"train": tuple(train)}
    if _both(images, "val"):
        fine = optional_folder(root, ["gtFine/val"])
        kind = "gtFine" if fine is not None else "gtCoarse"
        splits["val"] = _pairs(images / "val", root / kind / "val", kind)
        if fine is None:
            notes.append("val: coarse labels, for there is no gtFine; scores on these compare with nothing published")
    return DataSet(CLASSES, splits, tuple(notes), COARSE)


def _both(folder: Path, split: str) -> bool:
    return (folder / split).is_dir()


def _pairs(images: Path, labels: Path, kind: str) -> tuple[Pair, ...]:
    """CITY_SEQUENCE_FRAME with its labels."""
    found = files_by_stem(images, "_leftImg8bit.png", below=True)
    if not found:
        raise not_there(images, "CITY/*_leftImg8bit.png")
    masks = files_by_stem(labels, f"_{kind}_labelIds.png", below=True)
    need_files(masks, found, labels, f"*_{kind}_labelIds.png")
    return tuple(Pair(name, path, masks[name]) for name, path in found.items())
