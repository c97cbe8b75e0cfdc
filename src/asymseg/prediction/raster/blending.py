"""Overlapping tiles that are joined without a seam, and how little must be kept meanwhile."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from asymseg.errors import ConfigError


@dataclass(frozen=True)
class Axis:
    """Where tiles lie along one side of an image, and what each counts at each of its pixels.

    The weights rise in a straight line over the overlap, and those of all tiles add up to 1 at every pixel.
    """

    length: int
    starts: tuple[int, ...]
    weights: tuple[Float[Tensor, " t"], ...]

    def span(self, number: int) -> slice:
        """The pixels that a tile sees."""
        return slice(self.starts[number], self.starts[number] + len(self.weights[number]))

    def done(self, number: int) -> slice:
        """The pixels whose last tile this is, if tiles come in order."""
        after = self.starts[number + 1] if number + 1 < len(self.starts) else self.length
        return slice(self.starts[number], after)


def lay_tiles(length: int, tile: int, overlap: int) -> Axis:
    """Tiles along a side; the last is moved back to end with the image. Raises ConfigError."""
    if not 0 <= overlap < tile:
        raise ConfigError(f"overlap = {overlap} must be from 0 to one less than tile = {tile}")
    tile = min(tile, length)
    step = tile - overlap if overlap < tile else tile
    starts = [*range(0, length - tile, step), length - tile]
    edge = torch.arange(tile, dtype=torch.float64) + 0.5
    rise = torch.minimum(edge, edge.flip(0)).div_(max(overlap, 1)).clamp_(max=1)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += rise
    weights = tuple((rise / total[start : start + tile]).float() for start in starts)
    return Axis(length, tuple(starts), weights)


@torch.inference_mode()
def add_tile(
    total: Float[Tensor, "n h w"] | None,
    place: tuple[int, int],
    rows: Axis,
    columns: Axis,
    left: Float[Tensor, "n h k"] | None,
    above: Float[Tensor, "n l v"] | None,
    classes: int,
) -> tuple[Float[Tensor, "n r v"], Float[Tensor, "n m v"], Float[Tensor, "n h j"]]:
    """What tile `place` (row, column) of a grid, taken from left to right and from above, adds to the weighted sums.

    Gives the sums that are complete with it, and what is still open: that of its complete columns in the rows below,
    which is `above` for the tile below; and that of all its rows in the columns to the right, `left` for the next tile.
    `total` is what the network said, and is overwritten; None counts nothing.
    """
    row, column = place
    height, width = len(rows.weights[row]), len(columns.weights[column])
    if total is None:
        total = torch.zeros(classes, height, width)
    else:
        total *= rows.weights[row].to(total.device)[:, None]
        total *= columns.weights[column].to(total.device)
    if left is not None:
        total[:, :, : left.shape[2]] += left.to(total.device)
    done = columns.done(column)
    rest = total[:, :, done.stop - done.start :].clone()
    total = total[:, :, : done.stop - done.start]
    if above is not None:
        total[:, : above.shape[1]] += above.to(total.device)
    complete = rows.done(row).stop - rows.done(row).start
    return total[:, :complete], total[:, complete:], rest
