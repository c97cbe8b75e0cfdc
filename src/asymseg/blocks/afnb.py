"""Asymmetric fusion non-local block: a deep map looks at a shallower one's tokens (Zhu et al., ICCV 2019)."""

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


class AFNB(nn.Module):
    r"""Join a deep feature map with context from a shallower one.

    With $P$ the `PyramidPooling` to $S$ tokens and $N$ pixels in the deep map,

    $$\begin{aligned}
    query &= f_q(X_{high}), \qquad key = P(f_k(X_{low})), \qquad value = P(f_v(X_{low})) \\
    context &= f_o(value \cdot \mathrm{softmax}_S(key^\top query / \sqrt{K})) \\
    out &= \mathrm{BN}(W_m [context ; X_{high}])
    \end{aligned}$$

    The result has the deep map's height and width. The two maps may differ in size: the tokens do not care. `merge`
    says how context and deep map are joined: "concat" as above and in the paper; "add" gives $X_{high} + context$;
    "none" gives the context alone. $f_o$ starts at zero, except for "none", where that would leave the network with
    constant outputs and next to no gradient.

    Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019, arXiv 1908.07678,
    section 3.3.

    | here | paper | authors' code |
    | --- | --- | --- |
    | low, high | $X_l$, $X_h$; stage 4, stage 5 | low_feats, high_feats |
    | query, $f_q$ | $W_\phi$ | f_query |
    | key, $f_k$ | $W_\theta$ | f_key |
    | value, $f_v$ | $W_\gamma$ | f_value |
    | output, $f_o$ | $W_O$ | W |
    | merge, $W_m$ | concatenation and 1x1 convolution | conv_bn_dropout |
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        out_channels: int | None = None,
        key_channels: int = 256,
        value_channels: int = 256,
        pool_sizes: Sequence[int] = (1, 3, 6, 8),
        merge: Merge = "concat",
    ) -> None:
        super().__init__()
        out_channels = high_channels if out_channels is None else out_channels
        check_channels(
            merge,
            high_channels,
            low_channels=low_channels,
            high_channels=high_channels,
            out_channels=out_channels,
            key_channels=key_channels,
            value_channels=value_channels,
        )
        self.add = merge == "add"
        self.pool = PyramidPooling(pool_sizes)
        self.query = projection(high_channels, key_channels)
        self.key = projection(low_channels, key_channels, pooled_only=True)
        self.value = nn.Conv2d(low_channels, value_channels, kernel_size=1)
        self.output = output_projection(value_channels, out_channels, merge)
        self.merge = merge_projection(high_channels, out_channels, merge, relu=False)

    def forward(
        self, low: Float[Tensor, "b c i j"], high: Float[Tensor, "b d h w"], return_attention: bool = False
    ) -> Float[Tensor, "b o h w"] | tuple[Float[Tensor, "b o h w"], Float[Tensor, "b h*w s"]]:
        """The joined map, and with `return_attention` also how much each pixel takes from each token."""
        key, pooled = (self.pool(x) for x in self.to_pool(low))
        weights = self.attention(high, key)  # B N S
        out = self._joined(high, weights, pooled)
        return (out, weights) if return_attention else out

    def to_pool(self, low: Float[Tensor, "b c i j"]) -> tuple[Float[Tensor, "b k i j"], Float[Tensor, "b c i j"]]:
        """The two maps that matter only as tokens: their pools are the keys, and what values are made of."""
        return self.key(low), low

    def from_tokens(
        self, high: Float[Tensor, "b d h w"], key: Float[Tensor, "b k s"], pooled: Float[Tensor, "b c s"]
    ) -> Float[Tensor, "b o h w"]:
        """The joined map from the pools of `to_pool`'s maps; `high` may be any part of the deep map."""
        return self._joined(high, self.attention(high, key), pooled)

    def attention(self, high: Float[Tensor, "b d h w"], key: Float[Tensor, "b k s"]) -> Float[Tensor, "b h*w s"]:
        """How much each pixel takes from each token."""
        return attention_weights(self.query(high), key)

    def _joined(
        self, high: Float[Tensor, "b d h w"], weights: Float[Tensor, "b h*w s"], pooled: Float[Tensor, "b c s"]
    ) -> Float[Tensor, "b o h w"]:
        tokens = on_tokens(self.output, on_tokens(self.value, pooled))  # B O S
        return join(high, tokens, weights, self.merge, add=self.add)
