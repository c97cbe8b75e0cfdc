"""From a file to the numbers it holds, by the library that keeps them all. What they mean is for `files`."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from asymseg.errors import DataError

Kind = Literal["npy", "png16", "tiff", "pillow"]

Source = Path | BytesIO
"""A file on the disk, or the content of one. Nothing beside it is read then, whatever it names."""


class Content(BytesIO):
    """The content of a file that lies elsewhere than on the disk; `place` is what messages call it."""

    def __init__(self, content: bytes, place: str) -> None:
        super().__init__(content)
        self.place = place


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".npy")
"""Suffixes, in small letters, of the files that a data folder is searched for."""

THE_IMAGE = "the image"
"""What messages call one that came without a name."""

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_VENDORS = (
    *("avs", "bif", "eer", "fluoview", "lsm", "mdgel", "mmstack", "ndpi", "ndtiff", "nih", "ome", "philips", "qpi"),
    *("scanimage", "scn", "sis", "stk", "svs"),
)
"""Microscopes and scanners that write into a TIFF file how many planes there are and which other files hold them."""
_MOST_PIXELS = 2**30
_ORIENTATION = 0x0112
_ON_THEIR_SIDE = (5, 6, 7, 8)
"""Its values that swap height and width; any other number beyond these means nothing."""
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

_LOADING = threading.Lock()
if hasattr(os, "register_at_fork"):  # or a worker that is forked while a thread loads would wait for that thread
    os.register_at_fork(before=_LOADING.acquire, after_in_parent=_LOADING.release, after_in_child=_LOADING.release)

# It logs each entry of a damaged file, and without a handler that would go to standard error, line by line.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

# Pillow warns at this many pixels and refuses twice as many; its own limit is below a legal satellite scene.
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, _MOST_PIXELS // 2)


@contextmanager
def reading(source: Source | str) -> Iterator[None]:
    """Turn whatever a decoder says about a file into a DataError that names the file and the cure."""
    path = source if isinstance(source, str) else name_of(source)
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        if not isinstance(source, Path):
            raise  # what came over the network is for the server to refuse
        raise too_large(source) from None
    except FileNotFoundError:
        folder = "" if Path(path).parent.is_dir() else ", nor its folder (is its disk mounted?)"
        raise DataError(f"{path}: no such file{folder}; check the path") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {_MOST_PIXELS} pixels; cut it into smaller files") from None
    except UnidentifiedImageError:
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise DataError(f"{path}: not an image, or damaged at its head; use one of {known}, or copy it again") from None
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        cure = "it may be cut short or damaged: copy it again, or remove it"
        if "imagecodecs" in reason:
            cure = "pip install imagecodecs, or save it without compression"
        raise DataError(f"{path}: not readable ({reason}); {cure}") from None


def too_large(path: Path) -> DataError:
    """What to raise where a file's pixels do not fit into memory."""
    return DataError(
        f"{path}: there is no memory for all its pixels; cut it into smaller files, or copy it again if it is small"
    )


def name_of(source: Source) -> str:
    """What messages call it."""
    return source.place if isinstance(source, Content) else str(source) if isinstance(source, Path) else THE_IMAGE


def rewound(source: Source) -> Source:
    """The same, to be read from its first byte."""
    if isinstance(source, BytesIO):
        source.seek(0)
    return source


def kind_of(source: Source) -> Kind:
    """Who can read the file without loss, judged by its first bytes."""
    with BytesIO(source.getvalue()[:26]) if isinstance(source, BytesIO) else source.open("rb") as file:
        head = file.read(26)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"\x89PNG") and len(head) == 26 and head[24] == 16 and head[25] != 0:
        return "png16"  # Pillow keeps 16 bit of grey alone
    if head.startswith(TIFF_HEADS):
        with open_tiff(source) as file:
            page = file.pages.first
            several = page.samplesperpixel > 1
            planes = len(file.series[0].pages) > 1  # Pillow would show the first alone
            deep = several and page.bitspersample != 8  # Pillow would cut these to 8 bit, or refuse them
            strange = page.samplesperpixel not in (1, 3, 4)
            if planes or deep or strange or (several and page.photometric == tifffile.PHOTOMETRIC.MINISBLACK):
                return "tiff"
    return "pillow"


def open_tiff(source: Source) -> tifffile.TiffFile:
    """The file to be read by tifffile.

    In the content of one, the pages that are there are the planes, whatever a vendor's words in it say: they may name
    other files, or planes by the million.
    """
    told: dict[str, Any] = {} if isinstance(source, Path) else {f"is_{vendor}": False for vendor in _VENDORS}
    return tifffile.TiffFile(rewound(source), **told)


def read_array(source: Source, kind: Kind) -> np.ndarray:
    """The upright content of any file that Pillow would not keep whole, as H W or H W C."""
    if kind == "npy":
        array = load_array(source)
    elif kind == "png16":
        array = _read_deep_png(source)
    else:
        with open_tiff(source) as file:
            array = file.series[0].asarray()
            if array.ndim == 3 and not file.series[0].axes.endswith("S"):
                array = np.moveaxis(array, 0, 2)  # channels as planes or pages: c h w -> h w c
            array = _upright(array, _tiff_orientation(file))
    if array.ndim not in (2, 3):
        raise DataError(f"{name_of(source)}: an array of shape {array.shape}; save it as H W C or H W")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def load_array(source: Source, mmap_mode: Literal["r", "c"] | None = None) -> np.ndarray:
    """The array of an NPY file.

    One at a time: NumPy reads the head by Python's parser of literals, which in CPython 3.11 raises SystemError, now
    and then, where the collector runs in one of two threads that are in it.
    """
    with _LOADING:
        array: np.ndarray = np.load(rewound(source), mmap_mode=mmap_mode, allow_pickle=False)
    return array


