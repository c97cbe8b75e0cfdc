"""3x3 convolutions with a quarter of the multiplications, on a CPU."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from asymseg.model.convolution import replace_convolutions
from asymseg.model.winograd_transforms import (
    TAPS,
    TILE,
    evaluation,
    transform_gradient,
    transform_input,
    transform_kernel,
    transform_output,
)

PRODUCTS_AT_ONCE = 40_000_000
"""Transformed input of one matrix product, in numbers: much, so that the kernel is read seldom."""

TRANSFORMED_AT_ONCE = 4_000_000
"""What is being transformed, in numbers: little, so that it stays in a CPU's cache."""


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that on a CPU in float32 computes the same values with fewer multiplications.

    It does so in training, forward and backward, and where `predicting` says so in prediction.
    Elsewhere, in an export and under torch.compile, it is an ordinary convolution.

    An output tile of 4x4 pixels takes 6x6 products per pair of channels instead of 144 (Lavin & Gray, "Fast
    Algorithms for Convolutional Neural Networks", CVPR 2016, section 4; Winograd's F(4x4, 3x3)). All products of one
    place in the tile are one matrix product over the channels. With dilation d, the d*d grids of pixels that meet are
    tiled each by itself. In prediction the transformed kernel, four times as large as the kernel, is made once; it is
    not saved. Changes of the weights are seen, but for those that autograd is not told of (in place, through `.data`).
    """

    predicting = False
    _transformed: tuple[Tensor, int, Tensor] | None = None
    """Weights, their version and their transform. While the weights are held, no others can have their address."""

    @classmethod
    def replace_in(cls, module: nn.Module) -> None:
        """Put one in the place of every convolution in `module` that it can stand for, with the same parameters."""
        replace_convolutions(module, cls, _fits)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        if not self._pays(input):
            return super().forward(input)
        if torch.is_grad_enabled():
            out: Tensor = _Winograd.apply(input, self.weight, self.bias, self.dilation[0])
            return out
        return winograd(input, self._kernel(), self.bias, self.dilation[0])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_transformed"}

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._transformed = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def _pays(self, x: Tensor) -> bool:
        if not (self.training if torch.is_grad_enabled() else self.predicting) or torch.compiler.is_compiling():
            return False
        if not x.device.type == self.weight.device.type == "cpu" or torch.is_autocast_enabled("cpu"):
            return False
        batch, _, height, width = x.shape
        covered = _covering(height, self.dilation[0]) * _covering(width, self.dilation[0])
        return (
            x.dtype == self.weight.dtype == torch.float32
            and _fits(self)
            and batch > 0
            and covered <= 2 * height * width
        )

    def _kernel(self) -> Tensor:
        """The transformed kernel; made anew when the weights were changed, and always where they keep no version."""
        weight = self.weight.detach()
        if weight.is_inference():
            return transform_kernel(weight)
        known = self._transformed
        if known is None or (known[0].data_ptr(), known[1]) != (weight.data_ptr(), weight._version):
            known = self._transformed = (weight, weight._version, transform_kernel(weight))
        return known[2]


class _Winograd(torch.autograd.Function):
    """`winograd`, and its gradients, likewise."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        return winograd(x, transform_kernel(weight), bias, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor) -> None:
        x, weight, _, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        mirrored = weight.flip(2, 3).transpose(0, 1)
        return (
            winograd(gradient, transform_kernel(mirrored), None, ctx.dilation) if for_x else None,
            winograd_kernel_gradient(x, gradient, ctx.dilation) if for_weight else None,
            gradient.sum(dim=(0, 2, 3)) if for_bias else None,
            None,
        )


def winograd(
    x: Float[Tensor, "b c h w"],
    kernel: Float[Tensor, "36 c d"],
    bias: Float[Tensor, " d"] | None,
    dilation: int = 1,
) -> Float[Tensor, "b d h w"]:
    """The convolution of `x` with a kernel from `transform_kernel`, padded so that it keeps its size."""
    grid = _Grid.over(x, dilation, kernel.shape[2])
    batch, channels, height, width = x.shape
    out_channels = kernel.shape[2]
    tiles = x.new_empty(grid.tiles(channels))
    products = x.new_empty(grid.tiles(out_channels))
    by_column = x.new_empty(TILE, TAPS, batch, grid.step, dilation, grid.columns, dilation, out_channels)
    out = x.new_empty(batch, grid.rows, TILE, dilation, grid.columns, TILE, dilation, out_channels)
    read = _InputTiles(x, grid)
    for start in _starts(grid.rows, grid.band):
        read.into(tiles, start)
        torch.bmm(_matrices(tiles), kernel, out=_matrices(products))
        for first in _starts(grid.band, grid.step):
            transform_output(products[:, :, :, first : first + grid.step], by_column)
            target = out[:, start + first :][:, : grid.step]  # b row 4 grid column 4 grid d
            for pixel in range(TILE):
                transform_output(by_column[pixel], [target[:, :, pixel, :, :, other] for other in range(TILE)])
    out = out.reshape(batch, grid.rows * grid.side, grid.columns * grid.side, out_channels)[:, :height, :width]
    out = out.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return out if bias is None else out.add_(bias[:, None, None])


def winograd_kernel_gradient(
    x: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b d h w"], dilation: int = 1
) -> Float[Tensor, "d c 3 3"]:
    """The gradient by the kernel of the convolution of `x`, from the gradient by its result."""
    grid = _Grid.over(x, dilation, gradient.shape[1])
    channels, out_channels = x.shape[1], gradient.shape[1]
    tiles, slopes = x.new_empty(grid.tiles(channels)), x.new_empty(grid.tiles(out_channels))
    total = x.new_zeros(TAPS * TAPS, channels, out_channels)
    read, read_gradient = _InputTiles(x, grid), _GradientTiles(gradient, grid)
    for start in range(0, grid.rows, grid.band):
        begin = min(start, grid.rows - grid.band)
        read.into(tiles, begin)
        read_gradient.into(slopes, begin)
        slopes[:, :, :, : start - begin] = 0  # rows that the band before has counted
        total.baddbmm_(_matrices(tiles).transpose(1, 2), _matrices(slopes))
    taps = evaluation(x.dtype).T @ total.flatten(1)  # 9 36 times 36 c*d
    return taps.reshape(3, 3, channels, out_channels).permute(3, 2, 0, 1)


@dataclass(frozen=True)
class _Grid:
    """How a map is cut into tiles, and how many rows of them are worked on at a time."""

    batch: int
    dilation: int  # with dilation d there are d*d grids of pixels that meet, each tiled by itself
    rows: int
    columns: int
    band: int
    """Rows of tiles of one matrix product."""
    step: int
    """Rows of tiles that are transformed together."""

    @classmethod
    def over(cls, x: Tensor, dilation: int, out_channels: int) -> "_Grid":
        batch, channels, height, width = x.shape
        side = TILE * dilation
        rows, columns = _covering(height, dilation) // side, _covering(width, dilation) // side
        tiles_of_row, widest = batch * dilation * columns * dilation, max(channels, out_channels)
        band = max(1, min(rows, PRODUCTS_AT_ONCE // (TAPS * TAPS * tiles_of_row * widest)))
        step = max(1, min(band, TRANSFORMED_AT_ONCE // (TAPS * TILE * tiles_of_row * widest)))
        return cls(batch, dilation, rows, columns, band, step)

    @property
    def side(self) -> int:
        """Pixels from a tile of one grid to its next."""
        return TILE * self.dilation

    def tiles(self, channels: int) -> tuple[int, ...]:
        """The shape of a band of transformed tiles."""
        return (TAPS, TAPS, self.batch, self.band, self.dilation, self.columns, self.dilation, channels)


class _InputTiles:
    """Reads the tiles of a map, transformed; a tile reads on into the next, so there is one more at the far ends."""

    def __init__(self, x: Tensor, grid: _Grid) -> None:
        self.pixels, self.grid = x.permute(0, 2, 3, 1), grid
        channels, d = x.shape[1], grid.dilation
        self.padded = x.new_zeros(grid.batch, grid.step + 1, TILE, d, grid.columns + 1, TILE, d, channels)
        self.by_row = x.new_empty(TAPS, grid.batch, grid.step, d, grid.columns + 1, TILE, d, channels)

    def into(self, tiles: Tensor, start: int) -> None:
        """Fill a band of tiles from row `start` on."""
        grid, step = self.grid, self.grid.step
        for first in _starts(grid.band, step):
            _copy_rows(self.pixels, self.padded, (start + first) * grid.side, grid.dilation)
            transform_input([self.padded[:, tap // TILE :][:, :step, tap % TILE] for tap in range(TAPS)], self.by_row)
            for seen, tile in zip(self.by_row, tiles[:, :, :, first : first + step], strict=True):
                taps = [seen[:, :, :, tap // TILE :][:, :, :, : grid.columns, tap % TILE] for tap in range(TAPS)]
                transform_input(taps, tile)


class _GradientTiles:
    """Reads the tiles of the gradient by the result, as the transposed transform of the output has them."""

    def __init__(self, gradient: Tensor, grid: _Grid) -> None:
        self.pixels, self.grid = gradient.permute(0, 2, 3, 1), grid
        channels, d = gradient.shape[1], grid.dilation
        self.padded = gradient.new_zeros(grid.batch, grid.step, TILE, d, grid.columns, TILE, d, channels)
        self.by_row = gradient.new_empty(TAPS, grid.batch, grid.step, d, grid.columns, TILE, d, channels)

    def into(self, tiles: Tensor, start: int) -> None:
        """Fill a band of tiles from row `start` on."""
        grid, step = self.grid, self.grid.step
        for first in _starts(grid.band, step):
            _copy_rows(self.pixels, self.padded, (start + first) * grid.side, 0)
            transform_gradient([self.padded[:, :, pixel] for pixel in range(TILE)], self.by_row)
            for seen, tile in zip(self.by_row, tiles[:, :, :, first : first + step], strict=True):
                transform_gradient([seen[:, :, :, :, pixel] for pixel in range(TILE)], tile)


def _matrices(tiles: Tensor) -> Float[Tensor, "36 t c"]:
    """All tiles' values of one place as one matrix."""
    return tiles.flatten(2, 6).flatten(0, 1)


def _starts(rows: int, step: int) -> list[int]:
    """Where to begin, so that steps of equal length cover the rows; the last may overlap the one before."""
    return [min(start, rows - step) for start in range(0, rows, step)]


def _copy_rows(pixels: Float[Tensor, "b h w c"], padded: Tensor, row: int, border: int) -> None:
    """The pixels that tiles from `row` on read: from `border` before it, with zeros where the map has no rows."""
    into = padded.view(len(padded), -1, padded[0, 0, 0, 0, ..., 0].numel(), padded.shape[-1])  # b h w c
    height, width = pixels.shape[1:3]
    first = row - border
    begin, end = max(first, 0), min(first + into.shape[1], height)
    into[:, : begin - first] = 0
    into[:, begin - first : end - first, border : border + width] = pixels[:, begin:end]
    into[:, end - first :] = 0


def _covering(length: int, dilation: int) -> int:
    """The least whole number of tiles that covers `length` pixels, in pixels."""
    return length + -length % (TILE * dilation)


def _fits(convolution: nn.Conv2d) -> bool:
    """3x3, dense, stride 1, padded so that the map keeps its size, and wide enough for the transforms to pay."""
    dilation = convolution.dilation[0]
    return (
        convolution.kernel_size == (3, 3)
        and convolution.groups == 1
        and convolution.stride == (1, 1)
        and convolution.dilation == convolution.padding == (dilation, dilation)
        and convolution.padding_mode == "zeros"
        and min(convolution.in_channels, convolution.out_channels) >= 128
    )
