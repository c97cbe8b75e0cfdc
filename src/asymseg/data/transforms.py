"""Augmentation of one image and its mask; every random number comes from the generator that is passed in."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as colour

from asymseg.classes import IGNORE
from asymseg.config import DataConfig
from asymseg.errors import ConfigError

_DRAWS = 10


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def augment(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"],
    mask: UInt8[Tensor, "h w"],
    settings: DataConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rng: Generator,
) -> tuple[Float[Tensor, "c height width"], UInt8[Tensor, "height width"]]:
    """A random crop of exactly `settings.crop_size`, scaled, flipped, recoloured and normalised.

    What is smaller than the crop is padded at the bottom and at the right, after normalisation with 0 and `IGNORE`.
    """
    size = random_size((mask.shape[0], mask.shape[1]), settings.scale, settings.aspect, rng)
    window = random_window(mask, size, settings.crop_size, settings.max_class_share, rng)
    image, mask = resize_image(image, size, window), resize_mask(mask, size, window)
    if rng.random() < settings.flip:
        image, mask = image.flip(-1), mask.flip(-1)
    if settings.photometric:
        image = distort_colours(image, rng)
    return pad(normalise(image, mean, std), mask, settings.crop_size)


def random_size(
    size: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float], rng: Generator
) -> tuple[int, int]:
    """Height and width after a random scale and a random width/height distortion that keeps the area."""
    factor, ratio = rng.uniform(*scale), math.sqrt(rng.uniform(*aspect))
    return max(1, round(size[0] * factor / ratio)), max(1, round(size[1] * factor * ratio))


def random_window(
    mask: UInt8[Tensor, "h w"],
    size: tuple[int, int],
    crop_size: tuple[int, int],
    max_class_share: float,
    rng: Generator,
) -> Window:
    """Where to crop from the mask resized to `size`; the whole of it along an axis that is smaller than the crop.

    A window whose labelled pixels are all of one class, or belong to one class by `max_class_share` or more, is drawn
    again, up to ten times.
    """
    height, width = min(size[0], crop_size[0]), min(size[1], crop_size[1])
    for _ in range(_DRAWS):
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        window = Window(top, left, height, width)
        if max_class_share >= 1:
            break
        counts = np.bincount(resize_mask(mask, size, window).numpy().ravel(), minlength=IGNORE + 1)[:IGNORE]
        if np.count_nonzero(counts) > 1 and counts.max() < max_class_share * counts.sum():
            break
    return window


def resize_image(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], size: tuple[int, int], window: Window
) -> UInt8[Tensor, "c height width"] | Float[Tensor, "c height width"]:
    """The window of the image resized to `size`, bilinear with antialiasing; only the window is computed."""
    down, across = image.shape[1] / size[0], image.shape[2] / size[1]
    box = (
        window.left * across,
        window.top * down,
        min((window.left + window.width) * across, image.shape[2]),
        min((window.top + window.height) * down, image.shape[1]),
    )
    target = (window.width, window.height)
    if image.shape[0] == 3 and image.dtype == torch.uint8:
        picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))  # c h w -> h w c
        part = np.array(picture.resize(target, Image.Resampling.BILINEAR, box))
        return torch.from_numpy(part).permute(2, 0, 1)  # h w c -> c h w
    planes = [Image.fromarray(np.ascontiguousarray(plane.numpy())) for plane in image]
    parts = [np.array(plane.resize(target, Image.Resampling.BILINEAR, box)) for plane in planes]
    return torch.from_numpy(np.stack(parts))


def resize_mask(mask: UInt8[Tensor, "h w"], size: tuple[int, int], window: Window) -> UInt8[Tensor, "height width"]:
    """The window of the mask resized to `size`: for each pixel the label of the nearest."""
    rows = _nearest(mask.shape[0], size[0], window.top, window.height)
    columns = _nearest(mask.shape[1], size[1], window.left, window.width)
    return mask[rows][:, columns]


def distort_colours(image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], rng: Generator) -> Float[Tensor, "c h w"]:
    """Random brightness and contrast and, of three channels, saturation and hue; each with a chance of one half."""
    image = image.float() / 255 if image.dtype == torch.uint8 else image
    low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
    brighter, stronger, fuller, turned = (rng.random(4) < 0.5).tolist()
    brightness, contrast = float(rng.uniform(-32 / 255, 32 / 255)), float(rng.uniform(0.5, 1.5))
    saturation, hue = float(rng.uniform(0.5, 1.5)), float(rng.uniform(-0.1, 0.1))  # a tenth of the circle: 18 of 180
    if brighter:
        image = image + brightness
    if stronger:
        image = image * contrast
    image = image.clamp(low, high)
    if image.shape[0] == 3 and fuller:
        image = colour.adjust_saturation_image(image, saturation)
    if image.shape[0] == 3 and turned:
        image = colour.adjust_hue_image(image, hue)
    return image


def normalise(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "c h w"]:
    """The image on the 0..1 scale, less the mean and divided by the standard deviation of each channel."""
    if not len(mean) == len(std) == image.shape[0]:
        raise ConfigError(
            f"data.mean and data.std have {len(mean)} and {len(std)} numbers, the images {image.shape[0]} channels; "
            "give one number per channel"
        )
    scaled = image.float() / 255 if image.dtype == torch.uint8 else image
    return (scaled - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)  # one number per channel


def pad(
    image: Float[Tensor, "c h w"], mask: UInt8[Tensor, "h w"], size: tuple[int, int]
) -> tuple[Float[Tensor, "c height width"], UInt8[Tensor, "height width"]]:
    """Fill up to `size` at the bottom and at the right, with 0 and `IGNORE`."""
    right, bottom = size[1] - mask.shape[1], size[0] - mask.shape[0]
    if right == bottom == 0:
        return image, mask
    return F.pad(image, (0, right, 0, bottom)), F.pad(mask, (0, right, 0, bottom), value=IGNORE)


def _nearest(length: int, target: int, start: int, count: int) -> Tensor:
    """For `count` of `target` pixels the nearest of `length`, as interpolation "nearest-exact" picks them."""
    # Whole numbers: floor((2 i + 1) length / (2 target)) cannot be off by a rounding.
    return (2 * torch.arange(start, start + count) + 1) * length // (2 * target)
