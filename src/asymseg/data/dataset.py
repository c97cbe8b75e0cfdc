"""A folder of images and a folder of masks: which belong together, what their classes are, whether they can be used."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from asymseg.classes import IGNORE, Classes, unread_keys
from asymseg.data.catalog.opening import open_known
from asymseg.data.inferring import classes_from_ids as classes_from_ids
from asymseg.data.inferring import infer_classes
from asymseg.data.pairing import DataSet as DataSet
from asymseg.data.pairing import Pair as Pair
from asymseg.data.pairing import hold_out as hold_out
from asymseg.data.pairing import is_data, listed, pair_files
from asymseg.data.reading import read_pair as read_pair
from asymseg.errors import DataError

SPLITS = ("train", "val", "test")

_LAYOUT = "expected DATA/images/train/NAME.jpg with DATA/masks/train/NAME.png, and likewise val and test"
_SHOWN = 5


def open_dataset(
    root: str | Path | None = None,
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    holdout: float = 0.1,
    classes: Classes | None = None,
) -> DataSet:
    """Find and pair the files below `root`, or below `images` and `masks`; read or infer the classes.

    `root` may also be a known data set as it was downloaded, or a file of another tool: see `catalog.opening`.

    Without a val split a share `holdout` of the training images becomes one, chosen by a hash of their names. Where
    there is no classes.json, the masks mean what `classes` says, if given, and otherwise what their ids suggest.
    """
    if root is not None and (images is not None or masks is not None):
        raise DataError(f"{root}: give either one data folder, or a folder of images and one of masks")
    if root is not None:
        known = open_known(str(root), holdout)
        if known is not None:
            return known
        root = Path(root)
        _need_folder(root, _LAYOUT)
        images, masks = root / "images", root / "masks"
    if images is None or masks is None:
        raise DataError("no data given; name one data folder, or a folder of images and one of masks")
    images, masks = Path(images), Path(masks)
    _need_folder(images, _LAYOUT)
    _need_folder(masks, _LAYOUT)
    splits, notes = _find_splits(images, masks)
    if "train" in splits and "val" not in splits:
        splits, note = hold_out(splits, holdout)
        notes.append(note)
    places = ([root] if root is not None else []) + [masks.parent, masks]
    declared = next((place / "classes.json" for place in places if (place / "classes.json").is_file()), None)
    if declared is not None:
        return DataSet(Classes.from_file(declared), splits, (*notes, *unread_keys(declared)))
    if classes is not None:
        return DataSet(
            classes, splits, (*notes, "no classes.json: the masks are read with the classes that were given")
        )
    classes, note = infer_classes([pair for pairs in splits.values() for pair in pairs], masks)
    return DataSet(classes, splits, (*notes, note))


def check_pairs(
    pairs: Iterable[Pair], classes: Classes, channels: int, workers: int
) -> Int64[np.ndarray, "images classes"]:
    """Read every image and mask as training does, and count the pixels of each class in each mask.

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
    if faults:
        raise one_refusal(faults)
    return counts


def one_refusal(faults: Sequence[tuple[Path, DataError]]) -> DataError:
    """One error for files and what is wrong with them: all about the first, and the names of a few others."""
    if len(faults) == 1:
        return faults[0][1]
    others = listed([str(path) for path, _ in faults[1:]], _SHOWN - 1)
    return DataError(f"{faults[0][1]} (also faulty: {others})")


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
