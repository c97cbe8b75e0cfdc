r"""A trained network's evaluation form: the same logits from less work.

Four identities, all exact (DESIGN of the blocks: `asymseg.blocks.attention`):

- In evaluation BatchNorm is one factor and one summand per channel, and goes into the convolution before it.
- AFNB ends in a linear map and the 3x3 convolution behind it begins with one, so their product is one convolution:
  $K * (s W_m [context; X] + t) = (K s W_x) * X + (K s W_c W_o) * (V A) + K * (s W_c b_o + t)$.
- The columns of the attention $A$ add up to 1 within the image and are 0 in the padding around it. So the last term,
  the answer of the kernel to a constant map with a zero border, is one more row of ones in $V$ with its own kernel.
- In APNB output, value and the context's half of merge are one linear map of the pooled tokens, and BatchNorm's summand
  rides on them for the same reason.
"""

import copy
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from asymseg.blocks import AFNB, APNB
from asymseg.blocks.attention import MaskReLU
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.batchnorm import affine, fold_batchnorm
from asymseg.model.convolution import is_watched
from asymseg.model.folded import FoldedANNNet, FoldedAttention, FoldedFusion
from asymseg.model.winograd import WinogradConv2d

_KNOWN = (nn.Sequential, nn.Conv2d, WinogradConv2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.ReLU, MaskReLU, nn.Identity)
"""What the parts that are multiplied out may consist of."""


@torch.no_grad()
def fold(network: ANNNet | FoldedANNNet) -> FoldedANNNet:
    """The evaluation form of a network: the same logits at every size, from about half the work in the head.

    It is a network of its own, that is saved, loaded and exported like any other; `network` stays as it was. Products
    of weights are made in float64 and kept in the network's own precision. Where AFNB is followed by PSPNet's pyramid,
    the two stay apart, and so do the non-local block's two linear maps, which have a softmax over pixels between them.
    """
    if isinstance(network, FoldedANNNet):
        return network
    if type(network) is not ANNNet:
        raise ConfigError(f"only an ANNNet itself can be folded; {type(network).__name__} may compute something else")
    parameter = next(network.parameters())
    net = copy.deepcopy(network).cpu().eval().requires_grad_(False)  # not every device has float64
    side = 64 + -64 % int(getattr(net.backbone, "size_multiple", 1))
    images = torch.zeros(1, _in_channels(net), side, side, dtype=parameter.dtype)
    fold_batchnorm(net, lambda: net(images))
    fusion: nn.Module | None = net.fusion
    project: nn.Module = _without_norm(net.project)
    context: nn.Module | None = net.context
    if net.fusion is not None and _is_affine(net.fusion):
        alone = net.pyramid is None and net.refine is None
        if alone and isinstance(net.project[1], nn.Identity) and _as_built(net.project):
            fusion, project = None, _fold_fusion(net.fusion, net.project)
        else:
            fusion = _fold_attention(net.fusion)
    if isinstance(net.context, APNB) and _is_affine(net.context):
        context = _fold_attention(net.context)
    folded = FoldedANNNet(net.settings, net.backbone, fusion, net.pyramid, project, context, net.refine, net.classifier)
    WinogradConv2d.replace_in(folded)
    for module in folded.modules():
        if isinstance(module, WinogradConv2d):
            module.predicting = True
    return folded.eval().requires_grad_(False).to(parameter.device)


def _in_channels(network: ANNNet) -> int:
    """Channels of the images; the setting says nothing of a backbone that was passed in, but its first kernel does."""
    if network.settings["backbone"] is not None:
        return int(network.settings["in_channels"])
    for module in network.backbone.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return int(network.settings["in_channels"])


def _is_affine(block: AFNB | APNB) -> bool:
    """Whether what the block makes of attention and input is, in evaluation, an affine map that is known."""
    if is_watched(block) or not all(_as_built(part) for part in (block.value, block.output, block.merge) if part):
        return False
    return block.merge is None or getattr(block.merge[1], "running_mean", None) is not None


