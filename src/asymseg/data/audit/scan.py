"""What one image and its mask hold: every pixel is read once, and counts are all that is kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor

from asymseg.classes import IGNORE, Classes
from asymseg.data.files import ids_or_colours
from asymseg.data.pairing import Pair
from asymseg.data.reading import read_pair_image, read_raw_labels
from asymseg.errors import DataError

THUMBNAIL = 16
"""Height and width of the small pictures by which near duplicates are found."""

_MOST_VALUES = 1024
_ORIENTATION = 0x0112
_LOSSY = ("JPEG", "MPO", "JPEG2000")


@dataclass(frozen=True)
class ImageFacts:
    """What an image holds; `problem` says why it could not be read."""

    form: str = ""
    orientation: int = 1
    """The EXIF entry by which it is turned; 1 is upright."""
    size: tuple[int, int] | None = None
    """Upright."""
    sums: tuple[float, ...] = ()
    """Per channel, on the 0..1 scale; so are the squares."""
    squares: tuple[float, ...] = ()
    constant: bool = False
    digest: bytes = b""
    thumbnail: UInt8[np.ndarray, "16 16"] | None = None
    problem: str = ""


@dataclass(frozen=True)
class MaskFacts:
    """What a mask file holds before its ids are given a meaning; `problem` says why it could not be read."""

    form: str = ""
    orientation: int = 1
    size: tuple[int, int] | None = None
    colours: bool = False
    """Whether values are colours, red << 16 | green << 8 | blue, and not ids."""
    values: dict[int, int] | None = None
    """Pixels of each value; of very many values, of the most frequent."""
    distinct: int = 0
    palette: dict[int, tuple[int, int, int]] | None = None
    """The file's own colour of each value that occurs."""
    transitions: int = 0
    """Neighbouring pixels that differ."""
    between: int = 0
    """Pixels whose value lies between those of two different neighbours, as interpolation makes them."""
    between_values: int = 0
    outside: int = 0
    """Pixels that differ from two different neighbours and do not lie between them."""
    digest: bytes = b""
    lossy: bool = False
    problem: str = ""


@dataclass(frozen=True)
class PairFacts:
    """What a pair of files holds."""

    split: str
    pair: Pair
    image: ImageFacts
    mask: MaskFacts

    @property
    def name(self) -> str:
        """Split and name, as messages tell it."""
        return f"{self.split}/{self.pair.name}"


def scan_pair(split: str, pair: Pair, channels: int, classes: Classes | None) -> PairFacts:
    """Read an image and its mask, each for itself; `classes` are the declared ones."""
    return PairFacts(split, pair, scan_image(pair, channels), scan_mask(pair, classes))


def scan_image(pair: Pair, channels: int = 3) -> ImageFacts:
    """Read an image as training does, and count."""
    form, orientation = _head(pair.image) if pair.pixels is None else ("", 1)
    try:
        image = read_pair_image(pair, channels)
    except DataError as error:
        return ImageFacts(form, orientation, problem=str(error))
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())  # c h w -> h w c
    sums, squares = _moments(pixels)
    count = pixels.shape[0] * pixels.shape[1]
    return ImageFacts(
        form,
        orientation,
        size=(pixels.shape[0], pixels.shape[1]),
        sums=sums,
        squares=squares,
        constant=all(square / count - (total / count) ** 2 < 1e-9 for total, square in zip(sums, squares, strict=True)),
        digest=_digest(pixels),
        thumbnail=_thumbnail(image),
    )


def scan_mask(pair: Pair, classes: Classes | None) -> MaskFacts:
    """Read a mask's file as it is, and count its values and where they change."""
    form, orientation = _head(pair.mask) if pair.labels is None else ("", 1)
    try:
        raw = ids_or_colours(read_raw_labels(pair), classes)
    except DataError as error:
        lossy = form.startswith(_LOSSY) or "lossy" in str(error)
        return MaskFacts(form, orientation, lossy=lossy, problem=str(error))
    colours = raw.ndim == 3
    values, distinct = _histogram(raw)
    between, between_values, outside, transitions = _between(raw)
    return MaskFacts(
        form,
        orientation,
        size=(raw.shape[0], raw.shape[1]),
        colours=colours,
        values=values,
        distinct=distinct,
        palette=_own_palette(pair.mask, values) if form.endswith(" P") else None,
        transitions=transitions,
        between=between,
        between_values=between_values,
        outside=outside,
        digest=_digest(raw),
    )


def class_pixels(facts: MaskFacts, classes: Classes) -> tuple[dict[int, int], dict[int, int]]:
    """Pixels of each class (`IGNORE` among them), and of each value on disk that no class has."""
    meanings = colour_meanings(classes) if facts.colours else id_meanings(classes)
    counted: dict[int, int] = {}
    unknown: dict[int, int] = {}
    for value, count in (facts.values or {}).items():
        number = meanings.get(value)
        if number is None:
            unknown[value] = count
        else:
            counted[number] = counted.get(number, 0) + count
    return counted, unknown


