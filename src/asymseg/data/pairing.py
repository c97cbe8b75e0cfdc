"""Which image and which mask belong together: those of the same relative path, whatever their suffixes."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.decoding import IMAGE_SUFFIXES
from asymseg.errors import DataError

_SHOWN = 5
_NOT_DATA = ("thumbs.db", "desktop.ini", "__macosx")


@runtime_checkable
class PixelReader(Protocol):
    """Reads an image from a file that is none, such as a table with one image in each row.

    A frozen dataclass of plain values: it is sent to worker processes, and its repr tells cached entries apart.
    """

    def __call__(self, path: Path) -> Image.Image | np.ndarray:
        """The image, as Pillow opens it or as H W C."""


@runtime_checkable
class LabelReader(Protocol):
    """Reads raw ids from a file that is no picture of them: polygons, a .mat, a row of a table; made as above."""

    def __call__(self, path: Path) -> np.ndarray:
        """Whole numbers H W, or RGB bytes H W 3."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask; the name is their path below the split, without suffix.

    `image` and `mask` are the files that hold them. Where these are no pictures, `pixels` and `labels` read them.
    """

    name: str
    image: Path
    mask: Path
    pixels: PixelReader | None = None
    labels: LabelReader | None = None


@dataclass(frozen=True)
class Unlabelled:
    """An image whose mask is kept by others, as in the test part of a benchmark."""

    name: str
    image: Path


@dataclass(frozen=True)
class Origin:
    """A published data set: how its scores are measured, and where it comes from.

    `submission_ids` is what its server wants to see of each class, in single-channel PNGs named after the image with
    `submission_ending`; empty where we know of no such server.
    """

    name: str
    protocol: str
    source: str
    licence: str
    submission_ids: tuple[int, ...] = ()
    submission_ending: str = ".png"


@dataclass(frozen=True)
class DataSet:
    """What a data folder holds; `notes` says what was inferred or left out.

    `origin` is there for known data sets, and `unlabelled` holds their images without masks, by split.
    """

    classes: Classes
    splits: dict[str, tuple[Pair, ...]]
    notes: tuple[str, ...] = ()
    origin: Origin | None = None
    unlabelled: dict[str, tuple[Unlabelled, ...]] = field(default_factory=dict)


def pair_files(images: Path, masks: Path) -> tuple[Pair, ...]:
    """Images and masks of the same relative path, whatever their suffixes."""
    image_files, mask_files = _files(images), _files(masks)
    lonely = [name for name in image_files if name not in mask_files]
    surplus = [name for name in mask_files if name not in image_files]
    if lonely:
        cure = naming_hint(list(image_files), mask_files) or "add them, or remove the images"
        raise DataError(
            f"{masks}: no mask for {len(lonely)} of {len(image_files)} images: {listed(lonely, _SHOWN)}; {cure}"
        )
    if surplus:
        raise DataError(
            f"{images}: no image for {len(surplus)} of {len(mask_files)} masks: {listed(surplus, _SHOWN)}; "
            "add them, or remove the masks"
        )
    return tuple(Pair(name, path, mask_files[name]) for name, path in image_files.items())


def hold_out(splits: dict[str, tuple[Pair, ...]], share: float) -> tuple[dict[str, tuple[Pair, ...]], str]:
    """The splits with a val part taken from the training images, and a note on it.

    Chosen by a hash of the names, so that it is the same on every machine.
    """
    pairs = splits["train"]
    if len(pairs) == 1:
        return {**splits, "val": pairs}, f"the only image {pairs[0].name} is used for training and for validation"
    count = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    ranked = sorted(pairs, key=lambda pair: _hash(pair.name))
    chosen = {pair.name for pair in ranked[:count]}
    val = tuple(pair for pair in pairs if pair.name in chosen)
    train = tuple(pair for pair in pairs if pair.name not in chosen)
    return {**splits, "train": train, "val": val}, f"no val split: {count} of {len(pairs)} training images held out"


def _hash(name: str) -> bytes:
    """Of a name that may hold bytes which are no UTF-8, as those of old disks do."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class FolderFiles:
    """What lies below a folder: image files by their relative path without suffix, and what is no such file."""

    files: dict[str, Path]
    clashes: tuple[tuple[Path, Path], ...]
    """Two files of one name; the first is the one in `files`."""
    strange: tuple[str, ...]
    """Suffixes that no image has."""


def search(folder: Path) -> FolderFiles:
    """The image files below a folder, sorted."""
    found: dict[str, Path] = {}
    clashes: list[tuple[Path, Path]] = []
    strange: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if is_data(name) and not _leads_back(Path(place, name))]
        for path in sorted(Path(place, name) for name in names if is_data(name)):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                strange.add(path.suffix.lower() or path.name)
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                clashes.append((found[name], path))
            else:
                found[name] = path
    return FolderFiles(dict(sorted(found.items())), tuple(clashes), tuple(sorted(strange)))


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in: each image would be found again under forty names."""
    return folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.parents}


def _files(folder: Path) -> dict[str, Path]:
    """Image files below a folder by their relative path without suffix, sorted."""
    found = search(folder)
    for one, other in found.clashes:
        raise DataError(f"{one}: has the same name as {other}; keep one of them, or rename it")
    if not found.files:
        seen = f"; found only {listed(list(found.strange), _SHOWN)}" if found.strange else ""
        raise DataError(f"{folder}: no images in this folder{seen}; use {', '.join(s[1:] for s in IMAGE_SUFFIXES)}")
    return found.files


def is_data(name: str) -> bool:
    """Whether a file or folder name is the user's, and not one that an operating system leaves behind."""
    return not name.startswith(".") and name.lower() not in _NOT_DATA and name != "classes.json"


def naming_hint(images: list[str], masks: dict[str, Path]) -> str:
    """How all images would find a mask if the names ended alike, or nothing."""
    first = images[0]
    tried = set()
    for mask in masks:
        same = [one == other for one, other in zip(first, mask, strict=False)]
        start = same.index(False) if False in same else len(same)
        ends = first[start:], mask[start:]
        if ends in tried:
            continue
        tried.add(ends)
        own, other = ends
        if all(name.endswith(own) and name[: len(name) - len(own)] + other in masks for name in images):
            return f"every image NAME{own} has a mask NAME{other}: rename them so that both are called NAME"
    return ""


def listed(texts: list[str], shown: int) -> str:
    """The first `shown` texts, and how many others there are."""
    return ", ".join(texts[:shown]) + (f" and {len(texts) - shown} others" if len(texts) > shown else "")