def _as_built(part: nn.Module) -> bool:
    """Whether a part is made of what an ANNNet has, and not of what a user put there; nor do hooks change it."""
    return all(type(module) in _KNOWN and not is_watched(module) for module in part.modules())


def _fold_attention(block: AFNB | APNB) -> FoldedAttention:
    """W_c (W_o (W_v P + b_v) + b_o) as one linear map of the pooled tokens P, with BatchNorm in it."""
    value, output = _matrix(block.value), _matrix(block.output)
    tokens = output @ value
    constant = output @ _bias(block.value) + _bias(block.output)
    merge = None
    if block.merge is not None:
        summand, from_context, from_x = _parts(block.merge)
        tokens, constant = from_context @ tokens, from_context @ constant + summand
        merge = _convolution(from_x[:, :, None, None], None, block.value)
    return FoldedAttention(
        block.pool,
        _without_norm(block.query),
        _without_norm(block.key) if isinstance(block, AFNB) else None,
        _convolution(tokens[:, :, None, None], constant, block.value),
        merge,
        add=block.add,
        relu=isinstance(block, APNB) and block.merge is not None,
    )


def _fold_fusion(block: AFNB, project: nn.Sequential) -> FoldedFusion:
    """The 3x3 convolution `project` after the last linear maps of AFNB: K * W_x, K * W_c W_o and K * constant."""
    convolution = cast(nn.Conv2d, project[0])  # BatchNorm is in it already
    kernel = convolution.weight.double()  # o c 3 3
    output, constant = _matrix(block.output), _bias(block.output)
    from_x: Tensor | None = None
    if block.merge is not None:
        summand, from_context, from_x = _parts(block.merge)
        output, constant = from_context @ output, from_context @ constant + summand
    of_context = torch.cat([output, constant[:, None]], dim=1)
    bias = cast(Tensor, convolution.bias)
    of_high = kernel if block.add else None if from_x is None else _after(kernel, from_x)
    return FoldedFusion(
        block.pool,
        _without_norm(block.query),
        _without_norm(block.key),
        block.value,
        _convolution(_after(kernel, of_context), bias, block.value),
        None if of_high is None else _convolution(of_high, None, block.value),
    )


def _parts(merge: nn.Sequential) -> tuple[Tensor, Tensor, Tensor]:
    """Of BN(W_m [context; x]): its summand, and what it makes of the context and of x, as matrices."""
    factor, summand = affine(merge[1])
    matrix = factor[:, None] * _matrix(merge[0])
    channels = len(factor)
    return summand, matrix[:, :channels], matrix[:, channels:]


def _after(kernel: Float[Tensor, "o c 3 3"], matrix: Float[Tensor, "c d"]) -> Float[Tensor, "o d 3 3"]:
    """The kernel of a 3x3 convolution behind a linear map of the channels."""
    return torch.einsum("ocij,cd->odij", kernel, matrix)


def _matrix(convolution: nn.Module) -> Float[Tensor, "o c"]:
    """A 1x1 convolution as the matrix it is, in float64."""
    return cast(nn.Conv2d, convolution).weight.double().flatten(1)


def _bias(convolution: nn.Conv2d) -> Float[Tensor, " o"]:
    return cast(Tensor, convolution.bias).double()


def _convolution(kernel: Float[Tensor, "o c k k"], bias: Float[Tensor, " o"] | None, like: nn.Conv2d) -> nn.Conv2d:
    """A convolution that keeps the size of its input, with the precision and on the device of `like`."""
    out_channels, in_channels, size, _ = kernel.shape
    convolution: nn.Conv2d = skip_init(  # type: ignore[no-untyped-call]  # unlike nn.Conv2d, draws no random numbers
        nn.Conv2d,
        in_channels,
        out_channels,
        size,
        padding=size // 2,
        bias=bias is not None,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    convolution.weight.copy_(kernel)
    if bias is not None:
        cast(Tensor, convolution.bias).copy_(bias)
    return convolution


def _without_norm(layers: nn.Sequential) -> nn.Sequential:
    """The layers that are left once `fold_batchnorm` has put a BatchNorm into the convolution before it."""
    if is_watched(layers):
        return layers
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))
