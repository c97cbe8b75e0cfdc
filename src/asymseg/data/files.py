"""One image or mask on disk: read it faithfully, or say in one line why not."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from asymseg.atomic import atomic_file
from asymseg.classes import IGNORE, Classes
from asymseg.data.decoding import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from asymseg.data.decoding import kind_of, pillow_channels, pillow_labels, read_array, reading, size_from_head
from asymseg.errors import DataError

_SHOWN = 5


def read_image(path: Path, channels: int = 3) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """The image upright, as bytes where the file holds bytes and otherwise as floats on the 0..1 scale.

    For three channels grey, palette, RGBA and CMYK files become RGB; for any other number the file must have just as
    many. Float files are taken to be on the 0..1 scale already.
    """
    with reading(path):
        kind = kind_of(path)
        if kind == "pillow":
            with Image.open(path) as opened:
                return image_tensor(opened, channels, path)
        array = read_array(path, kind)
        if kind == "png16" and channels == 3 and array.shape[2] in (2, 4):
            array = array[..., :-1]  # alpha is the last
        if array.ndim == 3 and array.shape[2] != channels == array.shape[0]:
            raise DataError(f"{path}: the shape {array.shape} looks like C H W; save it as H W C")
        return image_tensor(array, channels, path)


def image_tensor(
    pixels: Image.Image | np.ndarray, channels: int = 3, where: Path | str = "the image"
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """Pixels in memory, H W or H W C, in the form that `read_image` gives; `where` names them in messages."""
    array = pillow_channels(pixels, channels) if isinstance(pixels, Image.Image) else pixels
    if array.size == 0:
        raise DataError(f"{where}: an image without pixels (shape {array.shape}); remove it")
    if array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(65535)
    elif array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{where}: holds values that are not finite; fill them with numbers")
    elif array.dtype != np.uint8:
        raise DataError(f"{where}: no known scale for {array.dtype} images; save uint8, uint16, or float from 0 to 1")
    array = array[:, :, None] if array.ndim == 2 else array
    if channels == 3 and array.shape[2] == 1:
        array = array.repeat(3, axis=2)
    if array.shape[2] != channels:
        raise DataError(
            f"{where}: {array.shape[2]} channels where the network takes {channels}; "
            f"convert the image, or train with --model.in_channels {array.shape[2]}"
        )
    array = np.require(array, requirements=["C", "W"])  # Torch wants memory that can be written
    return torch.from_numpy(array).permute(2, 0, 1)  # h w c -> c h w


def read_mask(path: Path, classes: Classes) -> UInt8[Tensor, "h w"]:
    """The mask upright, as class ids with `IGNORE` where nothing counts. Ids and RGB colours must be declared."""
    return to_classes(read_raw_mask(path), classes, path)


def to_classes(raw: np.ndarray, classes: Classes, where: Path) -> UInt8[Tensor, "h w"]:
    """Class ids of a raw mask from `read_raw_mask`; `where` names it in messages."""
    return torch.from_numpy(_from_colours(raw, classes, where) if raw.ndim == 3 else _from_ids(raw, classes, where))


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


def write_mask(path: Path, mask: UInt8[Tensor, "h w"] | UInt8[np.ndarray, "h w"], classes: Classes) -> None:
    """Write class ids as a palette PNG in the classes' colours, 255 where ignored; whole or not at all."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(classes)] = classes.palette
    colours[IGNORE] = classes.ignore_colour or (0, 0, 0)
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(mask)))
    picture.putpalette(colours.tobytes())
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG")


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
