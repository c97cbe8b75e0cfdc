"""Pictures of masks."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from asymseg.classes import IGNORE, Classes


def draw_overlay(image: Tensor, mask: np.ndarray, classes: Classes, opacity: float = 0.5) -> Image.Image:
    """An image C H W, bytes or floats 0..1, under its mask's colours; ignored pixels stay clear."""
    pixels = as_picture(image).astype(np.float32)  # h w 3
    colours = colour_mask(mask, classes).astype(np.float32)
    share = np.where(mask == IGNORE, 0.0, opacity).astype(np.float32)[..., None]
    return Image.fromarray(np.rint(pixels * (1 - share) + colours * share).astype(np.uint8))


def colour_mask(mask: np.ndarray, classes: Classes) -> np.ndarray:
    """The mask in its classes' colours, H W 3 bytes; ignored pixels are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(classes)] = classes.palette
    colours: np.ndarray = table[mask]
    return colours


def as_picture(image: Tensor) -> np.ndarray:
    """Any image as H W 3 bytes to look at; of other than three channels, the first."""
    channels = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    if channels.dtype != torch.uint8:
        channels = (channels.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(channels.permute(1, 2, 0).cpu().numpy())
