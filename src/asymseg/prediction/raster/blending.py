"""Overlapping tiles that are joined without a seam, and how little must be kept meanwhile."""

import torch
from jaxtyping import Float
from torch import Tensor

from asymseg.errors import ConfigError
from asymseg.prediction.windows import Axis, make_axis


def lay_tiles(length: int, tile: int, overlap: int) -> Axis:
    """Tiles along a side of an image, whose weights fall towards their borders. Raises ConfigError."""
    if not 0 <= overlap < tile:
        raise ConfigError(f"overlap = {overlap} must be from 0 to one less than tile = {tile}")
    return make_axis(length, tile, tile - overlap, "tapered")


def span(axis: Axis, number: int) -> slice:
    """The pixels that a tile sees."""
    return slice(axis.starts[number], axis.starts[number] + axis.window)


def finished(axis: Axis, number: int) -> slice:
    """The pixels whose last tile this is, if tiles come in order."""
    after = axis.starts[number + 1] if number + 1 < len(axis.starts) else len(axis.total)
    return slice(axis.starts[number], after)


def open_shapes(rows: Axis, columns: Axis, row: int, classes: int) -> list[tuple[int, int, int]]:
    """Of what `add_tile` gives for the rows below, tile after tile of a row."""
    complete = finished(rows, row)
    widths = [finished(columns, number) for number in range(len(columns.starts))]
    below = rows.window - (complete.stop - complete.start)
    return [(classes, below, width.stop - width.start) for width in widths]


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
    if total is None:
        total = torch.zeros(classes, rows.window, columns.window)
    else:
        total *= torch.from_numpy(rows.share(row)).to(total.device)[:, None]
        total *= torch.from_numpy(columns.share(column)).to(total.device)
    if left is not None:
        total[:, :, : left.shape[2]] += left.to(total.device)
    done = finished(columns, column)
    rest = total[:, :, done.stop - done.start :].clone()
    total = total[:, :, : done.stop - done.start]
    if above is not None:
        total[:, : above.shape[1]] += above.to(total.device)
    complete = finished(rows, row).stop - finished(rows, row).start
    return total[:, :complete], total[:, complete:], rest
