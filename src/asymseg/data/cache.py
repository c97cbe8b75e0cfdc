"""Decoded images and masks, kept as plain arrays that are mapped into memory instead of being decoded again.

An entry is a `.npy` file named after its source's path and how it was decoded, and after the source's size and time of
change: a source that has changed finds no entry, and the entry it had is removed when the new one is written.
"""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from asymseg.atomic import atomic_file
from asymseg.classes import Classes
from asymseg.data.dataset import Pair, read_pair
from asymseg.data.decoding import load_array
from asymseg.data.reading import pair_size
from asymseg.errors import DataError

_FORM = 1
"""Changes when decoded files mean something else, so that older entries are left alone."""

_SPARE = 2**28
"""Bytes that are always left free on the disk."""

_PROBES = 16


def read_cached(
    folder: Path, pair: Pair, classes: Classes, channels: int
) -> tuple[UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
    """What `read_pair` gives, bit for bit: from `folder`, or from the files and from then on from `folder`.

    Raises DataError where the files cannot be used, or the folder has no room.
    """
    entries = _entries(folder, pair, classes, channels)
    image, mask = (_mapped(entry) for entry in entries)
    if image is None or mask is None:
        image, mask = read_pair(pair, classes, channels)
        _store(entries[0], image.permute(1, 2, 0))  # c h w -> h w c, as it lies in memory
        _store(entries[1], mask)
        return image, mask
    return image.permute(2, 0, 1), mask  # h w c -> c h w


def check_room(folder: Path, pairs: tuple[Pair, ...], classes: Classes, channels: int) -> None:
    """Raises DataError where `folder` cannot take the pairs that it lacks, judged by a few of them taken as bytes."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: a file, not a folder; name another place by --data.cache")
    lacking = [pair for pair in pairs if not all(entry.exists() for entry in _entries(folder, pair, classes, channels))]
    if not lacking:
        return
    chosen = [lacking[number] for number in np.unique(np.linspace(0, len(lacking) - 1, _PROBES).round().astype(int))]
    pixels = [height * width for height, width in (pair_size(pair) for pair in chosen)]
    needed = round(sum(pixels) / len(pixels) * (channels + 1) * len(lacking))
    _need_room(folder, needed, f"{len(lacking)} decoded images with masks")


def _entries(folder: Path, pair: Pair, classes: Classes, channels: int) -> tuple[Path, Path]:
    image = [channels, repr(pair.pixels)] if pair.pixels is not None else channels
    mask = [classes.to_dict(), repr(pair.labels)] if pair.labels is not None else classes.to_dict()
    return _entry(folder, pair.image, image), _entry(folder, pair.mask, mask)


def _entry(folder: Path, source: Path, decoding: object) -> Path:
    """Where the decoded form of a file lies, if it is there; `decoding` says what else decides that form."""
    try:
        state = source.stat()
    except OSError as error:
        raise DataError(f"{source}: not readable ({error.strerror}); check the path") from None
    made_from = json.dumps([_FORM, os.path.abspath(source), decoding], sort_keys=True)
    name = hashlib.sha256(made_from.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return folder / name[:2] / f"{name}-{state.st_size}-{state.st_mtime_ns}.npy"


def _mapped(entry: Path) -> Shaped[Tensor, "..."] | None:
    """The entry's array, read from disk where it is touched; None where there is none that is whole."""
    try:
        # Written to, it would become private memory: torch knows no arrays that must not be written to.
        return torch.from_numpy(load_array(entry, mmap_mode="c"))
    except (OSError, ValueError, EOFError):
        return None


def _store(entry: Path, content: Shaped[Tensor, "..."]) -> None:
    """Write the entry, whole or not at all, and remove those of the same source as it was before."""
    _need_room(entry.parents[1], content.nbytes, "a decoded file")
    try:
        with atomic_file(entry) as temporary, temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(content.numpy()), allow_pickle=False)
        for old in entry.parent.glob(f"{entry.name.partition('-')[0]}-*.npy"):
            if old != entry:
                with suppress(OSError):  # another process was faster, or still reads it
                    old.unlink()
    except OSError as error:
        raise DataError(
            f"{entry.parents[1]}: cannot be written ({error.strerror}); free space there, "
            "or name another folder by --data.cache"
        ) from None


def _need_room(folder: Path, needed: int, what: str) -> None:
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free - _SPARE
    if needed > free:
        raise DataError(
            f"{folder}: {what} need {needed / 2**20:,.0f} MiB and {max(free, 0) / 2**20:,.0f} MiB may be used; "
            "free space there, name another folder by --data.cache, or leave it out"
        )
