"""Checkpoints of the three dialects with made-up weights, built from the published tables of keys and shapes.

Nothing here is shared with the importer. Every function gives {key: shape}; `filled` makes tensors of them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Size:
    """How large a network is; the defaults are small, `PUBLISHED_50` and `PUBLISHED_101` as published."""

    blocks: tuple[int, ...] = (1, 2, 2, 3)
    width: int = 4
    stem: int = 3
    key: int = 5
    value: int = 6
    context: int = 7
    aux: int = 8
    classes: int = 4

    @property
    def low(self) -> int:
        return 16 * self.width

    @property
    def high(self) -> int:
        return 32 * self.width


SMALL = Size()
PUBLISHED = {"width": 64, "key": 256, "value": 256, "context": 512, "classes": 19}
AUTHORS_101 = Size((3, 4, 23, 3), stem=64, aux=512, **PUBLISHED)
MMSEG_50 = Size((3, 4, 6, 3), stem=32, aux=256, **PUBLISHED)
MMSEG_101 = Size((3, 4, 23, 3), stem=32, aux=256, **PUBLISHED)
PADDLE_50 = Size((3, 4, 6, 3), stem=32, aux=512, **PUBLISHED)

Shapes = dict[str, tuple[int, ...]]


def norm(key: str, channels: int) -> Shapes:
    return {f"{key}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")} | {
        f"{key}.num_batches_tracked": ()
    }


def paddle_norm(key: str, channels: int) -> Shapes:
    return {f"{key}.{leaf}": (channels,) for leaf in ("weight", "bias", "_mean", "_variance")}


def conv(key: str, out: int, into: int, kernel: int = 1, *, bias: bool = False) -> Shapes:
    return {f"{key}.weight": (out, into, kernel, kernel)} | ({f"{key}.bias": (out,)} if bias else {})


def torch_stages(size: Size, into: int, *, shortcut: int = 0) -> Shapes:
    """layer1 to layer4 as the authors and mmsegmentation name them; `shortcut` is the convolution's place in it."""
    shapes = {}
    for stage, count in enumerate(size.blocks, start=1):
        inner = size.width * 2 ** (stage - 1)
        for block in range(count):
            place = f"backbone.layer{stage}.{block}"
            shapes |= conv(f"{place}.conv1", inner, into) | norm(f"{place}.bn1", inner)
            shapes |= conv(f"{place}.conv2", inner, inner, 3) | norm(f"{place}.bn2", inner)
            shapes |= conv(f"{place}.conv3", 4 * inner, inner) | norm(f"{place}.bn3", 4 * inner)
            if block == 0:
                shapes |= conv(f"{place}.downsample.{shortcut}", 4 * inner, into)
                shapes |= norm(f"{place}.downsample.{shortcut + 1}", 4 * inner)
            into = 4 * inner
    return shapes


def authors(size: Size = SMALL) -> Shapes:
    w, low, high = size.stem, size.low, size.high
    shapes = conv("backbone.prefix.conv1", w, 3, 3) | norm("backbone.prefix.bn1", w)
    shapes |= conv("backbone.prefix.conv2", w, w, 3) | norm("backbone.prefix.bn2", w)
    shapes |= conv("backbone.prefix.conv3", 2 * w, w, 3) | norm("backbone.prefix.bn3", 2 * w)
    shapes |= torch_stages(size, 2 * w)

    def attention(key: str, low: int, high: int) -> Shapes:
        stage = f"{key}.stages.0"
        shapes = conv(f"{stage}.f_key.0", size.key, low, bias=True) | norm(f"{stage}.f_key.1.0", size.key)
        shapes |= conv(f"{stage}.f_query.0", size.key, high, bias=True) | norm(f"{stage}.f_query.1.0", size.key)
        shapes |= conv(f"{stage}.f_value", size.value, low, bias=True)
        return shapes | conv(f"{stage}.W", high, size.value, bias=True)

    shapes |= attention("fusion", low, high)
    shapes |= conv("fusion.conv_bn_dropout.0", high, 2 * high, bias=True) | norm("fusion.conv_bn_dropout.1", high)
    shapes |= conv("context.0", size.context, high, 3, bias=True) | norm("context.1.0", size.context)
    shapes |= attention("context.2", size.context, size.context)
    shapes |= conv("context.2.conv_bn_dropout.0", size.context, 2 * size.context, bias=True)
    shapes |= norm("context.2.conv_bn_dropout.1.0", size.context)
    shapes |= conv("cls", size.classes, size.context, bias=True)
    shapes |= conv("dsn.0", size.aux, low, 3, bias=True) | norm("dsn.1.0", size.aux)
    return shapes | conv("dsn.3", size.classes, size.aux, bias=True)


