"""PaddleSeg's checkpoints (`.pdparams`): `_conv` and `_batch_norm`, biases before BatchNorm, a ResNet-vd.

Their ResNet dilates the first block of a stage like the others, and its shortcuts pool only where they stride; timm's
`resnet50d` at stride 8 does neither.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from asymseg.model.foreign.backbones import backbone_name, class_count, resnet_modules, resnet_size, width_of
from asymseg.model.foreign.known_classes import numbered_classes
from asymseg.model.foreign.translation import Translation
from asymseg.model.info import ModelInfo

DIALECT = "PaddleSeg"

STEM = {
    "conv1.0": "conv1_1._conv",
    "conv1.1": "conv1_1._batch_norm",
    "conv1.3": "conv1_2._conv",
    "conv1.4": "conv1_2._batch_norm",
    "conv1.6": "conv1_3._conv",
    "bn1": "conv1_3._batch_norm",
}
"""timm's modules -> theirs under `backbone.`."""

BLOCK = {
    "conv1": "conv0._conv",
    "bn1": "conv0._batch_norm",
    "conv2": "conv1._conv",
    "bn2": "conv1._batch_norm",
    "conv3": "conv2._conv",
    "bn3": "conv2._batch_norm",
    "downsample.1": "short._conv",
    "downsample.2": "short._batch_norm",
}
"""Within `layer{S}.{I}` and `bb_{S - 1}_{I}`."""

HEAD = {
    "fusion.key.0": "head.fusion.stages.0.f_key._conv",
    "fusion.key.1": "head.fusion.stages.0.f_key._batch_norm",
    "fusion.query.0": "head.fusion.stages.0.f_query._conv",
    "fusion.query.1": "head.fusion.stages.0.f_query._batch_norm",
    "fusion.value": "head.fusion.stages.0.f_value",
    "fusion.output": "head.fusion.stages.0.W",
    "fusion.merge.0": "head.fusion.conv_bn._conv",
    "fusion.merge.1": "head.fusion.conv_bn._batch_norm",
    "project.0": "head.context.0._conv",
    "project.1": "head.context.0._batch_norm",
    "context.query.0": "head.context.1.stages.0.f_key._conv",
    "context.query.1": "head.context.1.stages.0.f_key._batch_norm",
    "context.value": "head.context.1.stages.0.f_value",
    "context.output": "head.context.1.stages.0.W",
    "context.merge.0": "head.context.1.conv_bn._conv",
    "context.merge.1": "head.context.1.conv_bn._batch_norm",
    "classifier": "head.cls",
}
AUXILIARY = {
    "aux_classifier.0": "head.auxlayer.conv_bn_relu._conv",
    "aux_classifier.1": "head.auxlayer.conv_bn_relu._batch_norm",
    "aux_classifier.4": "head.auxlayer.conv",
}
NORM = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}

BIASED = ("fusion.key.0", "fusion.query.0", "fusion.merge.0", "project.0", "context.query.0", "context.merge.0")
TWINS = {"head.context.1.stages.0.f_query": "head.context.1.stages.0.f_key"}
"""One module there too, saved under both names."""


def is_paddle(keys: set[str]) -> bool:
    return any("._batch_norm." in key for key in keys)


def backbone_module(module: str) -> str:
    """Their name of one of timm's modules."""
    place = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", module)
    if place is None:
        return f"backbone.{STEM.get(module, module)}"
    stage, block, rest = place.groups()
    return f"backbone.bb_{int(stage) - 1}_{block}.{BLOCK.get(rest, rest)}"


def translate(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], source: str) -> Translation:
    """The network of a PaddleSeg checkpoint, which says nothing beside its weights: `meta` is empty."""
    size = replace(resnet_size(tensors, backbone_module), pooled=True)
    auxiliary = any(key.startswith("head.auxlayer.") for key in tensors)
    head = HEAD | AUXILIARY if auxiliary else HEAD
    count = class_count(tensors, "head.cls")
    settings = {
        "num_classes": count,
        "backbone": backbone_name(size, "even", "unpooled"),
        "key_channels": width_of(tensors, "head.fusion.stages.0.f_key._conv.weight", 256),
        "value_channels": width_of(tensors, "head.fusion.stages.0.f_value.weight", 256),
        "context_channels": width_of(tensors, "head.context.0._conv.weight", 512),
        "aux_channels": width_of(tensors, "head.auxlayer.conv_bn_relu._conv.weight", 512) if auxiliary else 0,
        "dropout": 0.05,
        "align_corners": False,
    }
    backbone = {f"backbone.features.{module}": backbone_module(module) for module in resnet_modules(size)}
    return Translation(
        dialect=DIALECT,
        settings=settings,
        modules=backbone | head,
        info=ModelInfo(
            classes=numbered_classes(count),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            source=f"{source}, a checkpoint of PaddleSeg",
        ),
        biased=frozenset(BIASED) | ({"aux_classifier.0"} if auxiliary else set()),
        twins=TWINS,
        norm=NORM,
    )
