"""Asymmetric pyramid non-local block: every pixel looks at the pyramid's tokens (Zhu et al., ICCV 2019)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from asymseg.blocks.attention import (
    Merge,
    attention_weights,
    check_channels,
    join,
    merge_projection,
    on_tokens,
    output_projection,
    projection,
)
from asymseg.blocks.pyramid_pooling import PyramidPooling


class APNB(nn.Module):
    r"""Join a feature map with context from the whole of it.

    With $P$ the `PyramidPooling` to $S$ tokens and $N = HW$ pixels,

    $$\begin{aligned}
    query &= f_q(X), \qquad key = P(f_q(X)), \qquad value = P(f_v(X)) \\
    context &= f_o(value \cdot \mathrm{softmax}_S(key^\top query / \sqrt{K})) \\
    out &= \mathrm{ReLU}(\mathrm{BN}(W_m [context ; X]))
    \end{aligned}$$

    which costs $N S$ products of queries and keys instead of the non-local block's $N^2$. `merge` says how context
    and input are joined: "concat" as above and in the paper; "add" gives $X + context$, the original non-local block's
    residual; "none" gives the context alone. $f_o$ starts at zero, except for "none", where that would leave the
    network with constant outputs and next to no gradient.

    Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019, arXiv 1908.07678,
    section 3.2, figure 1.

    | here | paper | authors' code |
    | --- | --- | --- |
    | query, $f_q$; its pooling gives the keys | $W_\phi$, $W_\theta$ | f_query, f_key (one module) |
    | value, $f_v$ | $W_\gamma$ | f_value |
    | output, $f_o$ | $W_O$ | W |
    | merge, $W_m$ | concatenation and 1x1 convolution | conv_bn_dropout |
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        key_channels: int = 256,
        value_channels: int = 256,
        pool_sizes: Sequence[int] = (1, 3, 6, 8),
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
        self.pool = PyramidPooling(pool_sizes)
        self.query = projection(in_channels, key_channels)
        self.value = nn.Conv2d(in_channels, value_channels, kernel_size=1)
        self.output = output_projection(value_channels, out_channels, merge)
        self.merge = merge_projection(in_channels, out_channels, merge, relu=True)

    def forward(
        self, x: Float[Tensor, "b c h w"], return_attention: bool = False
    ) -> Float[Tensor, "b o h w"] | tuple[Float[Tensor, "b o h w"], Float[Tensor, "b h*w s"]]:
        """The joined map, and with `return_attention` also how much each pixel takes from each token."""
        query = self.query(x)  # B K H W
        weights = attention_weights(query, self.pool(query))  # B N S
        del query  # in prediction its memory is free from here on
        out = self._joined(x, weights, self.pool(x))
        return (out, weights) if return_attention else out

    def to_pool(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b c h w"]]:
        """The two maps that matter as tokens: their pools are the keys, and what values are made of."""
        return self.query(x), x

    def from_tokens(
        self, x: Float[Tensor, "b c h w"], key: Float[Tensor, "b k s"], pooled: Float[Tensor, "b c s"]
    ) -> Float[Tensor, "b o h w"]:
        """The joined map from the pools of `to_pool`'s maps; `x` may be any part of the map that they come from."""
        return self._joined(x, self.attention(x, key), pooled)

    def attention(self, x: Float[Tensor, "b c h w"], key: Float[Tensor, "b k s"]) -> Float[Tensor, "b h*w s"]:
        """How much each pixel takes from each token."""
        return attention_weights(self.query(x), key)

    def _joined(
        self, x: Float[Tensor, "b c h w"], weights: Float[Tensor, "b h*w s"], pooled: Float[Tensor, "b c s"]
    ) -> Float[Tensor, "b o h w"]:
        tokens = on_tokens(self.output, on_tokens(self.value, pooled))  # B O S
        return join(x, tokens, weights, self.merge, add=self.add)
