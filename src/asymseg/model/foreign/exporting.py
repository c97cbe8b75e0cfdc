"""A network of asymseg's as an mmsegmentation checkpoint and configuration: the way back."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asymseg.atomic import atomic_file
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.foreign.backbones import DEPTHS, ResNetSize
from asymseg.model.foreign.mmseg import SWITCHES, TWINS, backbone_modules, head_modules
from asymseg.model.foreign.mmseg_config import write_settings
from asymseg.model.foreign.mmseg_settings import STRIDES
from asymseg.model.foreign.translation import COUNTER, TORCH_NORM
from asymseg.model.info import ModelInfo
from asymseg.model.resnet import parse_name

TYPES = {"": "ResNet", "c": "ResNetV1c", "s": "ResNetV1c", "d": "ResNetV1d"}
"""timm's letter after the depth -> mmsegmentation's class."""
STEMS = {"": None, "c": 32, "s": 64, "d": 32}


def export_mmseg(network: ANNNet, info: ModelInfo, path: Path) -> None:
    """Write a checkpoint that mmsegmentation loads, and its configuration (1.x) beside it as `.py`.

    Raises ConfigError, which names the setting, for a network that mmsegmentation cannot build.
    """
    checkpoint = to_mmseg(network, info)
    with atomic_file(path) as temporary:
        torch.save(checkpoint, temporary)
    with atomic_file(path.with_suffix(".py")) as temporary:
        temporary.write_text(checkpoint["meta"]["cfg"], encoding="utf-8")


def to_mmseg(network: ANNNet, info: ModelInfo) -> dict[str, Any]:
    """A checkpoint of mmsegmentation's form: `state_dict` in its names and order, `meta` for 0.x and 1.x.

    The importer gives the same network back, and the same checkpoint comes of a checkpoint that was imported.
    Raises ConfigError, which names the setting, for a network that mmsegmentation cannot build.
    """
    if not isinstance(network, ANNNet):
        raise ConfigError("a folded network has no such form any more; load the model with fold=False")
    settings = network.settings
    head = _head(settings)
    size, backbone = _backbone(settings)
    decode, auxiliary = _heads(settings, head, size)
    modules = backbone_modules(size) | head_modules(head, auxiliary is not None, tuple(settings["pool_sizes"]))
    mean, std = ([value * 255 for value in values] for values in (info.mean, info.std))
    rgb = info.channel_order == "RGB"
    preprocessor = {"type": "SegDataPreProcessor", "mean": mean, "std": std, "bgr_to_rgb": rgb}
    preprocessor |= {"pad_val": 0, "seg_pad_val": 255}
    model = {"type": "EncoderDecoder", "data_preprocessor": preprocessor, "pretrained": None, "backbone": backbone}
    model |= {"decode_head": decode} | ({} if auxiliary is None else {"auxiliary_head": auxiliary})
    seeing = info.seeing
    windows = {"crop_size": seeing.window, "stride": seeing.steps} if seeing.mode == "slide" else {}
    model |= {"train_cfg": {}, "test_cfg": {"mode": seeing.mode} | windows}
    older = {name: part for name, part in model.items() if name != "data_preprocessor"}
    names, palette = tuple(info.classes.names), [list(colour) for colour in info.classes.palette]
    meta = {
        "CLASSES": names,
        "PALETTE": palette,
        "dataset_meta": {"classes": names, "palette": palette},
        "config": write_settings({"model": older, "img_norm_cfg": {"mean": mean, "std": std, "to_rgb": rgb}}),
        "cfg": write_settings({"default_scope": "mmseg", "model": model}),
    }
    return {"meta": meta, "state_dict": _state(network, modules)}


def _state(network: ANNNet, modules: dict[str, str]) -> dict[str, Tensor]:
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in network.state_dict().items()}
    renamed = {}
    for ours, theirs in modules.items():
        for leaf in (*TORCH_NORM, COUNTER):
            if f"{ours}.{leaf}" in state:
                renamed[f"{theirs}.{leaf}"] = state.pop(f"{ours}.{leaf}")
    assert not state, f"no names for {', '.join(state)}"
    return dict(_with_twins(renamed))


def _with_twins(state: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Every module that has a second name there once more under it, right after the first."""
    items = list(state.items())
    for twin, first in TWINS.items():
        places = [place for place, (key, _) in enumerate(items) if key.startswith(f"{first}.")]
        again = [(twin + items[place][0].removeprefix(first), items[place][1].clone()) for place in places]
        if places:
            items[places[-1] + 1 : places[-1] + 1] = again
    return items


