"""An image in tiles: which part each answers for, and which part it must read for that."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Shaped
from torch import Tensor

from asymseg.errors import ConfigError
from asymseg.model.by_tokens import blurred_cells, check_by_tokens
from asymseg.model.reach import Reach, measure_reach
from asymseg.prediction.predict import Predictor

Rectangle = tuple[slice, slice]
"""Rows and columns."""


@runtime_checkable
class TileSource(Protocol):
    """An image of any size, of which parts are read."""

    size: tuple[int, int]
    """Height and width."""

    def read(self, rows: slice, columns: slice) -> Shaped[Tensor, "c h w"]:
        """A part, in the form that `asymseg.data.files.read_image` gives: bytes, or floats on the 0..1 scale."""
        ...


class TensorSource:
    """An image in memory."""

    def __init__(self, image: Shaped[Tensor, "c h w"]) -> None:
        self.image = image
        self.size = (image.shape[1], image.shape[2])

    def read(self, rows: slice, columns: slice) -> Shaped[Tensor, "c h w"]:
        return self.image[:, rows, columns]


@dataclass(frozen=True)
class Tile:
    """A part of an image, in its pixels."""

    core: Rectangle
    """What the tile answers for; the cores of all tiles cover each pixel once."""
    padded: Rectangle
    """What is read for it."""
    size: tuple[int, int]
    """Height and width of the whole image."""
    reach: Reach
    exact: bool
    """Whether the padding covers all that the backbone looks at, so that the tile equals the whole image's."""

    def cells(self, level: int) -> tuple[Rectangle, Rectangle]:
        """The cells of the map `low` (0) or `high` (1) that lie in the core: within the whole map, and as read."""
        whole, read = zip(*(self._cells(level, axis) for axis in (0, 1)), strict=True)
        return (whole[0], whole[1]), (read[0], read[1])

    def map_size(self, level: int) -> tuple[int, int]:
        """Height and width of the whole image's map."""
        height, width = (-(-side // self.reach.strides[level]) for side in self.covers)
        return height, width

    @property
    def covers(self) -> tuple[int, int]:
        """Height and width of the whole image, padded to what the backbone takes."""
        height, width = (side + -side % self.reach.multiple for side in self.size)
        return height, width

    def _cells(self, level: int, axis: int) -> tuple[slice, slice]:
        stride, core = self.reach.strides[level], self.core[axis]
        last = self.map_size(level)[axis] if core.stop == self.size[axis] else core.stop // stride
        first, offset = core.start // stride, self.padded[axis].start // stride
        return slice(first, last), slice(first - offset, last - offset)


def plan_tiles(
    predictor: Predictor,
    size: tuple[int, int],
    tile: int = 1024,
    halo: int | None = None,
    reach: Reach | None = None,
) -> tuple[Tile, ...]:
    """Tiles of at most about `tile` pixels a side that cover an image of `size`, row by row.

    Each is read with `halo` pixels of its surroundings and a few more that the head looks at; without a `halo`, with as
    many as the backbone looks at, which makes tiles exact. `reach` is what `reach_of` gives, which takes a
    second or more; pass it in for many images.

    Raises ConfigError for a network whose context is not made of tokens, where no halo is given and none is enough, and
    where the predictor sees an image more than once.
    """
    check_one_look(predictor)
    if tile < 1 or (halo is not None and halo < 0):
        given = f"tile = {tile}" if tile < 1 else f"halo (--overlap) = {halo}"
        raise ConfigError(f"{given}: tile must be at least 1 and halo at least 0")
    network, reach = check_by_tokens(predictor.network), reach or reach_of(predictor)
    if halo is None and reach.radius is None:
        raise ConfigError(
            "the backbone looks at the whole image (by squeeze-and-excite, a norm over pixels or attention), so no "
            "halo makes tiles equal to it; give one, such as --overlap 256 (halo=256), to accept what that changes"
        )
    around = reach.radius if halo is None else halo
    assert around is not None
    exact = reach.radius is not None and around >= reach.radius
    around += blurred_cells(network) * reach.strides[1]
    rows, columns = (_spans(side, tile, around, reach.align) for side in size)
    return tuple(
        Tile((row, column), (read_rows, read_columns), size, reach, exact)
        for row, read_rows in rows
        for column, read_columns in columns
    )


def reach_of(predictor: Predictor) -> Reach:
    """How far the predictor's backbone looks. Raises ConfigError for a network whose context is not made of tokens."""
    return measure_reach(check_by_tokens(predictor.network).backbone, len(predictor.info.mean))


def check_one_look(predictor: Predictor) -> None:
    """Raise ConfigError where an image is not seen once at its own size; windows are of no meaning here."""
    seeing = predictor.info.seeing
    if seeing.scales != (1.0,) or seeing.flip:
        raise ConfigError(
            "context of the whole image by tiles takes one look at its own size, but this model sees it at "
            f"{', '.join(map(str, seeing.scales))} times its size{', mirrored too' if seeing.flip else ''}; use "
            "predictor.seeing(scales=(1.0,), flip=False), on the command line --scales 1 --no-flip"
        )


def _spans(length: int, tile: int, around: int, align: int) -> list[tuple[slice, slice]]:
    """Cores and what is read for them, along one side.

    Both begin at multiples of `align`. What is read ends a multiple of it before the image's end, so that layers which
    pad by an image's size pad alike.
    """
    count = -(-length // tile)
    step = max(align, -(-length // count // align) * align)
    spans = []
    for start in range(0, length, step):
        stop = min(start + step, length)
        first = max(0, (start - around) // align * align)
        last = length - max(0, (length - stop - around) // align * align)
        spans.append((slice(start, stop), slice(first, last)))
    return spans
