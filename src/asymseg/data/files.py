"""One image or mask on disk: read it faithfully, or say in one line why not."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from asymseg.classes import IGNORE, Classes
from asymseg.data.decoding import kind_of, pillow_labels, read_array, reading, size_from_head, too_large
from asymseg.data.pixels import read_pixels, to_pixels
from asymseg.errors import DataError

_SHOWN = 5


def read_image(path: Path, channels: int = 3) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """What `read_pixels` gives, as a tensor C H W."""
    return torch.from_numpy(read_pixels(path, channels)).permute(2, 0, 1)  # h w c -> c h w


def image_tensor(
    pixels: Image.Image | np.ndarray, channels: int = 3, where: Path | str = "the image"
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """What `to_pixels` gives, as a tensor C H W."""
    return torch.from_numpy(to_pixels(pixels, channels, where)).permute(2, 0, 1)  # h w c -> c h w


def read_mask(path: Path, classes: Classes) -> UInt8[Tensor, "h w"]:
    """The mask upright, as class ids with `IGNORE` where nothing counts. Ids and RGB colours must be declared."""
    return to_classes(read_raw_mask(path), classes, path)


def to_classes(raw: np.ndarray, classes: Classes, where: Path) -> UInt8[Tensor, "h w"]:
    """Class ids of a raw mask from `read_raw_mask`; `where` names it in messages."""
    raw = ids_or_colours(raw, classes)
    try:
        return torch.from_numpy(_from_colours(raw, classes, where) if raw.ndim == 3 else _from_ids(raw, classes, where))
    except MemoryError:
        raise too_large(where) from None


def ids_or_colours(raw: np.ndarray, classes: Classes | None) -> np.ndarray:
    """The same, but one channel of a mask in RGB whose channels are equal, where classes have no colours: it holds ids.

    So write masks all that know RGB alone: OpenCV as most use it, WebP.
    """
    if raw.ndim == 2 or (classes is not None and classes.declared_palette) or (raw != raw[..., :1]).any():
        return raw
    return np.ascontiguousarray(raw[..., 0])


def read_raw_mask(path: Path) -> np.ndarray:
    """What the file holds: whole numbers H W, or RGB bytes H W 3. Refuses files that cannot hold exact labels."""
    with reading(path):
        kind = kind_of(path)
        if kind in ("npy", "tiff"):
            raw = read_array(path, kind)
            raw = raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw
        else:
            with Image.open(path) as opened:
                raw = pillow_labels(opened, path)
    return checked_raw_mask(raw, path)


def checked_raw_mask(raw: np.ndarray, path: Path) -> np.ndarray:
    """The same array where it can be a mask: whole numbers H W, or RGB bytes H W 3. Raises DataError."""
    if raw.dtype == bool:
        raw = raw.astype(np.uint8)
    if not np.issubdtype(raw.dtype, np.integer):
        raise DataError(f"{path}: a mask holds whole numbers, not {raw.dtype}; save it as a PNG of ids")
    if raw.size == 0 or not (raw.ndim == 2 or (raw.shape[2] == 3 and raw.dtype == np.uint8)):
        raise DataError(f"{path}: a mask of shape {raw.shape}; save it with one channel of ids, or as RGB colours")
    return raw


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright image or mask, from the head of the file alone."""
    with reading(path):
        return size_from_head(path)


def _from_ids(raw: np.ndarray, classes: Classes, path: Path) -> np.ndarray:
    """Class per pixel from raw ids."""
    if raw.dtype == np.uint8:
        table = classes.lookup(256)
        declared = np.flatnonzero(table >= 0)
        content = raw.tobytes()
        if not content.translate(None, bytes(declared.tolist())):  # nothing is left: every value is declared
            if np.array_equal(table[declared], declared):
                return raw
            mapped = bytearray(content).translate(table.astype(np.uint8).tobytes())
            return np.frombuffer(mapped, dtype=np.uint8).reshape(raw.shape)
    lowest, highest = int(raw.min()), int(raw.max())
    if lowest >= 0 and highest <= 65535:
        mask: np.ndarray = classes.lookup(max(highest + 1, 256)).take(raw)
        if mask.min() >= 0:
            return mask.astype(np.uint8)
        values, counts = np.unique(raw[mask < 0], return_counts=True)
    else:
        values, counts = np.unique(raw[(raw < 0) | (raw > 65535)], return_counts=True)
    count = "the only class" if len(classes) == 1 else f"the {len(classes)} classes"
    raise DataError(
        f"{path}: values outside {count}: {_most(counts, [str(value) for value in values])}; "
        'map them in classes.json under "values", or set "ignore" to the value that does not count'
    )


def _from_colours(raw: np.ndarray, classes: Classes, path: Path) -> np.ndarray:
    """Class per pixel from RGB colours, by exact match."""
    pixels = raw.astype(np.int32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]  # h w 3 -> h w
    if not classes.declared_palette:
        raise DataError(
            f"{path}: an RGB mask, but no colours are declared; found {_colours(packed)}; "
            'write classes.json with {"classes": [NAME, ...], "palette": [[R, G, B], ...]}, one colour per class'
        )
    declared = list(classes.palette) + ([classes.ignore_colour] if classes.ignore_colour is not None else [])
    if len(set(declared)) < len(declared):
        raise DataError(f"{path}: classes.json gives one colour twice; RGB masks need a colour of its own per class")
    keys = np.array([red << 16 | green << 8 | blue for red, green, blue in declared], dtype=np.int32)
    targets = np.array([*range(len(classes)), IGNORE], dtype=np.uint8)[: len(keys)]
    order = np.argsort(keys)
    keys, targets = keys[order], targets[order]
    place = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    known = keys[place] == packed
    if not known.all():
        raise DataError(
            f"{path}: colours that no class has: {_colours(packed[~known])}; add them to classes.json under "
            '"palette", or as "ignore_color" the one that does not count'
        )
    mask: np.ndarray = targets[place]
    return mask


def _colours(packed: np.ndarray) -> str:
    values, counts = np.unique(packed, return_counts=True)
    return _most(counts, [f"[{value >> 16}, {value >> 8 & 255}, {value & 255}]" for value in values])


def _most(counts: np.ndarray, texts: list[str]) -> str:
    """The texts with the highest counts, and how many others there are."""
    order = np.argsort(-counts, kind="stable")
    shown = [f"{texts[number]} ({counts[number]} pixels)" for number in order[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(texts) - _SHOWN} others" if len(texts) > _SHOWN else "")