def unit(key: str, out: int, into: int, kernel: int = 1) -> Shapes:
    """mmcv's ConvModule."""
    return conv(f"{key}.conv", out, into, kernel) | norm(f"{key}.bn", out)


def mmseg_backbone(size: Size, *, deep: bool = True, shortcut: int = 0) -> Shapes:
    if not deep:
        return conv("backbone.conv1", 64, 3, 7) | norm("backbone.bn1", 64) | torch_stages(size, 64)
    w = size.stem
    shapes = conv("backbone.stem.0", w, 3, 3) | norm("backbone.stem.1", w)
    shapes |= conv("backbone.stem.3", w, w, 3) | norm("backbone.stem.4", w)
    shapes |= conv("backbone.stem.6", 2 * w, w, 3) | norm("backbone.stem.7", 2 * w)
    return shapes | torch_stages(size, 2 * w, shortcut=shortcut)


def mmseg_auxiliary(size: Size) -> Shapes:
    shapes = conv("auxiliary_head.conv_seg", size.classes, size.aux, bias=True)
    return shapes | unit("auxiliary_head.convs.0", size.aux, size.low, 3)


def mmseg_ann(size: Size = SMALL) -> Shapes:
    high = size.high

    def attention(key: str, low: int, high: int) -> Shapes:
        stage = f"decode_head.{key}.stages.0"
        shapes = unit(f"{stage}.key_project", size.key, low) | unit(f"{stage}.query_project", size.key, high)
        shapes |= conv(f"{stage}.value_project", size.value, low, bias=True)
        return shapes | conv(f"{stage}.out_project", high, size.value, bias=True)

    shapes = mmseg_backbone(size) | conv("decode_head.conv_seg", size.classes, size.context, bias=True)
    shapes |= attention("fusion", size.low, high) | unit("decode_head.fusion.bottleneck", high, 2 * high)
    shapes |= unit("decode_head.bottleneck", size.context, high, 3)
    shapes |= attention("context", size.context, size.context)
    shapes |= unit("decode_head.context.bottleneck", size.context, 2 * size.context)
    return shapes | mmseg_auxiliary(size)


def mmseg_psp(size: Size = SMALL, *, deep: bool = True, shortcut: int = 0) -> Shapes:
    shapes = mmseg_backbone(size, deep=deep, shortcut=shortcut)
    shapes |= conv("decode_head.conv_seg", size.classes, size.context, bias=True)
    for grid in range(4):
        shapes |= unit(f"decode_head.psp_modules.{grid}.1", size.context, size.high)
    shapes |= unit("decode_head.bottleneck", size.context, size.high + 4 * size.context, 3)
    return shapes | mmseg_auxiliary(size)


def mmseg_fcn(size: Size = SMALL) -> Shapes:
    shapes = mmseg_backbone(size) | conv("decode_head.conv_seg", size.classes, size.context, bias=True)
    shapes |= unit("decode_head.convs.0", size.context, size.high, 3)
    shapes |= unit("decode_head.convs.1", size.context, size.context, 3)
    shapes |= unit("decode_head.conv_cat", size.context, size.high + size.context, 3)
    return shapes | mmseg_auxiliary(size)


