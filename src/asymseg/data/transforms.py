"""Augmentation of one image and its mask; every random number comes from the generator that is passed in."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped, UInt8
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from asymseg.classes import IGNORE
from asymseg.config import DataConfig
from asymseg.errors import ConfigError

_DRAWS = 10
_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_RGB = np.linalg.inv(_YIQ)


class Window(NamedTuple):
    """A part of an image, in its own pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Shaped[Tensor, "*c h w"]) -> Shaped[Tensor, "*c height width"]:
        """This part of an image or a mask; a view."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


def augment(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"],
    mask: UInt8[Tensor, "h w"],
    settings: DataConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rng: Generator,
    out: tuple[Float[Tensor, "c height width"], UInt8[Tensor, "height width"]] | None = None,
) -> tuple[Float[Tensor, "c height width"], UInt8[Tensor, "height width"]]:
    """A random crop of exactly `settings.crop_size`, scaled, flipped, recoloured and normalised; in `out` if given.

    What is smaller than the crop is padded at the bottom and at the right, after normalisation with 0 and `IGNORE`.
    """
    size = random_size((mask.shape[0], mask.shape[1]), settings, rng)
    target = min(size[0], settings.crop_size[0]), min(size[1], settings.crop_size[1])
    window = random_window(mask, size, target, settings.max_class_share, rng)
    image, mask = resize_image(window.of(image), target), resize_mask(window.of(mask), target)
    if rng.random() < settings.flip:
        image, mask = image.flip(-1), mask.flip(-1)
    image = recolour(image, settings, rng)
    if out is None:
        out = torch.empty(image.shape[0], *settings.crop_size), torch.empty(settings.crop_size, dtype=torch.uint8)
    place(image, mask, mean, std, out)
    return out


def random_size(size: tuple[int, int], settings: DataConfig, rng: Generator) -> tuple[int, int]:
    """Height and width after a random scale and a random width/height distortion that keeps the area."""
    factor, ratio = rng.uniform(*settings.scale), math.sqrt(rng.uniform(*settings.aspect))
    if settings.short_side is not None:
        factor *= settings.short_side / min(size)
    return max(1, round(size[0] * factor / ratio)), max(1, round(size[1] * factor * ratio))


def random_window(
    mask: UInt8[Tensor, "h w"], size: tuple[int, int], target: tuple[int, int], max_class_share: float, rng: Generator
) -> Window:
    """A part of the mask, in whole pixels, that covers `target` pixels where the whole covers `size`.

    A window whose labelled pixels are all of one class, or belong to one class by `max_class_share` or more, is drawn
    again, up to ten times.
    """
    whole = mask.shape[0], mask.shape[1]
    height, width = (max(1, round(whole[axis] * target[axis] / size[axis])) for axis in (0, 1))
    for _ in range(_DRAWS):
        top, left = int(rng.integers(whole[0] - height + 1)), int(rng.integers(whole[1] - width + 1))
        window = Window(top, left, height, width)
        if max_class_share >= 1:
            break
        counts = torch.bincount(window.of(mask).flatten(), minlength=IGNORE + 1)[:IGNORE].numpy()
        if np.count_nonzero(counts) > 1 and counts.max() < max_class_share * counts.sum():
            break
    return window


def resize_image(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], size: tuple[int, int]
) -> UInt8[Tensor, "c height width"] | Float[Tensor, "c height width"]:
    """The image resized, bilinear with antialiasing; to a single column by area, which torch 2.15 does wrongly else."""
    if size[1] == 1:
        column = F.interpolate(image.float()[None], size, mode="area")[0]
        return column.round().to(torch.uint8) if image.dtype == torch.uint8 else column
    return F.interpolate(image.contiguous()[None], size, mode="bilinear", antialias=True)[0]


def resize_mask(mask: UInt8[Tensor, "h w"], size: tuple[int, int]) -> UInt8[Tensor, "height width"]:
    """The mask resized: for each pixel the label of the nearest, as interpolation "nearest-exact" picks it."""
    # Whole numbers: floor((2 i + 1) length / (2 target)) cannot be off by a rounding.
    rows, columns = ((2 * np.arange(size[axis]) + 1) * mask.shape[axis] // (2 * size[axis]) for axis in (0, 1))
    return torch.from_numpy(mask.numpy().take(rows, axis=0).take(columns, axis=1))


def recolour(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], settings: DataConfig, rng: Generator
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """The image after the random colours that the settings ask for."""
    if settings.brightness > 0:
        image = shift_brightness(image, int(rng.integers(-settings.brightness, settings.brightness + 1)))
    return distort_colours(image, rng) if settings.photometric else image


def shift_brightness(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], shift: int
) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """All channels brighter by `shift` of 255, cut off where they leave the scale."""
    if image.dtype == torch.uint8:
        return (image.short() + shift).clamp_(0, 255).to(torch.uint8)
    return (image + shift / 255).clamp_(*_bounds(image))


def distort_colours(image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], rng: Generator) -> Float[Tensor, "c h w"]:
    """Random brightness and contrast and, of three channels, saturation and hue; each with a chance of one half.

    All four are one affine map of a pixel's channels, and what leaves the scale is cut off once, at the end.
    """
    brighter, stronger, fuller, turned = (rng.random(4) < 0.5).tolist()
    brightness, contrast = float(rng.uniform(-32 / 255, 32 / 255)), float(rng.uniform(0.5, 1.5))
    saturation, hue = float(rng.uniform(0.5, 1.5)), float(rng.uniform(-0.1, 0.1))  # a tenth of the circle: 18 of 180
    gain = contrast if stronger else 1.0
    shift = gain * brightness if brighter else 0.0
    unit, low, high = (255, 0.0, 1.0) if image.dtype == torch.uint8 else (1, *_bounds(image))
    pixels = image.float()
    if image.shape[0] == 3:
        matrix = colour_matrix(saturation if fuller else 1.0, hue if turned else 0.0) * (gain / unit)
        mixed = (torch.from_numpy(matrix).float() @ pixels.flatten(1)).view(pixels.shape)  # c c @ c n -> c h w
    else:
        mixed = pixels * (gain / unit)
    return mixed.add_(shift).clamp_(low, high)


def colour_matrix(saturation: float, hue: float) -> Float64[np.ndarray, "3 3"]:
    """How RGB changes where the colour is `saturation` times as strong and turned by `hue` of the circle.

    In YIQ the colour is a vector in a plane, which is stretched and turned while the brightness Y stays (Haeberli,
    Matrix Operations for Image Processing, 1993). Red turns towards green, as in HSV.
    """
    cosine, sine = saturation * math.cos(math.tau * hue), saturation * math.sin(math.tau * hue)
    turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    matrix: np.ndarray = _RGB @ turn @ _YIQ
    return matrix


def normalise(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    out: Float[Tensor, "c h w"] | None = None,
) -> Float[Tensor, "c h w"]:
    """The image on the 0..1 scale, less the mean and divided by the standard deviation of each channel."""
    if not len(mean) == len(std) == image.shape[0]:
        raise ConfigError(
            f"data.mean and data.std have {len(mean)} and {len(std)} numbers, the images {image.shape[0]} channels; "
            "give one number per channel"
        )
    scaled = image.float().div_(255) if image.dtype == torch.uint8 else image
    middle, spread = (
        torch.tensor(numbers, device=image.device).view(-1, 1, 1)
        for numbers in (mean, std)  # one per channel
    )
    return torch.sub(scaled, middle, out=out).div_(spread)


def place(
    image: UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"],
    mask: UInt8[Tensor, "h w"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    out: tuple[Float[Tensor, "c height width"], UInt8[Tensor, "height width"]],
) -> None:
    """Write the image, normalised, and the mask into `out`; below and to the right go 0 and `IGNORE`."""
    height, width = mask.shape
    normalise(image, mean, std, out[0][:, :height, :width])
    out[1][:height, :width] = mask
    if (height, width) == out[1].shape:
        return
    for filled, blank in zip(out, (0, IGNORE), strict=True):
        filled[..., height:, :] = blank
        filled[..., :height, width:] = blank


def _bounds(image: Float[Tensor, "c h w"]) -> tuple[float, float]:
    """The scale 0..1, widened to what the image holds."""
    return min(0.0, float(image.min())), max(1.0, float(image.max()))
