"""The authors' checkpoints (github.com/MendelXu/ANN): `module.` prefixes, biases before BatchNorm, BGR images.

Their backbone is `3x3resnet101`: a stem of 64, 64 and 128 channels and a max-pooling that rounds sizes up.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asymseg.classes import Classes
from asymseg.errors import CheckpointError
from asymseg.model.foreign.backbones import backbone_name, class_count, resnet_modules, resnet_size, width_of
from asymseg.model.foreign.known_classes import CITYSCAPES, PASCAL_CONTEXT, numbered_classes
from asymseg.model.foreign.translation import Translation, numbers
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing

DIALECT = "the authors"

STEM = {
    "conv1.0": "prefix.conv1",
    "conv1.1": "prefix.bn1",
    "conv1.3": "prefix.conv2",
    "conv1.4": "prefix.bn2",
    "conv1.6": "prefix.conv3",
    "bn1": "prefix.bn3",
}
"""timm's modules -> theirs under `backbone.`; those of the four stages have the same names in both."""

HEAD = {
    "fusion.key.0": "fusion.stages.0.f_key.0",
    "fusion.key.1": "fusion.stages.0.f_key.1.0",
    "fusion.query.0": "fusion.stages.0.f_query.0",
    "fusion.query.1": "fusion.stages.0.f_query.1.0",
    "fusion.value": "fusion.stages.0.f_value",
    "fusion.output": "fusion.stages.0.W",
    "fusion.merge.0": "fusion.conv_bn_dropout.0",
    "fusion.merge.1": "fusion.conv_bn_dropout.1",  # BatchNorm alone: no ReLU, so no Sequential around it
    "project.0": "context.0",
    "project.1": "context.1.0",
    "context.query.0": "context.2.stages.0.f_key.0",
    "context.query.1": "context.2.stages.0.f_key.1.0",
    "context.value": "context.2.stages.0.f_value",
    "context.output": "context.2.stages.0.W",
    "context.merge.0": "context.2.conv_bn_dropout.0",
    "context.merge.1": "context.2.conv_bn_dropout.1.0",
    "classifier": "cls",
}
AUXILIARY = {"aux_classifier.0": "dsn.0", "aux_classifier.1": "dsn.1.0", "aux_classifier.4": "dsn.3"}

BIASED = ("fusion.key.0", "fusion.query.0", "fusion.merge.0", "project.0", "context.query.0", "context.merge.0")
TWINS = {"context.2.stages.0.f_query": "context.2.stages.0.f_key"}
"""One module there too, saved under both names."""

BGR_MEAN, BGR_STD = (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)


def is_authors(keys: set[str]) -> bool:
    return any(key.startswith(("fusion.stages.0.f_key.", "context.2.stages.0.", "backbone.prefix.")) for key in keys)


def backbone_module(module: str) -> str:
    """Their name of one of timm's modules."""
    return f"backbone.{STEM.get(module, module)}"


def translate(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], source: str) -> Translation:
    """The network of an authors' checkpoint. `meta` may hold their settings as `config_dict`."""
    config = meta.get("config_dict")
    config = config if isinstance(config, dict) else {}
    _check_config(config)
    size = resnet_size(tensors, backbone_module)
    auxiliary = any(key.startswith("dsn.") for key in tensors)
    head = HEAD | AUXILIARY if auxiliary else HEAD
    count = class_count(tensors, "cls")
    settings = {
        "num_classes": count,
        "backbone": backbone_name(size, "ceil"),
        "key_channels": width_of(tensors, "fusion.stages.0.f_key.0.weight", 256),
        "value_channels": width_of(tensors, "fusion.stages.0.f_value.weight", 256),
        "context_channels": width_of(tensors, "context.0.weight", 512),
        "aux_channels": width_of(tensors, "dsn.0.weight", 512) if auxiliary else 0,
        "dropout": 0.05,
        "align_corners": True,
    }
    backbone = {f"backbone.features.{module}": backbone_module(module) for module in resnet_modules(size)}
    return Translation(
        dialect=DIALECT,
        settings=settings,
        modules=backbone | head,
        info=_info(config, count, source),
        biased=frozenset(BIASED) | ({"aux_classifier.0"} if auxiliary else set()),
        twins=TWINS,
    )


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse what the weights do not show and the network here does not have."""
    network = _part(config, "network")
    grid = network.get("multi_grid") or [1, 1, 1]
    if not isinstance(grid, list | tuple) or any(factor != 1 for factor in grid):
        raise CheckpointError("its settings say multi_grid other than 1, 1, 1, which asymseg does not have")
    if network.get("stride", 8) != 8 or "dilated16" in str(network.get("backbone", ""))[:100]:
        raise CheckpointError("its settings say a stride other than 8, which none of the authors' networks has")


def _info(config: Mapping[str, Any], count: int, source: str) -> ModelInfo:
    """Their images are 0..255, divided by `div_value` (1), minus a mean: on the scale 0..1, that is the mean / 255."""
    data = _part(config, "data")
    normalise = _part(data, "normalize")
    divisor = numbers(normalise.get("div_value", 1.0), "div_value", 1, above=0.0)[0]
    mean = numbers(normalise.get("mean", BGR_MEAN), "mean", 3)
    std = numbers(normalise.get("std", BGR_STD), "std", 3, above=0.0)
    return ModelInfo(
        classes=_classes(config, count),
        mean=tuple(value * divisor / 255 for value in mean),
        std=tuple(value * divisor / 255 for value in std),
        channel_order="RGB" if data.get("input_mode") == "RGB" else "BGR",
        seeing=Seeing(average="logits"),
        source=f"{source}, a checkpoint of the authors' code",
    )


def _classes(config: Mapping[str, Any], count: int) -> Classes:
    known = {("cityscapes", 19): CITYSCAPES, ("pascal_context", 59): PASCAL_CONTEXT}
    return known.get((str(config.get("dataset", ""))[:100], count)) or numbered_classes(count)


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}
