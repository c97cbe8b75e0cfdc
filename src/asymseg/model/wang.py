"""The non-local block as its authors wrote it (Wang et al., CVPR 2018), which mmsegmentation's `nonlocal_net` has."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class WangNonLocalBlock(nn.Module):
    r"""Add context from all pixels to a feature map.

    $$out = X + \mathrm{BN}(W_o \, value \cdot \mathrm{softmax}_N(key^\top query / \sqrt{K}))$$

    with query, key and value each a 1x1 convolution of its own with a bias, and nothing else. The other block here,
    `asymseg.blocks.NonLocalBlock`, is the baseline of Zhu et al. instead. BN's weight starts at zero.

    Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, equations 1, 4 (embedded Gaussian) and 6,
    and section 4.1 for BN; the scale as in mmcv's `NonLocal2d` with `use_scale`.

    | here | paper and mmcv |
    | --- | --- |
    | query, key, value, output | theta, phi, g, W_z (conv_out) |
    """

    def __init__(self, channels: int, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, value_channels, 1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.output = nn.Sequential(nn.Conv2d(value_channels, channels, 1, bias=False), norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.query, self.key, self.value)
        )  # B 1 N K
        context = F.scaled_dot_product_attention(query, key, value)  # its own scale is 1 / sqrt(K)
        context = context.squeeze(1).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])  # B V H W
        return x + cast(Tensor, self.output(context))
