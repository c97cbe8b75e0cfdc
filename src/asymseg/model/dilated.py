"""Dilated depthwise convolutions that train fast on a CPU."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.model.convolution import replace_convolutions


class DilatedDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that, in training on a CPU, computes the same values a faster way.

    With dilation d, pixels meet only pixels whose row and column leave the same remainder by d. Each of the d*d grids
    of such pixels can be convolved without dilation, as one image of a larger batch. PyTorch's CPU kernels have no
    fast backward pass for the dilated form. Elsewhere, and in evaluation, this is an ordinary convolution.
    """

    @classmethod
    def replace_in(cls, module: nn.Module) -> None:
        """Put one in the place of every convolution in `module` that it can stand for, with the same parameters."""
        replace_convolutions(module, cls, _fits)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        if not (self.training and torch.is_grad_enabled() and input.device.type == "cpu"):
            return super().forward(input)
        d = self.dilation[0]
        batch, _, height, width = input.shape
        # Zeros at the far border are what the padding would have put there.
        x = F.pad(input, (0, -width % d, 0, -height % d)).permute(0, 2, 3, 1)  # b h w c
        rows, columns, channels = x.shape[1] // d, x.shape[2] // d, x.shape[3]
        x = x.reshape(batch, rows, d, columns, d, channels).permute(0, 2, 4, 5, 1, 3)  # b d d c h/d w/d
        x = x.reshape(batch * d * d, channels, rows, columns).contiguous(memory_format=torch.channels_last)
        x = F.conv2d(x, self.weight, self.bias, padding=self.kernel_size[0] // 2, groups=self.groups)
        x = x.permute(0, 2, 3, 1).reshape(batch, d, d, rows, columns, self.out_channels)
        x = x.permute(0, 3, 1, 4, 2, 5).reshape(batch, rows * d, columns * d, self.out_channels)  # b h w c
        return x.permute(0, 3, 1, 2)[:, :, :height, :width]


def _fits(convolution: nn.Conv2d) -> bool:
    """Square and odd, stride 1, more than one grid, and padded so that the map keeps its size."""
    size, dilation, padding = convolution.kernel_size[0], convolution.dilation[0], convolution.padding[0]
    return (
        convolution.groups == convolution.in_channels > 1
        and convolution.kernel_size == (size, size)
        and size % 2 == 1
        and convolution.dilation == (dilation, dilation)
        and convolution.padding == (padding, padding)
        and convolution.stride == (1, 1)
        and convolution.padding_mode == "zeros"
        and dilation > 1
        and padding == dilation * (size // 2)
    )
