"""Coarse logits at an image's own size, some rows at a time, so that the full map need never exist."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

NUMBERS_AT_ONCE = 2_000_000
"""Logits that are upsampled together: few enough for the cache of a CPU, enough to keep a GPU busy."""


@dataclass(frozen=True)
class View:
    """What the network said of one form in which it saw an image."""

    logits: Float[Tensor, "1 n i j"]
    covers: tuple[int, int]
    """Height and width in pixels that the logits stand for: `seen`, padded to what the backbone takes."""
    seen: tuple[int, int]
    """Height and width at which the network saw the image."""
    mirrored: bool


def bands(view: View, size: tuple[int, int]) -> Iterator[slice]:
    """Rows of an image of `size`, in portions that are upsampled together."""
    height, width = size
    step = max(1, NUMBERS_AT_ONCE // (view.logits.shape[1] * max(width, view.covers[1])))
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def upsampled(view: View, size: tuple[int, int], rows: slice, align_corners: bool) -> Float[Tensor, "n r w"]:
    """Logits of some rows of the image, as `F.interpolate` gives them: to `covers`, cropped to `seen`, to `size`.

    Equal to the last bits: rows are blended before columns here.
    """
    logits, device = view.logits, view.logits.device
    if view.seen == size:
        wanted = torch.arange(rows.start, rows.stop, device=device)
        logits = _rows(logits, _sources(wanted, logits.shape[2], view.covers[0], align_corners))
        logits = _columns(logits, view.covers[1], align_corners)[..., : size[1]]
    else:
        wanted = _sources(torch.arange(rows.start, rows.stop, device=device), view.seen[0], size[0], align_corners)
        first, last = int(wanted[0]), min(int(wanted[-1]) + 1, view.seen[0] - 1)
        seen = torch.arange(first, last + 1, device=device)
        logits = _rows(logits, _sources(seen, logits.shape[2], view.covers[0], align_corners))
        logits = _columns(logits, view.covers[1], align_corners)[..., : view.seen[1]]
        logits = _columns(_rows(logits, wanted - first), size[1], align_corners)
    return logits[0].flip(2) if view.mirrored else logits[0]


def _sources(wanted: Tensor, length: int, target: int, align_corners: bool) -> Float[Tensor, " r"]:
    """Where among `length` rows each wanted row of `target` lies; the convention of `F.interpolate`, in float32."""
    if align_corners:
        return wanted.float() * ((length - 1) / (target - 1) if target > 1 else 0.0)
    return ((wanted.float() + 0.5) * (length / target) - 0.5).clamp_(min=0)


def _rows(x: Float[Tensor, "b n h w"], positions: Float[Tensor, " r"]) -> Float[Tensor, "b n r w"]:
    """Linear interpolation between rows."""
    above = positions.floor().long().clamp_(max=x.shape[2] - 1)
    below = (above + 1).clamp_(max=x.shape[2] - 1)
    return torch.lerp(x[:, :, above], x[:, :, below], (positions - above)[:, None])


def _columns(x: Float[Tensor, "b n r w"], width: int, align_corners: bool) -> Float[Tensor, "b n r v"]:
    x = x.contiguous(memory_format=torch.channels_last)  # so that the maximum over classes reads straight on
    return F.interpolate(x, (x.shape[2], width), mode="bilinear", align_corners=align_corners)
