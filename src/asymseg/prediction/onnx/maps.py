"""Maps of scores as plain arrays: brought to another size, made into probabilities, class ids and confidences."""

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image


def rescaled(images: Shaped[np.ndarray, "b c h w"], size: tuple[int, int]) -> Shaped[np.ndarray, "b c height width"]:
    """Images at another size, as `F.interpolate` makes them with antialias: Pillow has the same filter.

    Bytes are computed with in full, and then rounded to bytes.
    """
    out = np.empty((*images.shape[:2], *size), dtype=np.float32)
    for place in np.ndindex(images.shape[:2]):
        channel = Image.fromarray(np.ascontiguousarray(images[place], dtype=np.float32))
        out[place] = channel.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.rint(out).astype(np.uint8) if images.dtype == np.uint8 else out


def resized(
    maps: Float32[np.ndarray, "b n h w"], size: tuple[int, int], align_corners: bool
) -> Float32[np.ndarray, "b n height width"]:
    """Maps at another size, as `F.interpolate` makes them without antialias; themselves where it is their own."""
    for axis, length in ((2, size[0]), (3, size[1])):
        if maps.shape[axis] != length:
            maps = _along(maps, axis, length, align_corners)
    return maps


def softmax(scores: Float32[np.ndarray, "b n h w"]) -> Float32[np.ndarray, "b n h w"]:
    """Probabilities of the classes, from their logits."""
    shares: np.ndarray = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def best_classes(scores: Float32[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "h w"]:
    """The class of the largest score at each pixel, the first of several; faster than an arg max over planes."""
    best = scores[0].copy()
    mask = np.zeros(best.shape, dtype=np.uint8)
    for number, plane in enumerate(scores[1:], start=1):
        mask[plane > best] = number
        np.maximum(best, plane, out=best)
    return mask


def _along(maps: np.ndarray, axis: int, length: int, align_corners: bool) -> np.ndarray:
    """Linear interpolation along one axis."""
    places = _sources(maps.shape[axis], length, align_corners)
    before = np.minimum(places.astype(np.int64), maps.shape[axis] - 1)
    after = np.minimum(before + 1, maps.shape[axis] - 1)
    share = (places - before).astype(np.float32).reshape(-1, *(1,) * (3 - axis))
    blended: np.ndarray = maps.take(before, axis)
    blended += share * (maps.take(after, axis) - blended)
    return blended


def _sources(length: int, target: int, align_corners: bool) -> np.ndarray:
    """Where among `length` rows each row of `target` lies, in float32 as `F.interpolate` has it."""
    wanted = np.arange(target, dtype=np.float32)
    if align_corners:
        wanted *= np.float32((length - 1) / (target - 1) if target > 1 else 0.0)
    else:
        wanted = np.maximum((wanted + np.float32(0.5)) * np.float32(length / target) - np.float32(0.5), 0)
    return wanted
