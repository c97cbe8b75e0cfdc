"""3x3 convolutions with a quarter of the multiplications, for prediction on a CPU."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.model.convolution import replace_convolutions

TILE = 4
"""Output pixels of a tile, per side; it takes TILE + 2 input pixels."""
TAPS = TILE + 2

# The points at which the polynomials are evaluated are 0, A, -A, B, -B and infinity. Multiples of 3/4 keep the
# largest error of float32 near 2.5e-6 of the largest result, where the textbook's 1 and 2 give 1e-5.
A, B = 0.75, 1.5

PRODUCTS_AT_ONCE = 40_000_000
"""Transformed input of one matrix product, in numbers: much, so that the kernel is read seldom."""

TRANSFORMED_AT_ONCE = 4_000_000
"""What is being transformed, in numbers: little, so that it stays in a CPU's cache."""


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that, predicting on a CPU in float32, computes the same values with fewer multiplications.

    An output tile of 4x4 pixels takes 6x6 products per pair of channels instead of 144 (Lavin & Gray, "Fast
    Algorithms for Convolutional Neural Networks", CVPR 2016, section 4; Winograd's F(4x4, 3x3)). All products of one
    place in the tile are one matrix product over the channels. With dilation d, the d*d grids of pixels that meet are
    tiled each by itself. The transformed kernel is made once, is four times as large as the kernel and is not saved.
    Elsewhere, in training, in an export and under torch.compile, this is an ordinary convolution.
    """

    _transformed: tuple[tuple[int, int], Tensor] | None = None

    @classmethod
    def replace_in(cls, module: nn.Module) -> None:
        """Put one in the place of every convolution in `module` that it can stand for, with the same parameters."""
        replace_convolutions(module, cls, _fits)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        if not self._pays(input):
            return super().forward(input)
        return winograd(input, self._kernel(), self.bias, self.dilation[0])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_transformed"}

    def _pays(self, x: Tensor) -> bool:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        if not x.device.type == self.weight.device.type == "cpu" or torch.is_autocast_enabled("cpu"):
            return False
        height, width = x.shape[2:]
        covered = _covering(height, self.dilation[0]) * _covering(width, self.dilation[0])
        return x.dtype == self.weight.dtype == torch.float32 and covered <= 2 * height * width

    def _kernel(self) -> Tensor:
        """The transformed kernel; made anew when the weights were changed."""
        made_from = (self.weight.data_ptr(), 0 if self.weight.is_inference() else self.weight._version)
        if self._transformed is None or self._transformed[0] != made_from:
            self._transformed = (made_from, transform_kernel(self.weight))
        return self._transformed[1]


def winograd(
    x: Float[Tensor, "b c h w"],
    kernel: Float[Tensor, "36 c d"],
    bias: Float[Tensor, " d"] | None,
    dilation: int = 1,
) -> Float[Tensor, "b d h w"]:
    """The convolution of `x` with a kernel from `transform_kernel`, padded so that it keeps its size."""
    batch, channels, height, width = x.shape
    out_channels = kernel.shape[2]
    side = TILE * dilation  # pixels from a tile of one grid to its next; with dilation d there are d*d grids
    rows, columns = _covering(height, dilation) // side, _covering(width, dilation) // side
    tiles_of_row = batch * dilation * columns * dilation
    band = _share(rows, PRODUCTS_AT_ONCE, TAPS * TAPS * tiles_of_row * channels)
    step = _share(band, TRANSFORMED_AT_ONCE, TAPS * TILE * tiles_of_row * max(channels, out_channels))
    # What lies between input and output, asked for once. One more tile at the far ends: a tile reads on into the next.
    padded = x.new_zeros(batch, step + 1, TILE, dilation, columns + 1, TILE, dilation, channels)
    by_row = x.new_empty(TAPS, batch, step, dilation, columns + 1, TILE, dilation, channels)
    by_tile = x.new_empty(TAPS, TAPS, batch, band, dilation, columns, dilation, channels)
    products = x.new_empty(TAPS, TAPS, batch, band, dilation, columns, dilation, out_channels)
    by_column = x.new_empty(TILE, TAPS, batch, step, dilation, columns, dilation, out_channels)
    out = x.new_empty(batch, rows, TILE, dilation, columns, TILE, dilation, out_channels)
    pixels = x.permute(0, 2, 3, 1)
    for start in _starts(rows, band):
        for first in _starts(band, step):
            _copy_rows(pixels, padded.view(batch, -1, (columns + 1) * side, channels), (start + first) * side, dilation)
            _transform_input([padded[:, tap // TILE :][:, :step, tap % TILE] for tap in range(TAPS)], by_row)
            for seen, tile in zip(by_row, by_tile[:, :, :, first : first + step], strict=True):
                neighbours = [seen[:, :, :, tap // TILE :][:, :, :, :columns, tap % TILE] for tap in range(TAPS)]
                _transform_input(neighbours, tile)
        torch.bmm(by_tile.flatten(2, 6).flatten(0, 1), kernel, out=products.flatten(2, 6).flatten(0, 1))
        for first in _starts(band, step):
            _transform_output(products[:, :, :, first : first + step], by_column)
            target = out[:, start + first :][:, :step]  # b row 4 grid column 4 grid d
            for pixel in range(TILE):
                _transform_output(by_column[pixel], [target[:, :, pixel, :, :, other] for other in range(TILE)])
    out = out.view(batch, rows * side, columns * side, out_channels)[:, :height, :width].permute(0, 3, 1, 2)
    out = out.contiguous(memory_format=torch.channels_last)
    return out if bias is None else out.add_(bias[:, None, None])


def _share(rows: int, most: int, numbers_of_row: int) -> int:
    """How many rows to take at once, so that they hold no more than `most` numbers."""
    return max(1, min(rows, most // numbers_of_row))


def _starts(rows: int, step: int) -> list[int]:
    """Where to begin, so that steps of equal length cover the rows; the last may overlap the one before."""
    return [min(start, rows - step) for start in range(0, rows, step)]


def _copy_rows(pixels: Float[Tensor, "b h w c"], into: Float[Tensor, "b hp wp c"], row: int, border: int) -> None:
    """The pixels that tiles from `row` on read: from `border` before it, with zeros where the map has no rows."""
    height, width = pixels.shape[1:3]
    first = row - border
    begin, end = max(first, 0), min(first + into.shape[1], height)
    into[:, : begin - first] = 0
    into[:, begin - first : end - first, border : border + width] = pixels[:, begin:end]
    into[:, end - first :] = 0


def transform_kernel(weight: Float[Tensor, "d c 3 3"]) -> Float[Tensor, "36 c d"]:
    """A kernel as it is multiplied: its polynomials at the points, each over the product that Lagrange divides by."""
    points = torch.tensor((0, A, -A, B, -B), dtype=torch.float64)
    differences = (points[:, None] - points).fill_diagonal_(1)
    at_points = points[:, None] ** torch.arange(3) / differences.prod(dim=1, keepdim=True)
    at_infinity = torch.tensor([[0, 0, 1]], dtype=torch.float64)
    evaluate = torch.cat([at_points, at_infinity])  # 6 3
    # All pairs of a row's and a column's point at once: 36 9 times 9 c*d.
    taps = weight.detach().double().permute(2, 3, 1, 0)  # 3 3 c d
    kernel = torch.kron(evaluate, evaluate).to(weight.device) @ taps.reshape(9, -1)
    return kernel.reshape(-1, *taps.shape[2:]).to(weight.dtype)


def _transform_input(taps: Sequence[Tensor], out: Tensor) -> None:
    """Six neighbours along a side, recombined so that products with the kernel's values at the points add up."""
    torch.add(taps[4], taps[2], alpha=-(A**2 + B**2), out=out[0]).add_(taps[0], alpha=(A * B) ** 2)
    torch.add(taps[5], taps[3], alpha=-(A**2 + B**2), out=out[5]).add_(taps[1], alpha=(A * B) ** 2)
    for point, other, place in ((A, B, 1), (B, A, 3)):
        even = torch.add(taps[4], taps[2], alpha=-(other**2))
        odd = torch.add(taps[3], taps[1], alpha=-(other**2))
        torch.add(even, odd, alpha=point, out=out[place])
        torch.add(even, odd, alpha=-point, out=out[place + 1])


def _transform_output(products: Tensor, out: Sequence[Tensor] | Tensor) -> None:
    """Four pixels along a side from the six products: the sums of the products times 1, point, point^2, point^3."""
    evens = products[1] + products[2], products[3] + products[4]
    odds = (products[1] - products[2]).mul_(A), (products[3] - products[4]).mul_(B)
    torch.add(evens[0], evens[1], out=out[0]).add_(products[0])
    torch.add(odds[0], odds[1], out=out[1])
    torch.add(evens[0].mul_(A**2), evens[1], alpha=B**2, out=out[2])
    torch.add(products[5], odds[0], alpha=A**2, out=out[3]).add_(odds[1], alpha=B**2)


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
