"""What classes there are where nobody has said so."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from asymseg.classes import IGNORE, MAX_CLASSES, Classes
from asymseg.data.files import ids_or_colours, to_classes
from asymseg.data.pairing import Pair, listed
from asymseg.data.reading import read_raw_labels
from asymseg.errors import DataError


def infer_classes(pairs: Iterable[Pair], where: Path) -> tuple[Classes, str]:
    """Classes from the ids that occur in the masks, and a note on them; `where` names the masks in messages."""
    found: set[int] = set()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for ids in pool.map(_ids, pairs):
            found |= ids
    return classes_from_ids(found, where)


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


def _ids(pair: Pair) -> set[int]:
    raw = ids_or_colours(read_raw_labels(pair), None)
    if raw.ndim == 3:
        to_classes(raw, Classes(("any",)), pair.mask)  # raises: colours mean nothing without classes.json
    if raw.dtype == np.uint8:
        return set(np.flatnonzero(np.bincount(raw.ravel(), minlength=256)).tolist())
    return set(np.unique(raw).tolist())
