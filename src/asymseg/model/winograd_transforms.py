"""The linear maps of Winograd's F(4x4, 3x3): of kernels, of input, of products and of gradients."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TILE = 4
"""Output pixels of a tile, per side; it takes TILE + 2 input pixels."""
TAPS = TILE + 2

# The points at which the polynomials are evaluated are 0, A, -A, B, -B and infinity. Multiples of 3/4 keep the
# largest error of float32 near 2.5e-6 of the largest result, where the textbook's 1 and 2 give 1e-5.
A, B = 0.75, 1.5


def transform_kernel(weight: Float[Tensor, "d c 3 3"]) -> Float[Tensor, "36 c d"]:
    """A kernel as it is multiplied: its values at all pairs of a row's and a column's point."""
    taps = weight.detach().permute(2, 3, 1, 0)  # 3 3 c d
    kernel = evaluation(weight.dtype) @ taps.reshape(9, -1)
    return kernel.reshape(-1, *taps.shape[2:])


def evaluation(dtype: torch.dtype) -> Float[Tensor, "36 9"]:
    """From 3x3 taps to the points: their polynomial there, over the product that Lagrange divides by."""
    points = torch.tensor((0, A, -A, B, -B), dtype=torch.float64)
    differences = (points[:, None] - points).fill_diagonal_(1)
    at_points = points[:, None] ** torch.arange(3) / differences.prod(dim=1, keepdim=True)
    at_infinity = torch.tensor([[0, 0, 1]], dtype=torch.float64)
    one_side = torch.cat([at_points, at_infinity])  # 6 3
    return torch.kron(one_side, one_side).to(dtype)


def transform_input(taps: Sequence[Tensor], out: Tensor) -> None:
    """Six neighbours along a side, recombined so that products with the kernel's values at the points add up."""
    torch.add(taps[4], taps[2], alpha=-(A**2 + B**2), out=out[0]).add_(taps[0], alpha=(A * B) ** 2)
    torch.add(taps[5], taps[3], alpha=-(A**2 + B**2), out=out[5]).add_(taps[1], alpha=(A * B) ** 2)
    for point, other, place in ((A, B, 1), (B, A, 3)):
        even = torch.add(taps[4], taps[2], alpha=-(other**2))
        odd = torch.add(taps[3], taps[1], alpha=-(other**2))
        torch.add(even, odd, alpha=point, out=out[place])
        torch.add(even, odd, alpha=-point, out=out[place + 1])


def transform_output(products: Tensor, out: Sequence[Tensor] | Tensor) -> None:
    """Four pixels along a side from the six products: the sums of the products times 1, point, point^2, point^3."""
    evens = products[1] + products[2], products[3] + products[4]
    odds = (products[1] - products[2]).mul_(A), (products[3] - products[4]).mul_(B)
    torch.add(evens[0], evens[1], out=out[0]).add_(products[0])
    torch.add(odds[0], odds[1], out=out[1])
    torch.add(evens[0].mul_(A**2), evens[1], alpha=B**2, out=out[2])
    torch.add(products[5], odds[0], alpha=A**2, out=out[3]).add_(odds[1], alpha=B**2)


def transform_gradient(pixels: Sequence[Tensor], out: Tensor) -> None:
    """Six values along a side from the gradients of four pixels: the transpose of `transform_output`."""
    out[0], out[5] = pixels[0], pixels[3]
    for point, place in ((A, 1), (B, 3)):
        even = torch.add(pixels[0], pixels[2], alpha=point**2)
        odd = torch.add(pixels[1], pixels[3], alpha=point**2).mul_(point)
        torch.add(even, odd, out=out[place])
        torch.sub(even, odd, out=out[place + 1])