def _read_deep_png(source: Source) -> np.ndarray:
    """A 16 bit PNG in colour or with alpha, as uint16 H W C.

    Pillow keeps the first, higher byte of each sample; told that the bytes are the other way round, the second. Grey
    with alpha is as long as RGBA of 8 bit, and read as that gives all four bytes at once.
    """
    with Image.open(rewound(source)) as opened:
        grey = _raw_mode(opened) == "LA;16B"
    first = _read_png_as(source, {"LA;16B": "RGBA"})
    if grey:
        high, low = first[..., ::2], first[..., 1::2]
    else:
        high, low = first, _read_png_as(source, {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"})
    deep: np.ndarray = high << 8 | low
    return deep


def _read_png_as(source: Source, raw_modes: dict[str, str]) -> np.ndarray:
    """The upright PNG as uint16 H W C, its stored form taken for another one."""
    with Image.open(rewound(source)) as opened:
        stored = _raw_mode(opened)
        if isinstance(opened, ImageFile.ImageFile) and stored in raw_modes:
            opened.tile = [opened.tile[0]._replace(args=raw_modes[stored])]
        return np.array(ImageOps.exif_transpose(opened)).astype(np.uint16)


def _raw_mode(opened: Image.Image) -> str:
    """How the pixels of a PNG are stored, in Pillow's words."""
    stored = opened.tile[0].args if isinstance(opened, ImageFile.ImageFile) and opened.tile else ""
    return stored if isinstance(stored, str) else ""


def size_from_head(path: Path) -> tuple[int, int]:
    """Height and width of the upright image, without decoding it."""
    kind = kind_of(path)
    if kind == "npy":
        shape = load_array(path, mmap_mode="r").shape
        if len(shape) not in (2, 3):
            raise DataError(f"{path}: an array of shape {shape}; save it as H W C or H W")
        return int(shape[0]), int(shape[1])
    if kind == "tiff":
        with open_tiff(path) as file:
            page = file.pages.first
            height, width = int(page.imagelength), int(page.imagewidth)
            return (width, height) if _tiff_orientation(file) in _ON_THEIR_SIDE else (height, width)
    with Image.open(path) as opened:
        width, height = opened.size
        # Pillow turns TIFF files by itself, and tells their turned size. Asked for a PNG's EXIF, it decodes all pixels.
        told = opened.format != "PNG" or _may_hold_exif(path.read_bytes())
        turned = opened.format != "TIFF" and told and opened.getexif().get(_ORIENTATION, 1) in _ON_THEIR_SIDE
    return (width, height) if turned else (height, width)


def _may_hold_exif(png: bytes) -> bool:
    return any(name in png for name in _PNG_EXIF)


def pillow_channels(opened: Image.Image, channels: int) -> np.ndarray:
    """Upright pixels as H W or H W C. Where three channels are asked for, alpha is dropped and CMYK becomes RGB."""
    image = _transposed(opened)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if channels == 3 and image.mode not in ("L", "RGB", "RGBX") and not image.mode.startswith(("I", "F")):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    return np.array(image)


def pillow_labels(opened: Image.Image, path: Path) -> np.ndarray:
    """Upright ids H W, or colours H W 3. Refuses formats that change labels."""
    lossy_webp = opened.format == "WEBP" and b"VP8 " in path.read_bytes()[:64]
    if lossy_webp or opened.format in ("JPEG", "MPO"):
        raise DataError(f"{path}: {'lossy WebP' if lossy_webp else 'JPEG'} changes label values; save masks as PNG")
    spread = _spread(opened)
    image = _transposed(opened)
    if image.mode == "LA":
        return np.array(image)[..., 0]
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return np.ascontiguousarray(np.array(image)[..., :3])
    if image.mode in ("1", "L", "P", "F") or image.mode.startswith("I"):
        pixels = np.array(image)
        return pixels // np.uint8(spread) if spread > 1 else pixels
    raise DataError(f"{path}: a mask of mode {image.mode}; save masks as PNG of ids or of RGB colours")


def _transposed(opened: Image.Image) -> Image.Image:
    """The image upright; itself, and not a copy, where it is upright already."""
    return ImageOps.exif_transpose(opened) if opened.getexif().get(_ORIENTATION, 1) != 1 else opened


def _spread(opened: Image.Image) -> int:
    """By how much Pillow multiplies 2 and 4 bit grey PNGs so that they fill 0..255: right for pictures, not for ids."""
    return {"L;2": 85, "L;4": 17}.get(_raw_mode(opened), 1) if opened.format == "PNG" else 1


def _tiff_orientation(file: tifffile.TiffFile) -> int:
    tag = file.pages.first.tags.get("Orientation")
    return int(tag.value) if tag is not None else 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo one of the eight EXIF orientations of an array H W ..."""
    if orientation in _ON_THEIR_SIDE:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