def colour_name(value: int) -> str:
    """A packed colour as [red, green, blue]."""
    return f"[{value >> 16}, {value >> 8 & 255}, {value & 255}]"


def id_meanings(classes: Classes) -> dict[int, int]:
    """Class of each declared id."""
    entries = classes.values if classes.values is not None else {number: number for number in range(len(classes))}
    return {classes.ignore: IGNORE, **entries}


def colour_meanings(classes: Classes) -> dict[int, int]:
    """Class of each declared colour, packed."""
    if not classes.declared_palette:
        return {}
    colours = dict(zip(classes.palette, range(len(classes)), strict=True))
    if classes.ignore_colour is not None:
        colours.setdefault(classes.ignore_colour, IGNORE)
    return {red << 16 | green << 8 | blue: number for (red, green, blue), number in colours.items()}


def _head(path: Path) -> tuple[str, int]:
    """Format with mode, and EXIF orientation, as the head of the file tells them."""
    try:
        with Image.open(path) as opened:
            kind = opened.format or ""
            # Asked for a PNG's EXIF, Pillow decodes it; no camera writes PNG, and the size tells a turned one.
            orientation = opened.getexif().get(_ORIENTATION, 1) if kind in ("JPEG", "MPO", "TIFF", "WEBP") else 1
            return f"{kind} {opened.mode}", int(orientation)
    except Exception:  # whatever a damaged head makes the decoder stumble over: reading will say it
        return path.suffix[1:].upper(), 1


def _moments(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sums and sums of squares per channel of H W C, on the 0..1 scale."""
    if pixels.dtype == np.uint8:
        levels = np.arange(256, dtype=np.int64)
        counts = [_byte_counts(pixels[..., number]) for number in range(pixels.shape[2])]
        return tuple(float(c @ levels) / 255 for c in counts), tuple(float(c @ levels**2) / 255**2 for c in counts)
    flat = pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    return tuple(flat.sum(axis=0).tolist()), tuple(np.square(flat).sum(axis=0).tolist())


def _thumbnail(image: Shaped[Tensor, "c h w"]) -> np.ndarray:
    """Grey levels of the picture at 16 x 16 pixels, each the mean of its area.

    Grey, for JPEG keeps colours at half the resolution.
    """
    shown = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    if shown.dtype != torch.uint8:
        shown = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(np.ascontiguousarray(shown.permute(1, 2, 0).numpy()))
    return np.array(picture.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def _digest(pixels: np.ndarray) -> bytes:
    head = f"{pixels.shape} {pixels.dtype}".encode()
    content = hashlib.sha256(head)  # processors have instructions for it
    content.update(np.ascontiguousarray(pixels).data)
    return content.digest()[:16]


def _byte_counts(pixels: np.ndarray) -> np.ndarray:
    """How often each byte occurs; Pillow counts several times as fast as NumPy."""
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).histogram(), dtype=np.int64)


def _histogram(raw: np.ndarray) -> tuple[dict[int, int], int]:
    """Pixels of the most frequent values, and how many values there are."""
    if raw.ndim == 3:
        wide = raw.astype(np.int32)
        raw = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]  # h w 3 -> h w
    if raw.dtype == np.uint8:
        counts = _byte_counts(raw)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(raw, return_counts=True)
    distinct = len(values)
    if distinct > _MOST_VALUES:
        kept = np.sort(np.argsort(-counts, kind="stable")[:_MOST_VALUES])
        values, counts = values[kept], counts[kept]
    return dict(zip(values.tolist(), counts.tolist(), strict=True)), distinct


def _between(raw: np.ndarray) -> tuple[int, int, int, int]:
    """Pixels between their two neighbours in a row or column, their values, those outside, and all transitions."""
    between = outside = transitions = 0
    seen: set[int] = set()
    deep = raw if raw.ndim == 3 else raw[..., None]  # h w -> h w 1
    for pixels in (deep, np.ascontiguousarray(deep.swapaxes(0, 1))):
        changes = (pixels[:, 1:] != pixels[:, :-1]).any(axis=2)
        transitions += int(np.count_nonzero(changes))
        both = changes[:, 1:] & changes[:, :-1]
        places = np.flatnonzero(both)  # few: all else is done for these alone
        rows, columns = np.divmod(places, max(1, both.shape[1]))
        one, here, other = (pixels[rows, columns + step] for step in range(3))  # n c
        apart = (one != other).any(axis=1)
        inside = apart & ((np.minimum(one, other) <= here) & (here <= np.maximum(one, other))).all(axis=1)
        between += int(inside.sum())
        outside += int((apart & ~inside).sum())
        seen.update(np.unique(here[inside][:, 0]).tolist())
    return between, len(seen), outside, transitions


def _own_palette(path: Path, values: dict[int, int]) -> dict[int, tuple[int, int, int]]:
    """The colours that a palette file gives the ids it uses."""
    with Image.open(path) as opened:
        colours = opened.getpalette("RGB") or []
    found = {value: tuple(colours[3 * value : 3 * value + 3]) for value in values}
    return {value: (colour[0], colour[1], colour[2]) for value, colour in found.items() if len(colour) == 3}
