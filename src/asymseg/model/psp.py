"""The pyramid of PSPNet (Zhao et al., CVPR 2017), the older way to bring in the whole image; for comparison."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.blocks import PyramidPooling


class PyramidConcat(nn.Module):
    """A feature map joined by its averages on coarse grids: C -> C + len(pool_sizes) * channels.

    Each grid is projected by a 1x1 convolution, normalised, and resized to the map. PSPNet's own grids are
    1, 2, 3 and 6.
    """

    def __init__(self, in_channels: int, channels: int, pool_sizes: tuple[int, ...], align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = in_channels + len(pool_sizes) * channels
        self.pools = nn.ModuleList(PyramidPooling((size,)) for size in pool_sizes)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            for _ in pool_sizes
        )
        self.pool_sizes = pool_sizes

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        maps = [x]
        for size, pool, project in zip(self.pool_sizes, self.pools, self.projections, strict=True):
            grid = pool(x).unflatten(2, (size, size))  # b c s*s -> b c s s
            if self.training and grid.shape[0] * size * size == 1:
                # BatchNorm refuses a single value per channel; the same value twice has the same statistics.
                grid = project(grid.repeat(2, 1, 1, 1))[:1]
            else:
                grid = project(grid)
            maps.append(F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=self.align_corners))
        return torch.cat(maps, dim=1)
