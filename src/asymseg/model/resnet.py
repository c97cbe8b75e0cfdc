"""ResNets that timm has no name for: other stems, depths and dilations, as published weights need them.

A backbone's name may carry changes after plus signs, as in `resnet101s+ceil` or `resnet50d+even+unpooled`:

| change | the network | whose |
| --- | --- | --- |
| ceil | the max-pooling of the stem rounds sizes up, not down | the authors' |
| even | the first block of a dilated stage is dilated like the others, not half as much | PaddleSeg's |
| unpooled | shortcuts of dilated stages have no pooling before their convolution | PaddleSeg's |
| blocks=3,4,6,3 | so many blocks in the four stages | |
| stem=32 | three 3x3 convolutions of 32, 32 and 64 channels begin it | |
| width=64 | inner channels of the first stage; each next stage has twice as many | |
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from torch import nn

from asymseg.errors import ConfigError

GEOMETRY = ("ceil", "even", "unpooled")
SIZES = ("blocks", "stem", "width")
ONCE = "a ResNet, and no other, takes each of ceil, even, unpooled, blocks=, stem= and width= once"


@dataclass(frozen=True)
class BackboneName:
    """A backbone's name, taken apart."""

    timm: str
    arguments: dict[str, Any]
    """What timm's constructor is told."""
    geometry: tuple[str, ...]
    """What is changed in the network it makes."""


def parse_name(name: str) -> BackboneName:
    """The parts of a name such as `resnet50d+even+unpooled`. Raises ConfigError for a change that is not known."""
    base, *changes = name.split("+")
    arguments: dict[str, Any] = {}
    geometry = []
    for place, change in enumerate(changes):
        key, equals, value = change.partition("=")
        known = SIZES if equals else GEOMETRY
        twice = any(earlier.partition("=")[0] == key for earlier in changes[:place])
        if not base.startswith("resnet") or key not in known or twice:
            close = get_close_matches(key, [*GEOMETRY, *SIZES], n=1)
            raise ConfigError(
                f"model.backbone = {name!r}: no change {change!r} can be made; "
                + (f"did you mean {close[0]!r}?" if close and close[0] != key else ONCE)
            )
        if equals:
            arguments |= _size(name, key, value)
        else:
            geometry.append(key)
    return BackboneName(base, arguments, tuple(geometry))


def change_geometry(features: nn.Module, changes: tuple[str, ...]) -> None:
    """Change a timm ResNet in place as `parse_name` says."""
    if "ceil" in changes:
        cast(nn.MaxPool2d, features.maxpool).ceil_mode = True
    for number in range(1, 5):
        stage = getattr(features, f"layer{number}", None)
        if stage is None:  # feature maps end before it
            continue
        first = stage[0]
        if "even" in changes:
            convolution = first.conv2 if hasattr(first, "conv3") else first.conv1
            convolution.dilation = convolution.padding = (first.dilation, first.dilation)
        if "unpooled" in changes and first.dilation > 1 and isinstance(first.downsample[0], nn.AvgPool2d):
            first.downsample[0] = nn.Identity()


def _size(name: str, key: str, value: str) -> dict[str, Any]:
    """The constructor's arguments for a change with a number."""
    parts = value.split(",")
    if len(parts) != (4 if key == "blocks" else 1) or not all(
        part.isascii() and part.isdecimal() and 0 < len(part) < 6 and int(part) > 0 for part in parts
    ):
        raise ConfigError(
            f"model.backbone = {name!r}: {key} takes {'four numbers' if key == 'blocks' else 'a number'} above 0"
        )
    numbers = tuple(int(part) for part in parts)
    if key == "blocks":
        return {"layers": numbers}
    if key == "stem":
        return {"stem_type": "deep", "stem_width": numbers[0]}
    return {"channels": tuple(numbers[0] * factor for factor in (1, 2, 4, 8))}
