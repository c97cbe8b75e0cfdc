"""A view of an image that the network saw by overlapping windows, blended when its rows are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from asymseg.errors import ConfigError
from asymseg.prediction.execution import Coarse
from asymseg.prediction.portions import Portions, attempt
from asymseg.prediction.upsampling import enlarged, resized
from asymseg.prediction.windows import Axis


@dataclass(frozen=True)
class Strip:
    """Coarse logits of the windows that lie side by side, from left to right."""

    logits: tuple[Float[Tensor, "1 n i j"], ...]
    covers: tuple[int, int]
    """Height and width in pixels that each stands for: the window, padded to what the backbone takes."""


class Strips:
    """Strips that are made when they are asked for, and forgotten once those further down are."""

    def __init__(self, look: Callable[[int], Strip]) -> None:
        self.look = look
        self.held: dict[int, Strip] = {}

    def __getitem__(self, number: int) -> Strip:
        if number not in self.held:
            self.held[number] = self.look(number)
        return self.held[number]

    def forget_above(self, number: int) -> None:
        for old in [held for held in self.held if held < number]:
            del self.held[old]


@dataclass(frozen=True)
class Mosaic:
    """What the network said of the windows of one form in which it saw an image."""

    strips: Strips | dict[int, Strip]
    """By number from top to bottom."""
    down: Axis
    across: Axis
    seen: tuple[int, int]
    """Height and width of the image as the windows were cut from it."""
    mirrored: bool
    shares: bool
    """Whether windows are blended by their probabilities, and not by their logits."""

    def numbers_per_row(self, size: tuple[int, int]) -> int:
        """Scores that are made for one row of an image of `size`."""
        rows = max(1, -(-self.seen[0] // size[0]))
        return self.strips[0].logits[0].shape[1] * max(size[1], rows * self.seen[1])


def blended(view: Mosaic, size: tuple[int, int], rows: slice, align_corners: bool) -> Float[Tensor, "n r w"]:
    """Scores of some rows of the image: windows at the size at which they were seen, blended, brought to `size`."""
    maps = resized(lambda wanted: _blend(view, wanted, align_corners), view.seen, size, rows, align_corners)
    return maps[0].flip(2) if view.mirrored else maps[0]


def _blend(view: Mosaic, rows: slice, align_corners: bool) -> Float[Tensor, "1 n r v"]:
    touched = view.down.touching(rows.start, rows.stop)
    if isinstance(view.strips, Strips):
        view.strips.forget_above(touched[0])
    first = view.strips[touched[0]].logits[0]
    # Classes come last here: they lie side by side in memory, and both softmax and arg max go over them.
    total = torch.zeros(1, rows.stop - rows.start, view.seen[1], first.shape[1], device=first.device)
    for number in touched:
        top = view.down.starts[number]
        held = slice(max(rows.start, top), min(rows.stop, top + view.down.window))
        within = slice(held.start - top, held.stop - top)
        heights = torch.from_numpy(view.down.share(number)[within]).to(total.device)
        strip = view.strips[number]
        for place, (left, logits) in enumerate(zip(view.across.starts, strip.logits, strict=True)):
            piece = enlarged(logits, strip.covers, view.across.window, within, align_corners)
            piece = piece.permute(0, 2, 3, 1)
            weights = heights[:, None] * torch.from_numpy(view.across.share(place)).to(total.device)
            place_of = total[:, held.start - rows.start : held.stop - rows.start, left : left + view.across.window]
            place_of.addcmul_(piece.softmax(dim=3) if view.shares else piece, weights[:, :, None])
    return total.permute(0, 3, 1, 2)


def see_strip(
    number: int,
    coarse: Coarse,
    pixels: Float[Tensor, "1 c h w"],
    mirrored: bool,
    down: Axis,
    across: Axis,
    portions: Portions,
) -> Strip:
    """What the network says of one row of windows, as many at once as memory allows. Raises ConfigError."""
    size, lefts, said = (down.window, across.window), list(across.starts), list[Strip]()
    row = slice(down.starts[number], down.starts[number] + down.window)

    def look(lefts: list[int]) -> Strip:
        seen = pixels[:, :, row].flip(3) if mirrored else pixels[:, :, row]
        logits, covers = coarse(torch.cat([seen[..., left : left + across.window] for left in lefts]))
        return Strip(torch.split(logits, 1), covers)

    while lefts:
        now = lefts[: portions.windows(len(across.starts), size)]
        strip = attempt(partial(look, now))
        if strip is not None:
            said.append(strip)
            del lefts[: len(now)]
        elif len(now) > 1:
            portions.lower("fewer windows go through the network at once")
            portions.pixels = len(now) // 2 * size[0] * size[1]
        else:
            raise ConfigError(
                f"not even one window of {size[0]}x{size[1]} pixels fits into memory ({coarse.device.type}); use a "
                "smaller --window"
            )
    return Strip(tuple(chain.from_iterable(part.logits for part in said)), said[0].covers)
