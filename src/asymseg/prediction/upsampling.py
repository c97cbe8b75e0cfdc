"""Coarse logits at an image's own size, some rows at a time, so that the full map need never exist."""

from collections.abc import Callable
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

    logits: Float[Tensor, "b n i j"]
    """Of one image; of several only until they are told apart."""
    covers: tuple[int, int]
    """Height and width in pixels that the logits stand for: `seen`, padded to what the backbone takes."""
    seen: tuple[int, int]
    """Height and width at which the network saw the image."""
    mirrored: bool


def numbers_per_row(view: View, size: tuple[int, int]) -> int:
    """Logits that are made for one row of an image of `size`."""
    rows = max(1, -(-view.seen[0] // size[0]))
    return view.logits.shape[1] * max(size[1], rows * view.covers[1])


def upsampled(view: View, size: tuple[int, int], rows: slice, align_corners: bool) -> Float[Tensor, "n r w"]:
    """Logits of some rows of the image, as `F.interpolate` gives them: to `covers`, cropped to `seen`, to `size`.

    Equal to the last bits: rows are blended before columns here.
    """

    def seen(wanted: slice) -> Float[Tensor, "1 n r v"]:
        return enlarged(view.logits, view.covers, view.seen[1], wanted, align_corners)

    maps = resized(seen, view.seen, size, rows, align_corners)
    return maps[0].flip(2) if view.mirrored else maps[0]


def enlarged(
    logits: Float[Tensor, "1 n i j"], covers: tuple[int, int], width: int, rows: slice, align_corners: bool
) -> Float[Tensor, "1 n r {width}"]:
    """Some rows of logits brought to the size that they cover, cropped to `width`."""
    wanted = torch.arange(rows.start, rows.stop, device=logits.device)
    logits = _rows(logits, _sources(wanted, logits.shape[2], covers[0], align_corners))
    return _columns(logits, covers[1], align_corners)[..., :width]


def resized(
    seen: Callable[[slice], Float[Tensor, "1 n r v"]],
    length: tuple[int, int],
    size: tuple[int, int],
    rows: slice,
    align_corners: bool,
) -> Float[Tensor, "1 n r w"]:
    """Some rows of a map brought from one size to another; `seen` gives rows of the map as it is."""
    if length == size:
        return seen(rows)
    wanted = _sources(torch.arange(rows.start, rows.stop), length[0], size[0], align_corners)
    first, last = int(wanted[0]), min(int(wanted[-1]) + 1, length[0] - 1)
    maps = seen(slice(first, last + 1))
    return _columns(_rows(maps, (wanted - first).to(maps.device)), size[1], align_corners)


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
