r"""The rivals: the paper's equations in the plain way, on the weights of our own modules.

plain_apnb, plain_afnb     as the ANN authors' code computes them: keys and queries each projected, values and keys
                           pooled after their projection, the context a map, a concatenation before the merge
plain_head, plain_network  ANNNet made of these
plain_backbone             a backbone of torch's own convolutions
plain_non_local            the symmetric block as two matrix products with its $N \times N$ weights between them
fused_non_local            the same through torch's own attention, which never holds those weights

Zhu et al., ICCV 2019, arXiv 1908.07678, sections 3.1 to 3.3, and the code published with it. They are there to be
measured against, and so are as fast as their form allows: nothing is computed twice but what the form says.
"""

import copy
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.blocks import AFNB, APNB
from asymseg.model.annnet import ANNNet, pad_for, upsample
from asymseg.model.dilated import DilatedDepthwiseConv2d
from asymseg.model.winograd import WinogradConv2d


def plain_apnb(block: APNB, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
    """What `block` gives, the plain way."""
    value = _pyramid(block.value(x), block.pool.pool_sizes)  # B V S
    query = _layers(block.query, x)
    key = _pyramid(_layers(block.query, x), block.pool.pool_sizes)  # B K S
    return _merge(block, _attend(query, key, value), x)


def plain_afnb(block: AFNB, low: Float[Tensor, "b c i j"], high: Float[Tensor, "b d h w"]) -> Float[Tensor, "b o h w"]:
    """What `block` gives, the plain way."""
    value = _pyramid(block.value(low), block.pool.pool_sizes)  # B V S
    query = _layers(block.query, high)
    key = _pyramid(_layers(block.key, low), block.pool.pool_sizes)  # B K S
    return _merge(block, _attend(query, key, value), high)


def plain_non_local(block: APNB, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
    """The symmetric block on the weights of an asymmetric one; queries and keys are the same map."""
    query = _layers(block.query, x)
    value = block.value(x).flatten(2)  # B V N
    return _merge(block, _attend(query, query.flatten(2), value), x)


def fused_non_local(block: APNB, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
    """What `plain_non_local` gives, by `scaled_dot_product_attention`."""
    query, value = _layers(block.query, x), block.value(x)
    query = query.flatten(2).transpose(1, 2)[:, None].contiguous()  # B 1 N K, as its fast kernels want it
    value = value.flatten(2).transpose(1, 2)[:, None].contiguous()  # B 1 N V
    context = F.scaled_dot_product_attention(query, query, value)[:, 0]  # B N V
    return _merge(block, context.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:]), x)


def plain_head(
    network: ANNNet, low: Float[Tensor, "b l hl wl"], high: Float[Tensor, "b g h w"]
) -> Float[Tensor, "b n h w"]:
    """What `network.head` gives, the plain way; the network is an ANNNet with both its blocks."""
    fusion, context = cast(AFNB, network.fusion), cast(APNB, network.context)
    x = network.dropout(plain_afnb(fusion, low, high))
    x = network.dropout(plain_apnb(context, _layers(network.project, x)))
    return cast(Tensor, network.classifier(x))


def plain_network(network: ANNNet, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n h w"]:
    """What `network` gives, the plain way."""
    padded = pad_for(network.backbone, images)
    low, high = network.backbone(padded)
    return upsample(plain_head(network, low, high), padded, images, network.align_corners)


def plain_backbone(backbone: nn.Module) -> nn.Module:
    """A copy with torch's own convolutions where asymseg has put others of its own."""
    twin = copy.deepcopy(backbone)
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DilatedDepthwiseConv2d | WinogradConv2d):
                setattr(parent, name, _convolution(child))
    return twin.train(backbone.training)


def _convolution(other: nn.Conv2d) -> nn.Conv2d:
    twin = nn.Conv2d(
        other.in_channels,
        other.out_channels,
        other.kernel_size,  # type: ignore[arg-type]
        padding=other.padding,  # type: ignore[arg-type]
        dilation=other.dilation,  # type: ignore[arg-type]
        groups=other.groups,
        bias=other.bias is not None,
        device="meta",
    )
    twin.weight, twin.bias = other.weight, other.bias
    return twin


def _pyramid(x: Tensor, pool_sizes: tuple[int, ...]) -> Tensor:
    """B C H W -> B C S."""
    return torch.cat([F.adaptive_avg_pool2d(x, size).flatten(2) for size in pool_sizes], dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The context as a map: query B K H W, key B K S, value B V S -> B V H W."""
    scores = torch.matmul(query.flatten(2).transpose(1, 2), key)  # B N S
    scores = query.shape[1] ** -0.5 * scores
    weights = scores.softmax(dim=2)
    context = torch.matmul(weights, value.transpose(1, 2))  # B N V
    return context.transpose(1, 2).reshape(query.shape[0], -1, *query.shape[2:])


def _merge(block: APNB | AFNB, context: Tensor, x: Tensor) -> Tensor:
    context = block.output(context)
    if block.merge is None:
        return x + context if block.add else context
    return _layers(block.merge, torch.cat([context, x], dim=1))


def _layers(layers: nn.Sequential, x: Tensor) -> Tensor:
    """What `layers` give by torch's own convolution and ReLU, where ours have faster ones."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, layer.weight, layer.bias, padding=cast(tuple[int, int], layer.padding))
        elif isinstance(layer, nn.ReLU):
            x = F.relu(x, inplace=layer.inplace)
        else:
            x = layer(x)
    return x
