"""The networks behind the three dialects' checkpoints, in the plainest code: from tensors by name to logits.

Each function takes a checkpoint's tensors and images and gives the logits and the auxiliary logits at the size of the
images. Written from the published descriptions of the networks; it uses nothing of asymseg.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]


class Plain:
    """A checkpoint's layers by name."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def conv(self, key: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.tensors[f"{key}.weight"]
        padding = dilation * (weight.shape[2] // 2)
        return F.conv2d(x, weight, self.tensors.get(f"{key}.bias"), stride, padding, dilation)

    def norm(self, key: str, x: Tensor) -> Tensor:
        paddle = f"{key}._mean" in self.tensors
        mean, var = ("_mean", "_variance") if paddle else ("running_mean", "running_var")
        mean, var, weight, bias = (self.tensors[f"{key}.{leaf}"] for leaf in (mean, var, "weight", "bias"))
        shape = (1, -1, 1, 1)
        x = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-5)
        return x * weight.view(shape) + bias.view(shape)

    def blocks(self, stage: int) -> int:
        keys = {key for key in self.tensors if key.startswith(f"backbone.layer{stage}.")}
        keys |= {key for key in self.tensors if key.startswith(f"backbone.bb_{stage - 1}_")}
        return len({key.split(".")[1 if ".bb_" in key else 2] for key in keys})


def torch_stages(net: Plain, x: Tensor, *, even: bool = False, pooled: bool = False) -> tuple[Tensor, Tensor]:
    """Stages 1 to 4 at stride 8: dilations 1, 2, 2.. and 2, 4, 4, or with `even` 2, 2, 2.. and 4, 4, 4."""
    maps = []
    for stage, (stride, first, others) in enumerate([(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)], start=1):
        for block in range(net.blocks(stage)):
            place = f"backbone.layer{stage}.{block}"
            step = stride if block == 0 else 1
            dilation = first if block == 0 and not even else others
            y = F.relu(net.norm(f"{place}.bn1", net.conv(f"{place}.conv1", x)))
            y = F.relu(net.norm(f"{place}.bn2", net.conv(f"{place}.conv2", y, step, dilation)))
            y = net.norm(f"{place}.bn3", net.conv(f"{place}.conv3", y))
            if block == 0 and pooled:
                x = F.avg_pool2d(x, step, step, ceil_mode=True, count_include_pad=False)
                x = net.norm(f"{place}.downsample.2", net.conv(f"{place}.downsample.1", x))
            elif block == 0:
                x = net.norm(f"{place}.downsample.1", net.conv(f"{place}.downsample.0", x, step))
            x = F.relu(x + y)
        maps.append(x)
    return maps[2], maps[3]


def pyramid(x: Tensor) -> Tensor:
    return torch.cat([F.adaptive_avg_pool2d(x, side).flatten(2) for side in (1, 3, 6, 8)], dim=2)


def attend(query: Tensor, key: Tensor, value: Tensor, size: torch.Size) -> Tensor:
    """query B K N, key B K S, value B V S -> B V H W."""
    scores = torch.matmul(query.transpose(1, 2), key) * query.shape[1] ** -0.5
    context = torch.matmul(scores.softmax(dim=-1), value.transpose(1, 2))
    return context.transpose(1, 2).reshape(len(query), value.shape[1], *size)


def upsample(x: Tensor, images: Tensor, *, align_corners: bool) -> Tensor:
    return F.interpolate(x, images.shape[2:], mode="bilinear", align_corners=align_corners)


def authors(tensors: Tensors, images: Tensor) -> tuple[Tensor, Tensor]:
    net = Plain(tensors)

    def stage(key: str, low: Tensor, high: Tensor) -> Tensor:
        query = F.relu(net.norm(f"{key}.f_query.1.0", net.conv(f"{key}.f_query.0", high))).flatten(2)
        keys = pyramid(F.relu(net.norm(f"{key}.f_key.1.0", net.conv(f"{key}.f_key.0", low))))
        values = pyramid(net.conv(f"{key}.f_value", low))
        return net.conv(f"{key}.W", attend(query, keys, values, high.shape[2:]))

    x = images
    for number, step in ((1, 2), (2, 1), (3, 1)):
        x = F.relu(net.norm(f"backbone.prefix.bn{number}", net.conv(f"backbone.prefix.conv{number}", x, step)))
    low, high = torch_stages(net, F.max_pool2d(x, 3, 2, 1, ceil_mode=True))

    joined = torch.cat([stage("fusion.stages.0", low, high), high], dim=1)
    x = net.norm("fusion.conv_bn_dropout.1", net.conv("fusion.conv_bn_dropout.0", joined))
    x = F.relu(net.norm("context.1.0", net.conv("context.0", x)))
    joined = torch.cat([stage("context.2.stages.0", x, x), x], dim=1)
    x = F.relu(net.norm("context.2.conv_bn_dropout.1.0", net.conv("context.2.conv_bn_dropout.0", joined)))
    aux = F.relu(net.norm("dsn.1.0", net.conv("dsn.0", low)))
    logits = net.conv("cls", x), net.conv("dsn.3", aux)
    return upsample(logits[0], images, align_corners=True), upsample(logits[1], images, align_corners=True)


def unit(net: Plain, key: str, x: Tensor, *, relu: bool = True) -> Tensor:
    """mmcv's ConvModule."""
    x = net.norm(f"{key}.bn", net.conv(f"{key}.conv", x))
    return F.relu(x) if relu else x


