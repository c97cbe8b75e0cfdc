"""What mmsegmentation's settings say about a network beyond its weights, and what they say that cannot be had here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asymseg.errors import CheckpointError, ConfigError
from asymseg.model.foreign.translation import numbers
from asymseg.model.seeing import Seeing

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

STRIDES: dict[tuple[Any, Any], Literal[8, 16, 32]] = {
    ((1, 2, 1, 1), (1, 1, 2, 4)): 8,
    ((1, 2, 2, 1), (1, 1, 1, 2)): 16,
    ((1, 2, 2, 2), (1, 1, 1, 1)): 32,
}
"""Strides and dilations of the four stages -> stride of the last map."""

BACKBONE = {
    "type": ("ResNetV1c", "ResNetV1d", "ResNet"),
    "num_stages": (4,),
    "out_indices": ((0, 1, 2, 3),),
    "style": ("pytorch",),
    "conv_cfg": (None,),
    "dcn": (None,),
    "plugins": (None,),
    "multi_grid": (None,),
}
EVERY_HEAD: dict[str, tuple[Any, ...]] = {
    "conv_cfg": (None,),
    "act_cfg": ({"type": "ReLU"}, {"type": "ReLU", "inplace": True}),
}
HEAD: dict[str, dict[str, tuple[Any, ...]]] = {
    "ANNHead": {"in_index": ((2, 3),), "query_scales": ((1,),)},
    "PSPHead": {"in_index": (3, -1)},
    "FCNHead": {"in_index": (3, -1), "kernel_size": (3,), "dilation": (1,)},
    "NLHead": {
        "in_index": (3, -1),
        "kernel_size": (3,),
        "dilation": (1,),
        "concat_input": (True,),
        "use_scale": (True,),
        "mode": ("embedded_gaussian",),
    },
}
"""What is not seen in the weights -> the values with which the network is the one here, their default first."""

NORM = {"type": ("SyncBN", "BN", "BN2d", "SyncBatchNorm", "MMSyncBN"), "eps": (1e-5,)}


@dataclass(frozen=True)
class Settings:
    """What the weights do not show."""

    output_stride: Literal[8, 16, 32] = 8
    even: bool = False
    """Whether the first block of a dilated stage is dilated like the others."""
    align_corners: bool | None = None
    """None where nothing says it."""
    dropout: float = 0.1
    pool_sizes: tuple[int, ...] | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channel_order: Literal["RGB", "BGR"] = "RGB"
    seeing: Seeing = field(default_factory=Seeing)

    def backbone_changes(self, pooled: bool) -> list[str]:
        """The changes to timm's ResNet that make it theirs, in the words of `asymseg.model.resnet`."""
        dilated = self.output_stride < 32
        return ["even"] * (self.even and dilated) + ["unpooled"] * (pooled and dilated)


def understand(config: Mapping[str, Any], head: str) -> Settings:
    """Settings from the variables of a configuration, which may be empty; then they are those of the published ones.

    Raises CheckpointError for what would be another network than the one here.
    """
    model = config.get("model")
    if not isinstance(model, dict):
        return Settings(**_preprocessing(config, {}))
    backbone, decode = _part(model, "backbone"), _part(model, "decode_head")
    _check(model, "model", {"neck": (None,)})
    _check(backbone, "backbone", BACKBONE)
    _check(decode, "decode_head", {"type": (head,)} | EVERY_HEAD | HEAD[head])
    for where, part in {"backbone": backbone, "decode_head": decode}.items():
        _check(_part(part, "norm_cfg"), f"{where}.norm_cfg", NORM)
    pools = decode.get("key_pool_scales" if head == "ANNHead" else "pool_scales")
    return Settings(
        output_stride=_output_stride(backbone),
        even=not backbone.get("contract_dilation", False),
        align_corners=bool(decode.get("align_corners", False)),
        dropout=numbers(decode.get("dropout_ratio", 0.1), "dropout_ratio", 1)[0],
        pool_sizes=None if pools is None else _pool_sizes(pools),
        seeing=_seeing(_part(model, "test_cfg") or _part(config, "test_cfg")),
        **_preprocessing(config, model),
    )


def _seeing(test: Mapping[str, Any]) -> Seeing:
    """How it is tested: whole, or by windows whose logits are averaged; 0.x before 0.8 says so beside the model."""
    if test.get("mode") != "slide":
        return Seeing()
    window, stride = _plain(test.get("crop_size")), _plain(test.get("stride"))
    try:
        return Seeing("slide", window, stride, average="mixed")
    except ConfigError as error:
        raise CheckpointError(f"its settings say test_cfg crop_size {window} and stride {stride}: {error}") from None


def _output_stride(backbone: Mapping[str, Any]) -> Literal[8, 16, 32]:
    strides, dilations = backbone.get("strides", (1, 2, 2, 2)), backbone.get("dilations", (1, 1, 1, 1))
    for known, stride in STRIDES.items():
        if (_plain(strides), _plain(dilations)) == known:
            return stride
    raise CheckpointError(
        f"its settings say backbone strides {str(strides)[:40]} and dilations {str(dilations)[:40]}, "
        "which asymseg does not have"
    )


def _preprocessing(config: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, deviation and order of the channels: 1.x has them in `data_preprocessor`, 0.x in `img_norm_cfg`."""
    newer = model.get("data_preprocessor") or config.get("data_preprocessor")
    older = config.get("img_norm_cfg")
    if isinstance(newer, dict):
        found, rgb = newer, newer.get("bgr_to_rgb", False)
    elif isinstance(older, dict):
        found, rgb = older, older.get("to_rgb", True)
    else:
        return {}
    return {
        "mean": numbers(found.get("mean", (0.0, 0.0, 0.0)), "mean", 3),
        "std": numbers(found.get("std", (1.0, 1.0, 1.0)), "std", 3, above=0.0),
        "channel_order": "RGB" if rgb else "BGR",
    }


def _check(part: Mapping[str, Any], where: str, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    for name, values in allowed.items():
        value = _plain(part.get(name, values[0]))
        if value not in values:
            raise CheckpointError(
                f"its settings say {where}.{name} = {str(value)[:60]}, which asymseg does not have; "
                f"it has {' and '.join(map(str, values))}"
            )


def _pool_sizes(value: Any) -> tuple[int, ...]:
    sizes = _plain(value)
    if not isinstance(sizes, tuple) or not sizes or not all(type(s) is int and 0 < s <= 64 for s in sizes):
        raise CheckpointError(f"its settings say pool scales {str(value)[:60]}, which are no grid sizes")
    return sizes


def _plain(value: Any) -> Any:
    """Lists as tuples, so that the two are the same, as they are there."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}
