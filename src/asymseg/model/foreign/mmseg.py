"""mmsegmentation's checkpoints, 0.x and 1.x: ANN, FCN, PSPNet and the non-local network over its ResNets.

Their convolutions before BatchNorm have no bias, so a checkpoint becomes the network here and back without a number
changed.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asymseg.classes import Classes
from asymseg.errors import CheckpointError, DataError
from asymseg.model.foreign.backbones import (
    ResNetSize,
    backbone_name,
    class_count,
    resnet_modules,
    resnet_size,
    width_of,
)
from asymseg.model.foreign.known_classes import numbered_classes
from asymseg.model.foreign.mmseg_config import read_settings
from asymseg.model.foreign.mmseg_settings import understand
from asymseg.model.foreign.translation import Translation
from asymseg.model.info import ModelInfo

DIALECT = "mmsegmentation"

STEM = {
    "conv1.0": "stem.0",
    "conv1.1": "stem.1",
    "conv1.3": "stem.3",
    "conv1.4": "stem.4",
    "conv1.6": "stem.6",
    "bn1": "stem.7",
}
"""timm's modules -> theirs under `backbone.` where the stem is deep; all others have the same names in both."""

CLASSIFIER = {"classifier": "decode_head.conv_seg"}

ANN = CLASSIFIER | {
    "fusion.key.0": "decode_head.fusion.stages.0.key_project.conv",
    "fusion.key.1": "decode_head.fusion.stages.0.key_project.bn",
    "fusion.query.0": "decode_head.fusion.stages.0.query_project.conv",
    "fusion.query.1": "decode_head.fusion.stages.0.query_project.bn",
    "fusion.value": "decode_head.fusion.stages.0.value_project",
    "fusion.output": "decode_head.fusion.stages.0.out_project",
    "fusion.merge.0": "decode_head.fusion.bottleneck.conv",
    "fusion.merge.1": "decode_head.fusion.bottleneck.bn",
    "project.0": "decode_head.bottleneck.conv",
    "project.1": "decode_head.bottleneck.bn",
    "context.query.0": "decode_head.context.stages.0.key_project.conv",
    "context.query.1": "decode_head.context.stages.0.key_project.bn",
    "context.value": "decode_head.context.stages.0.value_project",
    "context.output": "decode_head.context.stages.0.out_project",
    "context.merge.0": "decode_head.context.bottleneck.conv",
    "context.merge.1": "decode_head.context.bottleneck.bn",
}
TWINS = {"decode_head.context.stages.0.query_project": "decode_head.context.stages.0.key_project"}
"""One module there too, saved under both names."""

PSP = CLASSIFIER | {"project.0": "decode_head.bottleneck.conv", "project.1": "decode_head.bottleneck.bn"}
PSP_GRID = {
    "pyramid.projections.{}.0": "decode_head.psp_modules.{}.1.conv",
    "pyramid.projections.{}.1": "decode_head.psp_modules.{}.1.bn",
}
"""For each size of the pyramid."""

PLAIN = CLASSIFIER | {"project.0": "decode_head.convs.0.conv", "project.1": "decode_head.convs.0.bn"}
FCN = PLAIN | {
    "refine.second.0": "decode_head.convs.1.conv",
    "refine.second.1": "decode_head.convs.1.bn",
    "refine.joined.0": "decode_head.conv_cat.conv",
    "refine.joined.1": "decode_head.conv_cat.bn",
}
NON_LOCAL = FCN | {
    "context.value": "decode_head.nl_block.g.conv",
    "context.output.0": "decode_head.nl_block.conv_out.conv",
    "context.output.1": "decode_head.nl_block.conv_out.bn",
    "context.query": "decode_head.nl_block.theta.conv",
    "context.key": "decode_head.nl_block.phi.conv",
}

AUXILIARY = {
    "aux_classifier.4": "auxiliary_head.conv_seg",
    "aux_classifier.0": "auxiliary_head.convs.0.conv",
    "aux_classifier.1": "auxiliary_head.convs.0.bn",
}

SWITCHES: dict[str, dict[str, Any]] = {
    "ANNHead": {"fusion": "afnb", "context": "apnb", "refine": False},
    "PSPHead": {"fusion": "none", "context": "psp", "refine": False},
    "NLHead": {"fusion": "none", "context": "nonlocal_wang", "refine": True},
    "FCNHead": {"fusion": "none", "context": "none", "refine": True},
    "FCNHead, one convolution": {"fusion": "none", "context": "none", "refine": False},
}
"""Their heads, and the switches of ANNNet that make the same network."""

WIDTHS = {
    "ANNHead": {
        "context_channels": "decode_head.bottleneck.conv.weight",
        "key_channels": "decode_head.fusion.stages.0.key_project.conv.weight",
        "value_channels": "decode_head.fusion.stages.0.value_project.weight",
    },
    "PSPHead": {"context_channels": "decode_head.bottleneck.conv.weight"},
    "NLHead": {
        "context_channels": "decode_head.convs.0.conv.weight",
        "key_channels": "decode_head.nl_block.theta.conv.weight",
        "value_channels": "decode_head.nl_block.g.conv.weight",
    },
    "FCNHead": {"context_channels": "decode_head.convs.0.conv.weight"},
    "FCNHead, one convolution": {"context_channels": "decode_head.convs.0.conv.weight"},
}
"""The weights that tell ANNNet's widths."""

