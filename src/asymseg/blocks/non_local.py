"""The symmetric non-local block: every pixel looks at every pixel (Wang et al., CVPR 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.blocks.attention import (
    Merge,
    attention_weights,
    check_channels,
    merge_projection,
    output_projection,
    projection,
)


class NonLocalBlock(nn.Module):
    r"""Join a feature map with context from all its pixels: APNB without its sampling.

    $$\begin{aligned}
    query &= key = f_q(X), \qquad value = f_v(X) \\
    context &= f_o(value \cdot \mathrm{softmax}_N(key^\top query / \sqrt{K})) \\
    out &= \mathrm{ReLU}(\mathrm{BN}(W_m [context ; X]))
    \end{aligned}$$

    This is what the asymmetric blocks are measured against, so it is written as the equations stand, context map and
    concatenation included; its $N \times N$ weights take 4 GB for one image of 256 x 128 feature pixels. Queries and
    keys come from one module, as in APNB, so that sampling is the only difference. `merge` is APNB's.

    Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971, equations 1, 4 and 6; as the baseline of
    Zhu et al., ICCV 2019, arXiv 1908.07678, section 3.1 and figure 1. The first has a plain sum in place of the
    concatenation ("add") and no BatchNorm and ReLU in queries and keys.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        key_channels: int = 256,
        value_channels: int = 256,
        merge: Merge = "concat",
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        check_channels(
            merge,
            in_channels,
            in_channels=in_channels,
            out_channels=out_channels,
            key_channels=key_channels,
            value_channels=value_channels,
        )
        self.add = merge == "add"
        self.query = projection(in_channels, key_channels)
        self.value = nn.Conv2d(in_channels, value_channels, kernel_size=1)
        self.output = output_projection(value_channels, out_channels, merge)
        self.merge = merge_projection(in_channels, out_channels, merge, relu=True)

    def forward(
        self, x: Float[Tensor, "b c h w"], return_attention: bool = False
    ) -> Float[Tensor, "b o h w"] | tuple[Float[Tensor, "b o h w"], Float[Tensor, "b h*w h*w"]]:
        """The joined map, and with `return_attention` also how much each pixel takes from each pixel."""
        query = self.query(x)  # B K H W
        weights = attention_weights(query, query.flatten(2))  # B N N
        value = self.value(x)  # B V H W
        context = torch.bmm(value.flatten(2), weights.transpose(1, 2).to(value.dtype))
        context = self.output(context.reshape(*value.shape))  # B V N -> B V H W -> B O H W
        if self.merge is not None:
            out = self.merge(torch.cat([context, x], dim=1))
        else:
            out = x + context if self.add else context
        return (out, weights) if return_attention else out