def mmseg_non_local(size: Size = SMALL) -> Shapes:
    block = "decode_head.nl_block"
    head = conv(f"{block}.g.conv", size.value, size.context, bias=True)
    head |= unit(f"{block}.conv_out", size.context, size.value)
    head |= conv(f"{block}.theta.conv", size.key, size.context, bias=True)
    head |= conv(f"{block}.phi.conv", size.key, size.context, bias=True)
    fcn = mmseg_fcn(size)
    return {key: shape for key, shape in fcn.items() if not key.startswith("aux")} | head | mmseg_auxiliary(size)


def paddle(size: Size = SMALL) -> Shapes:
    w, low, high = size.stem, size.low, size.high

    def unit(key: str, out: int, into: int, kernel: int = 1, *, bias: bool = False) -> Shapes:
        return conv(f"{key}._conv", out, into, kernel, bias=bias) | paddle_norm(f"{key}._batch_norm", out)

    shapes = unit("backbone.conv1_1", w, 3, 3) | unit("backbone.conv1_2", w, w, 3)
    shapes |= unit("backbone.conv1_3", 2 * w, w, 3)
    into = 2 * w
    for stage, count in enumerate(size.blocks):
        inner = size.width * 2**stage
        for block in range(count):
            place = f"backbone.bb_{stage}_{block}"
            shapes |= unit(f"{place}.conv0", inner, into) | unit(f"{place}.conv1", inner, inner, 3)
            shapes |= unit(f"{place}.conv2", 4 * inner, inner)
            shapes |= unit(f"{place}.short", 4 * inner, into) if block == 0 else {}
            into = 4 * inner

    def attention(key: str, low: int, high: int) -> Shapes:
        stage = f"head.{key}.stages.0"
        shapes = unit(f"{stage}.f_key", size.key, low, bias=True)
        shapes |= unit(f"{stage}.f_query", size.key, high, bias=True)
        shapes |= conv(f"{stage}.f_value", size.value, low, bias=True)
        return shapes | conv(f"{stage}.W", high, size.value, bias=True)

    shapes |= attention("fusion", low, high) | unit("head.fusion.conv_bn", high, 2 * high, bias=True)
    shapes |= unit("head.context.0", size.context, high, 3, bias=True)
    shapes |= attention("context.1", size.context, size.context)
    shapes |= unit("head.context.1.conv_bn", size.context, 2 * size.context, bias=True)
    shapes |= conv("head.cls", size.classes, size.context, bias=True)
    shapes |= unit("head.auxlayer.conv_bn_relu", size.aux, low, 3, bias=True)
    return shapes | conv("head.auxlayer.conv", size.classes, size.aux, bias=True)


SHARED = {
    "context.2.stages.0.f_query.": "context.2.stages.0.f_key.",
    "decode_head.context.stages.0.query_project.": "decode_head.context.stages.0.key_project.",
    "head.context.1.stages.0.f_query.": "head.context.1.stages.0.f_key.",
}
"""One module under two names."""


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep activations of order one, and BatchNorm statistics far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        leaf = key.rpartition(".")[2]
        noise = torch.randn(shape, generator=generator)
        if leaf == "num_batches_tracked":
            tensors[key] = torch.tensor(40_000 + seed)
        elif len(shape) == 4:
            tensors[key] = noise / math.sqrt(math.prod(shape[1:]))
        elif leaf in ("running_var", "_variance"):
            tensors[key] = 0.5 + torch.rand(shape, generator=generator)
        elif leaf == "weight":
            tensors[key] = 0.7 + 0.2 * noise
        else:
            tensors[key] = 0.3 * noise
        for name, first in SHARED.items():
            if key.startswith(name):
                tensors[key] = tensors[key.replace(name, first)].clone()
    return tensors
