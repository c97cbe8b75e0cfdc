"""Pictures of masks."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.errors import ConfigError

Picture = UInt8[np.ndarray, "c h w"] | Float[np.ndarray, "c h w"]
"""An image as bytes or floats 0..1."""


def draw_overlay(image: Picture, mask: UInt8[np.ndarray, "h w"], classes: Classes, opacity: float = 0.5) -> Image.Image:
    """An image under its mask's colours; ignored pixels stay clear."""
    pixels = as_picture(image).astype(np.float32)  # h w 3
    colours = colour_mask(mask, classes).astype(np.float32)
    share = np.where(mask == IGNORE, 0.0, opacity).astype(np.float32)[..., None]
    return Image.fromarray(np.rint(pixels * (1 - share) + colours * share).astype(np.uint8))


def check_opacity(opacity: float) -> None:
    """Raise ConfigError for what `draw_overlay` cannot draw."""
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity = {opacity} must be from 0 to 1")


def colour_mask(mask: UInt8[np.ndarray, "h w"], classes: Classes) -> UInt8[np.ndarray, "h w 3"]:
    """The mask in its classes' colours; ignored pixels are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(classes)] = classes.palette
    colours: np.ndarray = table[mask]
    return colours


def as_picture(image: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """Any image as bytes to look at; of other than three channels, the first."""
    channels = image if image.shape[0] == 3 else image[:1].repeat(3, axis=0)
    if channels.dtype != np.uint8:
        channels = np.rint(channels.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(channels.transpose(1, 2, 0))  # c h w -> h w c
