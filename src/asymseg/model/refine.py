"""Two more 3x3 convolutions before the classifier, as mmsegmentation's FCN and non-local networks have them."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.model.winograd import WinogradConv2d


class Refine(nn.Module):
    """Convolve features, join them with the map of the backbone that they came from, and convolve both.

    `second` and `joined` are `convs.1` and `conv_cat` of mmsegmentation's FCNHead and NLHead.
    """

    def __init__(self, high_channels: int, channels: int) -> None:
        super().__init__()
        self.second = conv_bn_relu(channels, channels)
        self.joined = conv_bn_relu(high_channels + channels, channels)

    def forward(self, high: Float[Tensor, "b d h w"], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return cast(Tensor, self.joined(torch.cat([high, self.second(x)], dim=1)))


def conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution, BatchNorm and ReLU."""
    return nn.Sequential(
        WinogradConv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )
