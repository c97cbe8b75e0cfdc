"""Spatial pyramid pooling: a few tokens that stand for a whole feature map (Zhu et al., ICCV 2019)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import SymInt, Tensor, nn

from asymseg.errors import ConfigError


class PyramidPooling(nn.Module):
    r"""Average a feature map over several grids and return the cells as tokens.

    For each $s$ in `pool_sizes` the map is averaged over $s \times s$ cells. That gives $S = \sum_s s^2$ tokens, 110
    for the paper's (1, 3, 6, 8), however large the map is: coarse grids first, the cells of a grid row by row.

    Cell $i$ of $s$ spans pixels $\lfloor i n / s \rfloor$ to $\lceil (i + 1) n / s \rceil$ of $n$, as in
    `torch.nn.functional.adaptive_avg_pool2d`, to which the result is equal. It is computed as two matrix products,

    $$P_s(X) = R_s X C_s^\top, \qquad R_s \in \mathbb{R}^{s \times H}, \quad C_s \in \mathbb{R}^{s \times W},$$

    whose rows sum to 1. The $R_s$ are stacked, so the map is read once for all grids; and an exported graph keeps its
    110 tokens at every size, which the graph of an adaptive pooling does not.

    Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019, arXiv 1908.07678,
    section 3.2.

    | here | paper | authors' code |
    | --- | --- | --- |
    | PyramidPooling | spatial pyramid pooling, sampling $P_\theta$, $P_\gamma$ | PSPModule |
    | pool_sizes | $n$ | psp_size, sizes |
    | num_tokens | $S$ | |
    """

    grid: Tensor

    def __init__(self, pool_sizes: Sequence[int] = (1, 3, 6, 8)) -> None:
        super().__init__()
        self.pool_sizes = _checked(pool_sizes)
        self.num_tokens = sum(size**2 for size in self.pool_sizes)
        # Two rows: the number of a cell within its grid, and the size of that grid. A buffer, so that it is on the
        # device already; not saved, since pool_sizes says it all.
        cells = [(cell, size) for size in self.pool_sizes for cell in range(size)]
        self.register_buffer("grid", torch.tensor(cells).T.contiguous(), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c {self.num_tokens}"]:
        if _autocasting(x):
            # Autocast would round both products to half precision; an average of many pixels deserves better.
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x)
        height, width = x.shape[2:]
        precise = torch.promote_types(x.dtype, torch.float32)
        return self._tokens(x, self._averages(height, precise), self._averages(width, precise)).to(x.dtype)

    def part(
        self, x: Float[Tensor, "b c h w"], size: tuple[int, int], corner: tuple[int, int]
    ) -> Float[Tensor, "b c {self.num_tokens}"]:
        """What a part of a map adds to the tokens of the whole: parts that tile a map add up to its tokens.

        `size` is the whole map's height and width, `corner` the row and column in it at which the part begins. In
        float32 at least, for there may be many parts.
        """
        if _autocasting(x):
            with torch.autocast(x.device.type, enabled=False):
                return self.part(x, size, corner)
        precise = torch.promote_types(x.dtype, torch.float32)
        rows, columns = (
            self._averages(whole, precise)[:, first : first + length]
            for whole, first, length in zip(size, corner, x.shape[2:], strict=True)
        )
        return self._tokens(x, rows, columns)

    def cells(self, size: tuple[int, int]) -> list[tuple[slice, slice]]:
        """Rows and columns that each token averages, of a map of that height and width."""
        sides = [[_spans(length, s) for length in size] for s in self.pool_sizes]
        return [(row, column) for rows, columns in sides for row in rows for column in columns]

    def _tokens(
        self, x: Float[Tensor, "b c h w"], rows: Float[Tensor, "r h"], columns: Float[Tensor, "r w"]
    ) -> Float[Tensor, "b c {self.num_tokens}"]:
        """The tokens by the averages over rows and columns, in the precision of these."""
        sizes = list(self.pool_sizes)
        bands = _bands(rows, x.to(rows.dtype))  # B C sum(s) W
        levels = [
            torch.matmul(band, column.T).flatten(2)  # B C s W times W s -> B C s*s
            for band, column in zip(torch.split(bands, sizes, dim=2), torch.split(columns, sizes), strict=True)
        ]
        return torch.cat(levels, dim=2)

    def _averages(self, length: int | SymInt, dtype: torch.dtype) -> Float[Tensor, "cells length"]:
        """Rows that average `length` pixels over the cells of every grid. Integers decide, so no rounding can."""
        cell, size = self.grid[:, :, None]
        pixel = torch.arange(length, device=self.grid.device)
        inside = ((pixel + 1) * size > cell * length) & (pixel * size < (cell + 1) * length)
        weights = inside.to(dtype)
        averages: Tensor = weights / weights.sum(dim=1, keepdim=True)
        return averages

    def extra_repr(self) -> str:
        return f"pool_sizes={self.pool_sizes}"


def _bands(rows: Float[Tensor, "r h"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c r w"]:
    """The map averaged over rows, `rows` times x, in the order in which x lies in memory, so that none is copied."""
    if x.stride(1) != 1:
        return torch.matmul(rows, x)
    channels, _, width = x.shape[1:]
    last = torch.matmul(rows, x.permute(0, 2, 3, 1).flatten(2))  # channels_last: B H W*C -> B sum(s) W*C
    return last.reshape(-1, rows.shape[0], width, channels).permute(0, 3, 1, 2)


def _autocasting(x: Tensor) -> bool:
    return torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type)


def _spans(length: int, size: int) -> list[slice]:
    """The cells of a side: from floor(i n / s) to ceil((i + 1) n / s)."""
    return [slice(cell * length // size, -(-(cell + 1) * length // size)) for cell in range(size)]


def _checked(pool_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(pool_sizes)
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ConfigError(f"pool_sizes must be one or more whole numbers above 0, such as (1, 3, 6, 8), not {sizes}")
    return sizes