POOL_SIZES = {"ANNHead": (1, 3, 6, 8), "PSPHead": (1, 2, 3, 6)}
PUBLISHED = {"context_channels": 512, "key_channels": 256, "value_channels": 256}


def is_mmseg(keys: set[str]) -> bool:
    return any(key.startswith("decode_head.") for key in keys)


def backbone_module(module: str, deep: bool = True) -> str:
    """Their name of one of timm's modules; a stem of one convolution has timm's names."""
    return f"backbone.{STEM.get(module, module) if deep else module}"


def backbone_modules(size: ResNetSize) -> dict[str, str]:
    """Our modules -> theirs, in the order in which theirs are saved."""
    return {
        f"backbone.features.{module}": backbone_module(module, deep=size.stem is not None)
        for module in resnet_modules(size)
    }


def which_head(keys: set[str]) -> str:
    """The head whose weights these are: a name in `SWITCHES`."""
    parts = {".".join(key.split(".")[:2]) for key in keys if key.startswith("decode_head.")}
    for part, head in {"fusion": "ANNHead", "psp_modules": "PSPHead", "nl_block": "NLHead"}.items():
        if f"decode_head.{part}" in parts:
            return head
    refined = "decode_head.conv_cat" in parts or any(key.startswith("decode_head.convs.1.") for key in keys)
    return "FCNHead" if refined else "FCNHead, one convolution"


def head_modules(head: str, auxiliary: bool, pool_sizes: tuple[int, ...]) -> dict[str, str]:
    """Our modules -> theirs, in the order in which theirs are saved."""
    tables = {"ANNHead": ANN, "PSPHead": PSP, "NLHead": NON_LOCAL, "FCNHead": FCN, "FCNHead, one convolution": PLAIN}
    modules = dict(tables[head])
    if head == "PSPHead":
        grids = {
            ours.format(grid): theirs.format(grid)
            for grid in range(len(pool_sizes))
            for ours, theirs in PSP_GRID.items()
        }
        modules = CLASSIFIER | grids | modules
    return modules | AUXILIARY if auxiliary else modules


def translate(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any], source: str, align_corners: bool | None = None
) -> Translation:
    """The network of an mmsegmentation checkpoint; its settings are heeded where `meta` has them.

    `align_corners` is for those that lack them; what the settings say goes first.
    """
    facts = meta.get("meta")
    facts = facts if isinstance(facts, dict) else {}
    head = which_head(set(tensors))
    settings = understand(read_settings(facts.get("config") or facts.get("cfg")), head.split(",")[0])
    size = resnet_size(tensors, backbone_module)
    auxiliary = any(key.startswith("auxiliary_head.") for key in tensors)
    count = class_count(tensors, "decode_head.conv_seg")
    pool_sizes = settings.pool_sizes or POOL_SIZES.get(head, (1, 3, 6, 8))
    corners = align_corners if settings.align_corners is None else settings.align_corners
    network: dict[str, Any] = {
        "num_classes": count,
        "backbone": backbone_name(size, *settings.backbone_changes(size.pooled)),
        "output_stride": settings.output_stride,
        "pool_sizes": pool_sizes,
        "aux_channels": width_of(tensors, "auxiliary_head.convs.0.conv.weight", 256) if auxiliary else 0,
        "dropout": settings.dropout,
        "align_corners": bool(corners),
    }
    widths = {name: width_of(tensors, key, PUBLISHED[name]) for name, key in WIDTHS[head].items()}
    version = facts.get("mmseg_version")
    origin = f"{source}, a checkpoint of mmsegmentation" + (f" {version}" if _is_short(version) else "")
    if corners is None:
        origin += "; align_corners is not in it and was taken to be false"
    return Translation(
        dialect=f"{DIALECT} ({head})",
        settings=SWITCHES[head] | network | widths,
        modules=backbone_modules(size) | head_modules(head, auxiliary, pool_sizes),
        info=ModelInfo(
            classes=_classes(facts, count),
            mean=tuple(value / 255 for value in settings.mean),
            std=tuple(value / 255 for value in settings.std),
            channel_order=settings.channel_order,
            seeing=settings.seeing,
            source=origin,
        ),
        twins=TWINS,
    )


def _classes(facts: Mapping[str, Any], count: int) -> Classes:
    """Names and colours: `CLASSES` and `PALETTE` in 0.x, `dataset_meta` in 1.x; numbers where there are none."""
    newer = facts.get("dataset_meta")
    newer = newer if isinstance(newer, dict) else {}
    names = newer.get("classes") or newer.get("CLASSES") or facts.get("CLASSES")
    palette = newer.get("palette") or newer.get("PALETTE") or facts.get("PALETTE")
    if not isinstance(names, list | tuple):
        return numbered_classes(count)
    if len(names) != count:
        raise CheckpointError(f"it names {len(names)} classes, and its classifier has {count}")
    once = [name if names.index(name) == place else f"{name} ({place})" for place, name in enumerate(names)]
    palette = palette if isinstance(palette, list | tuple) and len(palette) == count else None
    try:
        return Classes.from_dict({"classes": once, "palette": palette}, "its class names")
    except DataError as error:
        raise CheckpointError(str(error)) from None


def _is_short(version: Any) -> bool:
    return isinstance(version, str) and version.isprintable() and 0 < len(version) < 30
