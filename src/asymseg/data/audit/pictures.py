"""Pictures of what a finding names: image, labels in colour and one over the other, small enough to stand in a page."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.data.audit.scan import colour_meanings, id_meanings
from asymseg.data.files import ids_or_colours
from asymseg.data.pairing import Pair
from asymseg.data.reading import read_pair_image, read_raw_labels
from asymseg.errors import DataError
from asymseg.pages import picture_address

WIDTH = 300
"""Pictures are at most this wide and high."""

STRANGE = (255, 0, 255)
"""Of pixels whose value no class has."""

_OPACITY = 0.55


def pair_pictures(pair: Pair, classes: Classes | None, channels: int) -> list[tuple[str, str]]:
    """Caption and data address of the image, the labels and the overlay; those that can be made."""
    image, mask = _image(pair, channels), _mask(pair, classes)
    pictures = []
    if image is not None:
        pictures.append(("image", picture_address(image, "JPEG", quality=82)))
    if mask is not None:
        pictures.append(("labels", picture_address(mask, "PNG")))
    if image is not None and mask is not None and image.size == mask.size:
        pictures.append(("overlay", picture_address(_overlay(image, mask), "JPEG", quality=82)))
    return pictures


def lone_picture(path: Path) -> list[tuple[str, str]]:
    """A file that has no counterpart, as it looks; nothing where it cannot be read."""
    image = _image(Pair(path.stem, path, path), 3)
    return [] if image is None else [(path.parent.name, picture_address(image, "JPEG", quality=82))]


def _image(pair: Pair, channels: int) -> Image.Image | None:
    try:
        image = read_pair_image(pair, channels)
    except DataError:
        return None
    shown = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    if shown.dtype != torch.uint8:
        shown = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(np.ascontiguousarray(shown.permute(1, 2, 0).numpy()))
    return picture.resize(_small(picture.size), Image.Resampling.BOX)


def _mask(pair: Pair, classes: Classes | None) -> Image.Image | None:
    """The labels in their classes' colours as RGBA: see-through where ignored."""
    try:
        raw = ids_or_colours(read_raw_labels(pair), classes)
    except DataError:
        return None
    size = _small((raw.shape[1], raw.shape[0]))
    rows = np.arange(size[1]) * raw.shape[0] // size[1]
    columns = np.arange(size[0]) * raw.shape[1] // size[0]
    small = raw[rows[:, None], columns]  # nearest neighbour: colours that are not there would mislead
    if small.ndim == 3:
        wide = small.astype(np.int64)
        own = np.dstack([small, np.full(small.shape[:2], 255, dtype=np.uint8)])
        if classes is None or not classes.declared_palette:
            return Image.fromarray(own)
        return _coloured(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], colour_meanings(classes), classes)
    if classes is None:
        return Image.fromarray(small.astype(np.uint8)).convert("RGBA")
    return _coloured(small.astype(np.int64), id_meanings(classes), classes)


def _coloured(values: np.ndarray, meanings: dict[int, int], classes: Classes) -> Image.Image:
    present, places = np.unique(values, return_inverse=True)
    table = np.empty((len(present), 4), dtype=np.uint8)
    for row, value in enumerate(present.tolist()):
        number = meanings.get(value)
        if number is None:
            table[row] = (*STRANGE, 255)
        else:
            table[row] = (0, 0, 0, 0) if number == IGNORE else (*classes.palette[number], 255)
    return Image.fromarray(table[places.reshape(values.shape)])


def _overlay(image: Image.Image, mask: Image.Image) -> Image.Image:
    pixels, colours = np.asarray(image, dtype=np.float32), np.asarray(mask, dtype=np.float32)
    share = _OPACITY * colours[..., 3:] / 255
    return Image.fromarray(np.rint(pixels * (1 - share) + colours[..., :3] * share).astype(np.uint8))


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height that fit, in the same shape."""
    factor = min(1.0, WIDTH / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
