"""Why a pixel is what it is said to be: the regions of the image that it drew on, block by block.

A block gives each cell of its map one weight for each of the pyramid's regions, and these add up to 1. They are
no approximation made afterwards: the context of a cell is the sum of the regions' averages by these very weights.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw

from asymseg.errors import DataError
from asymseg.prediction.overlay import Picture, as_picture

Name = Literal["fusion", "context"]
Region = tuple[slice, slice]
"""Rows and columns among the cells of a map."""


@dataclass(frozen=True)
class BlockAttention:
    """What one block gave to one pixel."""

    name: Name
    """fusion: AFNB, regions of the shallow map. context: APNB, regions of its own map."""
    pool_sizes: tuple[int, ...]
    weights: Float[np.ndarray, " s"]
    """Of each region, adding up to 1: coarse grids first, the cells of a grid row by row."""
    boxes: Int[np.ndarray, "s 4"]
    """The regions in pixels of the image: rows from and to, columns from and to, ends excluded. Neighbours may overlap,
    as the cells of adaptive pooling do, and a region in the padding that a backbone asked for is empty."""
    heat: Float[np.ndarray, "h w"]
    """For each pixel of the image, the weight that its feature has in the context: the sum over all regions it lies in
    of weight / (cells of the region). It adds up to 1 over the cells of the map that was pooled."""


@dataclass(frozen=True)
class Attention:
    """The regions that one pixel of an image drew on."""

    row: int
    column: int
    image: Picture
    blocks: tuple[BlockAttention, ...]

    def __getitem__(self, name: Name) -> BlockAttention:
        """The block of that name. Raises KeyError for one that the network lacks."""
        return {block.name: block for block in self.blocks}[name]

    def picture(self, block: Name | None = None, *, enlarge: int = 1, opacity: float = 0.8) -> Image.Image:
        """The image in dark grey, glowing where the pixel, marked by a ring, drew on it; of one block, or all added up.

        It glows by `BlockAttention.heat`: each weight is spread evenly over its region, and all grids lie on top of
        each other, so of two regions with one weight the smaller is brighter. White-yellow is the hottest place of this
        picture; the image shows through as the heat falls, and is bare where no weight is.
        """
        from matplotlib import colormaps  # a second to load, and only pictures need it

        heats = [each.heat for each in (self.blocks if block is None else (self[block],))]
        heat = np.sum(heats, axis=0)
        share = heat / max(float(heat.max()), 1e-12)
        colours = 255 * np.asarray(colormaps["inferno"](share))[..., :3]  # and not its opacity
        cover = opacity * np.sqrt(share)[..., None]
        grey = as_picture(self.image).mean(axis=2, keepdims=True) / 2
        picture = Image.fromarray(np.rint(grey * (1 - cover) + colours * cover).astype(np.uint8))
        picture = picture.resize((enlarge * picture.width, enlarge * picture.height), Image.Resampling.NEAREST)
        return _marked(picture, enlarge * (self.row + 0.5), enlarge * (self.column + 0.5))


@dataclass(frozen=True)
class BlockWeights:
    """The weights that one block gave to every cell of its map."""

    name: Name
    pool_sizes: tuple[int, ...]
    weights: Float[np.ndarray, "h w s"]
    pooled: tuple[int, int]
    """Height and width of the map that was pooled."""
    regions: tuple[Region, ...]
    """Of that map, in the order of the weights."""


@dataclass(frozen=True)
class Attending:
    """The weights of all blocks for all pixels of an image: for each cell of a map, one float32 per region."""

    image: Picture
    seen: tuple[int, int]
    """Height and width at which the network saw the image."""
    covers: tuple[int, int]
    """Height and width in pixels that the maps stand for: `seen`, padded to what the backbone takes."""
    align_corners: bool
    blocks: tuple[BlockWeights, ...]

    @property
    def nbytes(self) -> int:
        return sum(block.weights.nbytes for block in self.blocks)

    def at(self, row: int, column: int) -> Attention:
        """The regions that the pixel drew on; those of the cell that is nearest to it. Raises DataError."""
        height, width = self.image.shape[1:]
        if not (0 <= row < height and 0 <= column < width):
            raise DataError(f"row {row}, column {column}: not within the image of {height} rows and {width} columns")
        return Attention(row, column, self.image, tuple(self._of(block, row, column) for block in self.blocks))

    def _of(self, block: BlockWeights, row: int, column: int) -> BlockAttention:
        size = block.weights.shape[:2]
        cell = [
            self._nearest(pixel, cells, axis)
            for axis, (pixel, cells) in enumerate(zip((row, column), size, strict=True))
        ]
        weights = block.weights[cell[0], cell[1]]
        heat = np.zeros(block.pooled, np.float64)
        for region, weight in zip(block.regions, weights, strict=True):
            heat[region] += weight / heat[region].size
        rows, columns = (
            np.arange(side) * seen * cells // (side * covered)
            for side, seen, cells, covered in zip(
                self.image.shape[1:], self.seen, block.pooled, self.covers, strict=True
            )
        )
        boxes = [
            [end for axis in (0, 1) for end in self._pixels(region[axis], block.pooled[axis], axis)]
            for region in block.regions
        ]
        return BlockAttention(
            block.name, block.pool_sizes, weights, np.array(boxes), heat[np.ix_(rows, columns)].astype(np.float32)
        )

    def _pixels(self, cells: slice, length: int, axis: int) -> tuple[int, int]:
        """The pixels of an axis whose cells, of `length`, are these."""
        covered, seen, side = self.covers[axis], self.seen[axis], self.image.shape[1 + axis]
        first, last = (min(side, -(-end * covered * side // (length * seen))) for end in (cells.start, cells.stop))
        return first, last

    def _nearest(self, pixel: int, cells: int, axis: int) -> int:
        """The cell of an axis whose logits have most to say at a pixel, as `F.interpolate` places them."""
        covered, seen, side = self.covers[axis], self.seen[axis], int(self.image.shape[1 + axis])
        if self.align_corners:
            place = pixel * (seen - 1) / (side - 1) if side > 1 else 0.0
            return round(place * (cells - 1) / (covered - 1)) if covered > 1 else 0
        return min((2 * pixel + 1) * seen * cells // (2 * side * covered), cells - 1)


def _marked(picture: Image.Image, row: float, column: float) -> Image.Image:
    """The picture with a ring around a place, white between black, so that it shows on anything."""
    radius = max(4, round(min(picture.size) / 40))
    draw = ImageDraw.Draw(picture)
    for grow, width, colour in ((1, 5, "black"), (0, 3, "white")):
        r = radius + grow
        draw.ellipse((column - r, row - r, column + r, row + r), outline=colour, width=width)
    return picture
