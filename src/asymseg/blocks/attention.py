r"""What the blocks share: asymmetric attention of $N$ pixels to $S$ tokens, and joining its context with a map.

    weights = softmax_S(query^T key / sqrt(K))     attention_weights    B N S, each row sums to 1
    tokens  = W_o (W_v P(X) + b_v) + b_o           on_tokens, twice     B O S
    context = tokens weights^T                     within join          B O N

Convolutions of size 1 commute with averaging over pixels, so value, output and the context's half of merge act on $S$
tokens instead of $N$ pixels. In exact arithmetic this is the paper's block, in training and evaluation alike.
"""

from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from asymseg.errors import ConfigError

Merge = Literal["concat", "add", "none"]


def projection(in_channels: int, out_channels: int, *, pooled_only: bool = False) -> nn.Sequential:
    """The 1x1 convolution, BatchNorm and ReLU that make queries and keys; `pooled_only` for keys alone."""
    return nn.Sequential(
        PointwiseConv2d(in_channels, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
        MaskReLU(inplace=True) if pooled_only else nn.ReLU(inplace=True),
    )


def output_projection(value_channels: int, out_channels: int, merge: Merge) -> nn.Conv2d:
    """The 1x1 convolution from values to context.

    It starts at zero, so that a fresh block leaves its input alone. With "none" the context is all that the block
    gives, and zeros would cut off what lies before it; then it starts like any other convolution.
    """
    output = nn.Conv2d(value_channels, out_channels, kernel_size=1)
    if merge != "none":
        nn.init.zeros_(output.weight)
        nn.init.zeros_(cast(Tensor, output.bias))
    return output


def merge_projection(in_channels: int, out_channels: int, merge: Merge, *, relu: bool) -> nn.Sequential | None:
    """The 1x1 convolution, BatchNorm and, with `relu`, ReLU over [context; x]; only "concat" has one."""
    if merge != "concat":
        return None
    layers: list[nn.Module] = [
        nn.Conv2d(out_channels + in_channels, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, MaskReLU(inplace=True)) if relu else nn.Sequential(*layers)


class MaskReLU(nn.ReLU):
    """A ReLU that, for its backward pass, keeps a byte for each number and not four.

    It pays where nothing else keeps the result: before dropout or an average.
    """

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(input)
        return torch.where(input <= 0, 0.0, input)  # of which autograd keeps the condition alone


def attention_weights(query: Float[Tensor, "b k h w"], key: Float[Tensor, "b k s"]) -> Float[Tensor, "b h*w s"]:
    r"""How much each pixel takes from each token: $\mathrm{softmax}_S(query^\top key / \sqrt{K})$."""
    key = key * query.shape[1] ** -0.5  # scale the few tokens, not the many scores
    scores = torch.bmm(query.flatten(2).transpose(1, 2), key)  # B N K times B K S
    return scores.softmax(dim=2)


def on_tokens(convolution: nn.Conv2d, tokens: Float[Tensor, "b c s"]) -> Float[Tensor, "b o s"]:
    """A 1x1 convolution of tokens, which it sees as a map that is one pixel wide."""
    return cast(Tensor, convolution(tokens.unsqueeze(3))).squeeze(3)


def join(
    x: Float[Tensor, "b c h w"],
    tokens: Float[Tensor, "b o s"],
    weights: Float[Tensor, "b n s"],
    merge: nn.Sequential | None,
    *,
    add: bool,
) -> Float[Tensor, "b o h w"]:
    """Spread `tokens` over the pixels and join them with the map, without the context map ever existing.

    With `merge` = [W_c; W_x] and what follows it, for "concat": follow((W_c tokens) weights^T + W_x x). Without it,
    x + tokens weights^T where `add` says so, else tokens weights^T.
    """
    height, width = x.shape[2:]
    weights = weights.to(tokens.dtype).transpose(1, 2)  # autocast gives softmax in float32; B S N
    if merge is None:
        spread = torch.baddbmm(x.flatten(2), tokens, weights) if add else torch.bmm(tokens, weights)  # B O N
        return spread.reshape(-1, tokens.shape[1], height, width)
    convolution, *follow = merge
    kernel = cast(nn.Conv2d, convolution).weight
    channels = tokens.shape[1]
    tokens = pointwise(tokens.unsqueeze(3), kernel[:, :channels]).squeeze(3)  # W_c
    out = pointwise(x, kernel[:, channels:])  # W_x; B O H W
    # The sum goes into the convolution's own result: no second map, and the memory layout stays.
    out = out.flatten(2).baddbmm_(tokens, weights).reshape(out.shape)
    norm, *activation = follow
    out = _normalise(norm, out)
    for layer in activation:
        out = layer(out)
    return out


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution, computed by `pointwise`."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        return pointwise(input, self.weight, self.bias)


def pointwise(
    x: Float[Tensor, "b c h w"], kernel: Float[Tensor, "o c 1 1"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "b o h w"]:
    """A 1x1 convolution. Predicting on a CPU, a matrix product is its fastest form where rows lie one by one."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling() or not x.is_contiguous():
        return F.conv2d(x, kernel, bias)
    out = torch.bmm(kernel.flatten(1).expand(len(x), -1, -1), x.flatten(2))  # B O C times B C N
    out = out.reshape(len(x), len(kernel), *x.shape[2:])
    return out if bias is None else out.add_(bias[:, None, None])


def _normalise(norm: nn.Module, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The norm of `x`; in prediction BatchNorm overwrites it, so that no second map is made."""
    if type(norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm) or norm._forward_hooks or norm._forward_pre_hooks:
        return norm(x)  # type: ignore[no-any-return]
    norm = cast(_BatchNorm, norm)
    if norm.training or torch.is_grad_enabled() or norm.weight is None:
        return norm(x)  # type: ignore[no-any-return]
    if norm.running_mean is None or norm.running_mean.dtype != x.dtype:
        return norm(x)  # type: ignore[no-any-return]
    factor = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps) * norm.weight
    summand = norm.bias - norm.running_mean * factor
    return torch.addcmul(summand[:, None, None], x, factor[:, None, None], out=x)


def check_channels(merge: Merge, x_channels: int, **channels: int) -> None:
    """Raise ConfigError for a channel count below 1, an unknown merge, or a sum of maps that differ in channels."""
    for name, count in channels.items():
        if count < 1:
            raise ConfigError(f"{name} must be at least 1, not {count}")
    if merge not in ("concat", "add", "none"):
        raise ConfigError(f'merge must be "concat", "add" or "none", not {merge!r}')
    if merge == "add" and channels["out_channels"] != x_channels:
        raise ConfigError(
            f'merge "add" needs as many channels out as in: out_channels is {channels["out_channels"]}, the input '
            f'has {x_channels}; make them equal or use "concat"'
        )
