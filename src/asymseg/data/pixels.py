"""Images as arrays, and masks as files: all that prediction needs of the disk, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from asymseg.atomic import atomic_file
from asymseg.classes import IGNORE, Classes
from asymseg.data.decoding import Source, kind_of, name_of, pillow_channels, read_array, reading, rewound
from asymseg.errors import DataError

if TYPE_CHECKING:
    import torch

Pixels = UInt8[np.ndarray, "h w c"] | Float[np.ndarray, "h w c"]
"""An image as bytes, or as float32 on the 0..1 scale."""


def read_pixels(source: Source, channels: int = 3, formats: tuple[str, ...] | None = None) -> Pixels:
    """The image upright, as bytes where the file holds bytes and otherwise as floats on the 0..1 scale.

    For three channels grey, palette, RGBA and CMYK files become RGB; for any other number the file must have just as
    many. Float files are taken to be on the 0..1 scale already. `formats`, if given, are the only ones that Pillow may
    try.
    """
    path = name_of(source)
    with reading(source):
        kind = kind_of(source)
        if kind == "pillow":
            with Image.open(rewound(source), formats=formats) as opened:
                return to_pixels(opened, channels, path)
        array = read_array(source, kind)
        if kind == "png16" and channels == 3 and array.shape[2] in (2, 4):
            array = array[..., :-1]  # alpha is the last
        if array.ndim == 3 and array.shape[2] != channels == array.shape[0]:
            raise DataError(f"{path}: the shape {array.shape} looks like C H W; save it as H W C")
        return to_pixels(array, channels, path)


def to_pixels(image: Image.Image | np.ndarray, channels: int = 3, where: Path | str = "the image") -> Pixels:
    """An image in memory, H W or H W C, in the form that `read_pixels` gives; `where` names it in messages."""
    array = pillow_channels(image, channels) if isinstance(image, Image.Image) else image
    if array.ndim not in (2, 3):
        raise DataError(f"{where}: expected an array H W or H W C, got the shape {array.shape}")
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
    return np.require(array, requirements=["C", "W"])  # torch wants memory that can be written


def open_pixels(source: "str | Path | Image.Image | np.ndarray | torch.Tensor", channels: int) -> Pixels:
    """Any image a user may hold, in the form that `read_pixels` gives; a tensor is C H W. Raises DataError."""
    if isinstance(source, str | Path):
        return read_pixels(Path(source), channels)
    if isinstance(source, Image.Image | np.ndarray):
        return to_pixels(source, channels)
    if source.dim() != 3:
        raise DataError(f"expected a tensor C H W, got the shape {tuple(source.shape)}")
    tensor = source.float() if source.is_floating_point() else source  # NumPy has no bfloat16
    return to_pixels(tensor.detach().cpu().permute(1, 2, 0).numpy(), channels)  # c h w -> h w c


def write_mask(path: Path, mask: UInt8[np.ndarray, "h w"], classes: Classes) -> None:
    """Write class ids as a palette PNG in the classes' colours, 255 where ignored; whole or not at all."""
    with atomic_file(path) as temporary:
        mask_picture(mask, classes).save(temporary, format="PNG")


def mask_picture(mask: UInt8[np.ndarray, "h w"], classes: Classes) -> Image.Image:
    """Class ids as a picture with the classes' colours for a palette."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(classes)] = classes.palette
    colours[IGNORE] = classes.ignore_colour or (0, 0, 0)
    picture = Image.fromarray(np.ascontiguousarray(mask))
    picture.putpalette(colours.tobytes())
    return picture
