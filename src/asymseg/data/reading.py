"""A pair's image and mask, from whatever holds them."""

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from asymseg.classes import Classes
from asymseg.data.decoding import reading
from asymseg.data.files import checked_raw_mask, image_size, image_tensor, read_image, read_raw_mask, to_classes
from asymseg.data.pairing import Pair
from asymseg.errors import DataError


def read_pair(
    pair: Pair, classes: Classes, channels: int = 3
) -> tuple[UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
    """An image and its mask at their own resolution."""
    image, mask = read_pair_image(pair, channels), read_pair_mask(pair, classes)
    if image.shape[1:] != mask.shape:
        raise DataError(
            f"{pair.mask}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x width) but its image "
            f"{pair.image} is {image.shape[1]} x {image.shape[2]}; make both the same size"
        )
    return image, mask


def read_pair_image(pair: Pair, channels: int = 3) -> UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]:
    """The image of a pair, from whatever holds it."""
    if pair.pixels is None:
        return read_image(pair.image, channels)
    with reading(pair.image):
        return image_tensor(pair.pixels(pair.image), channels, f"{pair.image} ({pair.name})")


def read_pair_mask(pair: Pair, classes: Classes) -> UInt8[Tensor, "h w"]:
    """The class ids of a pair, from whatever holds them."""
    return to_classes(read_raw_labels(pair), classes, pair.mask)


def read_raw_labels(pair: Pair) -> np.ndarray:
    """What the mask of a pair holds: whole numbers H W, or RGB bytes H W 3."""
    if pair.labels is None:
        return read_raw_mask(pair.mask)
    with reading(pair.mask):
        return checked_raw_mask(pair.labels(pair.mask), pair.mask)


def pair_size(pair: Pair) -> tuple[int, int]:
    """Height and width of the image of a pair, without decoding it where that is possible."""
    if pair.pixels is None:
        return image_size(pair.image)
    with reading(pair.image):
        image = pair.pixels(pair.image)
        return (image.shape[0], image.shape[1]) if isinstance(image, np.ndarray) else (image.height, image.width)