def _head(settings: dict[str, Any]) -> str:
    wanted = ({name: settings[name] for name in switches} == switches for switches in SWITCHES.values())
    head = next((head for head, same in zip(SWITCHES, wanted, strict=True) if same), None)
    if head is None:
        raise ConfigError(
            f"mmsegmentation has no network of fusion {settings['fusion']}, context {settings['context']} and refine "
            f"{settings['refine']}; it has ANN, PSPNet, FCN and the non-local network of Wang et al."
        )
    if head == "ANNHead" and settings["merge"] != "concat":
        raise ConfigError(f"mmsegmentation's ANN joins by concat, this network by merge {settings['merge']}")
    if head in ("ANNHead", "NLHead") and settings["key_channels"] != settings["value_channels"]:
        raise ConfigError(
            f"mmsegmentation has one width for keys and values, this network key_channels {settings['key_channels']} "
            f"and value_channels {settings['value_channels']}"
        )
    return head


def _backbone(settings: dict[str, Any]) -> tuple[ResNetSize, dict[str, Any]]:
    """The backbone's size, by which its modules are named, and its configuration there."""
    name, stride = settings["backbone"], settings["output_stride"]
    parts = parse_name(name or "")
    known = re.fullmatch(r"resnet(50|101|152)([csd]?)(\..+)?", parts.timm)
    if known is None or tuple(settings["stages"]) not in ((-2, -1), (3, 4)):
        raise ConfigError(
            f"mmsegmentation's ResNets have 50, 101 or 152 layers and give their last two stages; this network has "
            f"the backbone {name!r} and stages {settings['stages']}"
        )
    blocks = next(blocks for blocks, depth in DEPTHS.items() if depth == int(known[1]))
    blocks = parts.arguments.get("layers", blocks)
    stem, width = parts.arguments.get("stem_width", STEMS[known[2]]), parts.arguments.get("channels", (64,))[0]
    pooled = known[2] == "d"
    if "ceil" in parts.geometry or (pooled and stride < 32 and "unpooled" not in parts.geometry):
        raise ConfigError(
            f"mmsegmentation has no backbone {name!r}: its max-pooling rounds down, and its shortcuts of dilated "
            "stages do not pool"
        )
    if blocks not in DEPTHS:
        raise ConfigError(f"mmsegmentation has no ResNet of {blocks} blocks; it has {', '.join(map(str, DEPTHS))}")
    strides, dilations = next(key for key, value in STRIDES.items() if value == stride)
    backbone = {
        "type": TYPES[known[2]],
        "depth": DEPTHS[blocks],
        "in_channels": settings["in_channels"],
        "stem_channels": 64 if stem is None else 2 * stem,
        "base_channels": width,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "dilations": dilations,
        "strides": strides,
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "norm_eval": False,
        "style": "pytorch",
        "contract_dilation": "even" not in parts.geometry,
    }
    if stem is not None and known[2] == "":
        backbone |= {"deep_stem": True}
    return ResNetSize(blocks, width, stem, pooled), backbone


def _heads(settings: dict[str, Any], head: str, size: ResNetSize) -> tuple[dict[str, Any], dict[str, Any] | None]:
    low, high = size.channels
    both = {
        "num_classes": settings["num_classes"],
        "dropout_ratio": settings["dropout"],
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
        "align_corners": settings["align_corners"],
    }
    channels, pools = settings["context_channels"], tuple(settings["pool_sizes"])
    kind = head.split(",")[0]
    decode: dict[str, Any] = {"type": kind, "in_channels": high, "in_index": 3, "channels": channels} | both
    if kind == "ANNHead":
        decode |= {"in_channels": [low, high], "in_index": [2, 3], "project_channels": settings["key_channels"]}
        decode |= {"query_scales": (1,), "key_pool_scales": pools}
    elif kind == "PSPHead":
        decode |= {"pool_scales": pools}
    elif kind == "FCNHead":
        decode |= (
            {"num_convs": 2, "concat_input": True} if settings["refine"] else {"num_convs": 1, "concat_input": False}
        )
    else:
        reduction = channels // settings["key_channels"]
        if not reduction or channels // reduction != settings["key_channels"]:
            raise ConfigError(
                f"mmsegmentation's non-local block divides its channels, {channels}, by a whole number; key_channels "
                f"{settings['key_channels']} is no such part"
            )
        decode |= {"reduction": reduction, "use_scale": True, "mode": "embedded_gaussian", "concat_input": True}
    decode |= {"loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}}
    if not settings["aux_channels"]:
        return decode, None
    auxiliary = {"type": "FCNHead", "in_channels": low, "in_index": 2, "channels": settings["aux_channels"]} | both
    auxiliary |= {"num_convs": 1, "concat_input": False}
    auxiliary |= {"loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 0.4}}
    return decode, auxiliary