def mmseg(
    tensors: Tensors, images: Tensor, head: str, *, align_corners: bool = False, even: bool = False
) -> tuple[Tensor, Tensor]:
    net = Plain(tensors)
    if "backbone.stem.0.weight" in tensors:
        x = images
        for conv, norm, step in ((0, 1, 2), (3, 4, 1), (6, 7, 1)):
            x = F.relu(net.norm(f"backbone.stem.{norm}", net.conv(f"backbone.stem.{conv}", x, step)))
    else:
        x = F.relu(net.norm("backbone.bn1", net.conv("backbone.conv1", images, 2)))
    pooled = "backbone.layer1.0.downsample.2.weight" in tensors
    low, high = torch_stages(net, F.max_pool2d(x, 3, 2, 1), even=even, pooled=pooled)
    heads = {"ANNHead": ann_head, "PSPHead": psp_head, "FCNHead": fcn_head, "NLHead": non_local_head}
    x = heads[head](net, low, high, align_corners)
    aux = net.conv("auxiliary_head.conv_seg", unit(net, "auxiliary_head.convs.0", low))
    logits = net.conv("decode_head.conv_seg", x)
    return (
        upsample(logits, images, align_corners=align_corners),
        upsample(aux, images, align_corners=align_corners),
    )


def ann_head(net: Plain, low: Tensor, high: Tensor, align_corners: bool) -> Tensor:
    def stage(key: str, low: Tensor, high: Tensor) -> Tensor:
        query = unit(net, f"{key}.query_project", high).flatten(2)
        keys, values = pyramid(unit(net, f"{key}.key_project", low)), pyramid(net.conv(f"{key}.value_project", low))
        return net.conv(f"{key}.out_project", attend(query, keys, values, high.shape[2:]))

    joined = torch.cat([stage("decode_head.fusion.stages.0", low, high), high], dim=1)
    x = unit(net, "decode_head.fusion.bottleneck", joined, relu=False)
    x = unit(net, "decode_head.bottleneck", x)
    joined = torch.cat([stage("decode_head.context.stages.0", x, x), x], dim=1)
    return unit(net, "decode_head.context.bottleneck", joined)


def psp_head(net: Plain, low: Tensor, high: Tensor, align_corners: bool) -> Tensor:
    maps = [high]
    for grid, side in enumerate((1, 2, 3, 6)):
        small = unit(net, f"decode_head.psp_modules.{grid}.1", F.adaptive_avg_pool2d(high, side))
        maps.append(upsample(small, high, align_corners=align_corners))
    return unit(net, "decode_head.bottleneck", torch.cat(maps, dim=1))


def fcn_head(net: Plain, low: Tensor, high: Tensor, align_corners: bool) -> Tensor:
    x = unit(net, "decode_head.convs.1", unit(net, "decode_head.convs.0", high))
    return unit(net, "decode_head.conv_cat", torch.cat([high, x], dim=1))


def non_local_head(net: Plain, low: Tensor, high: Tensor, align_corners: bool) -> Tensor:
    x = unit(net, "decode_head.convs.0", high)
    theta, phi, g = (net.conv(f"decode_head.nl_block.{name}.conv", x).flatten(2) for name in ("theta", "phi", "g"))
    x = x + unit(net, "decode_head.nl_block.conv_out", attend(theta, phi, g, x.shape[2:]), relu=False)
    x = unit(net, "decode_head.convs.1", x)
    return unit(net, "decode_head.conv_cat", torch.cat([high, x], dim=1))


def paddle(tensors: Tensors, images: Tensor) -> tuple[Tensor, Tensor]:
    net = Plain(tensors)

    def unit(key: str, x: Tensor, stride: int = 1, dilation: int = 1, *, relu: bool = True) -> Tensor:
        x = net.norm(f"{key}._batch_norm", net.conv(f"{key}._conv", x, stride, dilation))
        return F.relu(x) if relu else x

    def stage(key: str, low: Tensor, high: Tensor) -> Tensor:
        query, keys = unit(f"{key}.f_query", high).flatten(2), pyramid(unit(f"{key}.f_key", low))
        values = pyramid(net.conv(f"{key}.f_value", low))
        return net.conv(f"{key}.W", attend(query, keys, values, high.shape[2:]))

    x = unit("backbone.conv1_3", unit("backbone.conv1_2", unit("backbone.conv1_1", images, 2)))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for number, (stride, dilation) in enumerate([(1, 1), (2, 1), (1, 2), (1, 4)]):
        for block in range(net.blocks(number + 1)):
            place = f"backbone.bb_{number}_{block}"
            step = stride if block == 0 else 1
            y = unit(f"{place}.conv1", unit(f"{place}.conv0", x), step, dilation)
            y = unit(f"{place}.conv2", y, relu=False)
            if block == 0:
                pooled = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else x
                x = unit(f"{place}.short", pooled, relu=False)
            x = F.relu(x + y)
        maps.append(x)
    low, high = maps[2:]
    x = unit("head.fusion.conv_bn", torch.cat([stage("head.fusion.stages.0", low, high), high], dim=1), relu=False)
    x = unit("head.context.0", x)
    x = unit("head.context.1.conv_bn", torch.cat([stage("head.context.1.stages.0", x, x), x], dim=1))
    logits, aux = net.conv("head.cls", x), net.conv("head.auxlayer.conv", unit("head.auxlayer.conv_bn_relu", low))
    return upsample(logits, images, align_corners=False), upsample(aux, images, align_corners=False)
