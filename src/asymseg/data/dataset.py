"""A folder of images and a folder of masks: which belong together, what their classes are, whether they can be used."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from asymseg.classes import IGNORE, MAX_CLASSES, Classes
from asymseg.data.files import read_image, read_mask, read_raw_mask
from asymseg.data.pairing import Pair as Pair
from asymseg.data.pairing import is_data, listed, pair_files
from asymseg.errors import DataError

SPLITS = ("train", "val", "test")

_LAYOUT = "expected DATA/images/train/NAME.jpg with DATA/masks/train/NAME.png, and likewise val and test"
_SHOWN = 5


@dataclass(frozen=True)
class DataSet:
    """What a data folder holds; `notes` says what was inferred or left out."""

    classes: Classes
    splits: dict[str, tuple[Pair, ...]]
    notes: tuple[str, ...] = ()


def open_dataset(
    root: Path | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    holdout: float = 0.1,
    classes: Classes | None = None,
) -> DataSet:
    """Find and pair the files below `root`, or below `images` and `masks`; read or infer the classes.

    Without a val split a share `holdout` of the training images becomes one, chosen by a hash of their names. Where
    there is no classes.json, the masks mean what `classes` says, if given, and otherwise what their ids suggest.
    """
    if root is not None and (images is not None or masks is not None):
        raise DataError(f"{root}: give either one data folder, or a folder of images and one of masks")
    if root is not None:
        _need_folder(root, _LAYOUT)
        images, masks = root / "images", root / "masks"
    if images is None or masks is None:
        raise DataError("no data given; name one data folder, or a folder of images and one of masks")
    _need_folder(images, _LAYOUT)
    _need_folder(masks, _LAYOUT)
    splits, notes = _find_splits(images, masks)
    if "train" in splits and "val" not in splits:
        splits, note = hold_out(splits, holdout)
        notes.append(note)
    places = ([root] if root is not None else []) + [masks.parent, masks]
    declared = next((place / "classes.json" for place in places if (place / "classes.json").is_file()), None)
    if declared is not None:
        return DataSet(Classes.from_file(declared), splits, tuple(notes))
    if classes is not None:
        return DataSet(
            classes, splits, (*notes, "no classes.json: the masks are read with the classes that were given")
        )
    classes, note = _infer_classes({pair.mask for pairs in splits.values() for pair in pairs})
    return DataSet(classes, splits, (*notes, note))


def read_pair(
    pair: Pair, classes: Classes, channels: int = 3
) -> tuple[UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
    """An image and its mask at their own resolution."""
    image, mask = read_image(pair.image, channels), read_mask(pair.mask, classes)
    if image.shape[1:] != mask.shape:
        raise DataError(
            f"{pair.mask}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x width) but its image "
            f"{pair.image} is {image.shape[1]} x {image.shape[2]}; make both the same size"
        )
    return image, mask


def check_pairs(
    pairs: Iterable[Pair],
    classes: Classes,
    channels: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Int64[np.ndarray, "images classes"]:
    """Read every image and mask as training does, and count the pixels of each class in each mask.

    `progress` is told how many are done of how many.

    Raises one DataError for all faulty files: what is wrong with the first, and the names of a few others.
    """
    pairs = tuple(pairs)
    counts = np.zeros((len(pairs), len(classes)), dtype=np.int64)
    faults: list[tuple[Path, DataError]] = []

    def check(pair: Pair) -> np.ndarray | DataError:
        try:
            mask = read_pair(pair, classes, channels)[1].numpy()
            return np.bincount(mask.ravel(), minlength=IGNORE + 1)[: len(classes)]
        except DataError as error:
            return error

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="asymseg-check") as pool:
        for number, result in enumerate(pool.map(check, pairs)):
            if isinstance(result, DataError):
                pair = pairs[number]
                named_image = str(result).startswith(f"{pair.image}: ")
                faults.append((pair.image if named_image else pair.mask, result))
            else:
                counts[number] = result
            if progress is not None:
                progress(number + 1, len(pairs))
    if len(faults) > 1:
        others = listed([str(path) for path, _ in faults[1:]], _SHOWN - 1)
        raise DataError(f"{faults[0][1]} (also faulty: {others})")
    if faults:
        raise faults[0][1]
    return counts


def count_warnings(counts: Mapping[str, Int64[np.ndarray, "_ _"]], dataset: DataSet) -> list[str]:
    """What is odd, though not wrong, about the masks of each split, from the counts of `check_pairs`."""
    lines = []
    for split, table in counts.items():
        absent = [dataset.classes.names[number] for number in np.flatnonzero(table.sum(axis=0) == 0)]
        if absent:
            lines.append(f"{split}: no pixel of {listed(absent, _SHOWN)}")
        empty = [dataset.splits[split][number].name for number in np.flatnonzero(table.sum(axis=1) == 0)]
        if empty:
            lines.append(f"{split}: every pixel is ignored in {listed(empty, _SHOWN)}")
    return lines


def median_frequency_weights(counts: Int64[np.ndarray, "images classes"]) -> tuple[float, ...]:
    """Class weights that make rare classes count more: the median of all frequencies over the class's own.

    The frequency of a class is its share of the labelled pixels in the images where it occurs (Eigen & Fergus, ICCV
    2015). A class that occurs nowhere gets 1.
    """
    totals = counts.sum(axis=0)
    seen_in = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)
    present = totals > 0
    if not present.any():
        raise DataError("no labelled pixel in any mask; check that the ignored id is the right one")
    frequency = totals[present] / seen_in[present]
    weights = np.ones(len(totals))
    weights[present] = np.median(frequency) / frequency
    return tuple(weights.tolist())


def _need_folder(path: Path, cure: str) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such folder; {cure}")
    if not path.is_dir():
        raise DataError(f"{path}: a file, not a folder; {cure}")


def _find_splits(images: Path, masks: Path) -> tuple[dict[str, tuple[Pair, ...]], list[str]]:
    """The pairs of each split, and notes. Folders without train, val or test below are all training data."""
    found = [split for split in SPLITS if (images / split).is_dir()]
    if not found:
        return {"train": pair_files(images, masks)}, []
    notes = []
    beside = [entry.name for entry in sorted(images.iterdir()) if is_data(entry.name) and entry.name not in found]
    if beside:
        notes.append(f"{images}: left out what lies beside {', '.join(found)}: {listed(beside, _SHOWN)}")
    splits = {}
    for split in found:
        if split == "test" and not (masks / split).exists():
            notes.append(f"{images / split}: left out, for there are no masks {masks / split}")
            continue
        _need_folder(masks / split, f"put the masks of {images / split} there")
        splits[split] = pair_files(images / split, masks / split)
    if not splits:
        raise DataError(f"{masks}: no masks for any image; {_LAYOUT}")
    return splits, notes


def hold_out(splits: dict[str, tuple[Pair, ...]], share: float) -> tuple[dict[str, tuple[Pair, ...]], str]:
    """Make a val split of the training images. The hash keeps the choice the same on every machine."""
    pairs = splits["train"]
    if len(pairs) == 1:
        return {**splits, "val": pairs}, f"the only image {pairs[0].name} is used for training and for validation"
    count = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    chosen = {pair.name for pair in ranked[:count]}
    val = tuple(pair for pair in pairs if pair.name in chosen)
    train = tuple(pair for pair in pairs if pair.name not in chosen)
    return {**splits, "train": train, "val": val}, f"no val split: {count} of {len(pairs)} training images held out"


def _infer_classes(masks: set[Path]) -> tuple[Classes, str]:
    """Classes from the ids that occur in the masks."""
    found: set[int] = set()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for ids in pool.map(_ids, sorted(masks)):
            found |= ids
    return classes_from_ids(found, min(masks).parent)


def classes_from_ids(found: set[int], masks: Path) -> tuple[Classes, str]:
    """Classes for the ids that the masks in a folder hold, and a note that says so."""
    if found == {0, 255}:
        classes = Classes(("background", "foreground"), values={0: 0, 255: 1})
        return classes, 'no classes.json: the masks hold 0 and 255 alone, taken as "background" and "foreground"'
    raw_ids = sorted(found - {IGNORE})
    if not raw_ids:
        raise DataError(f"{masks}: every pixel of every mask is {IGNORE}, the ignored id; check the masks")
    if len(raw_ids) > MAX_CLASSES or raw_ids[-1] > 65535 or raw_ids[0] < 0:
        raise DataError(
            f"{masks}: {len(raw_ids)} different values from {raw_ids[0]} to {raw_ids[-1]} in the masks; "
            f"ids are at most {MAX_CLASSES} whole numbers from 0 to 65535: say in classes.json which count"
        )
    contiguous = raw_ids == list(range(len(raw_ids)))
    classes = Classes(
        tuple(f"class {raw}" for raw in raw_ids),
        values=None if contiguous else {raw: number for number, raw in enumerate(raw_ids)},
    )
    which = f"0 to {raw_ids[-1]}" if contiguous else listed([str(raw) for raw in raw_ids], 20)
    ignored = f", {IGNORE} ignored" if IGNORE in found else ""
    return classes, f"no classes.json: {len(raw_ids)} classes from the ids in the masks ({which}{ignored})"


def _ids(path: Path) -> set[int]:
    raw = read_raw_mask(path)
    if raw.ndim == 3:
        read_mask(path, Classes(("any",)))  # raises: colours mean nothing without classes.json
    if raw.dtype == np.uint8:
        return set(np.flatnonzero(np.bincount(raw.ravel(), minlength=256)).tolist())
    return set(np.unique(raw).tolist())
