"""Backbones: anything that turns an image into two feature maps, `low` and `high`.

A backbone is a module whose forward gives `(low, high)` and whose `channels` names their two widths. It may also have
`size_multiple`, where it takes only images whose height and width are multiples of that (default 1), and `stride`, the
image pixels per pixel of `high` (default 1). timm models that give feature maps become one here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from asymseg.errors import CheckpointError, ConfigError
from asymseg.model.asking import attempts_unsaid
from asymseg.model.dilated import DilatedDepthwiseConv2d
from asymseg.model.foreign.imagenet import read_imagenet
from asymseg.model.recomputing import recomputed_features
from asymseg.model.resnet import BackboneName, change_geometry, parse_name


class TimmBackbone(nn.Module):
    """The two last feature maps of a timm feature network, whatever its family.

    Channels, strides, memory order and the sizes it can take are read off the network by running it once.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.checkpointing = False
        """Whether training keeps the maps between blocks alone and computes those within again."""
        info: Any = features.feature_info
        self.channels: tuple[int, int] = tuple(info.channels()[-2:])
        self.strides: tuple[int, int] = tuple(info.reduction()[-2:])
        self.stride = self.strides[1]
        self.channels_last_output = str(getattr(features, "output_fmt", "")).endswith("NHWC")
        # A network may go deeper than its last map here, and then comes back up; HRNet does.
        candidates = (1, max(self.strides), max(stage["reduction"] for stage in info.info))
        faults: list[str] = []
        for self.size_multiple in candidates:
            fault = self._fault_with_multiples_of(self.size_multiple)
            if fault is None:
                break
            faults.append(fault)
        else:
            raise ConfigError(f"it takes images of one size only, or of none here ({faults[-1]}); choose another")

    def forward(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b l hl wl"], Float[Tensor, "b g hg wg"]]:
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        low, high = (recomputed_features(self.features, images) if again else self.features(images))[-2:]
        if self.channels_last_output:
            low, high = low.permute(0, 3, 1, 2), high.permute(0, 3, 1, 2)
        return low, high

    def _fault_with_multiples_of(self, multiple: int) -> str | None:
        """Why odd and tiny multiples do not give maps of ceil(size / stride), as padded convolutions do, or None."""
        was_training = self.training
        self.eval()
        channels = next(parameter for parameter in self.parameters() if parameter.dim() == 4).shape[1]
        try:
            for height, width in ((65, 97), (3, 5)):
                height, width = height + -height % multiple, width + -width % multiple
                with torch.no_grad():
                    maps = self(torch.zeros(1, channels, height, width))
                for map_, stride in zip(maps, self.strides, strict=True):
                    if map_.shape[2:] != (-(-height // stride), -(-width // stride)):
                        return f"a map of {tuple(map_.shape[2:])} for an image of {(height, width)}"
        except (RuntimeError, AssertionError, ValueError) as error:
            return _one_line(error)
        finally:
            self.train(was_training)
        return None


def make_backbone(
    name: str, pretrained: bool | Path, stages: tuple[int, int], output_stride: int, in_channels: int
) -> TimmBackbone:
    """Two feature maps of the timm model `name`, the second at the given output stride.

    A ResNet's name may carry changes, as `asymseg.model.resnet` has them. `pretrained` may be a file of weights under
    timm's names, torchvision's or mmsegmentation's.

    Raises ConfigError for an unknown name or a stride the family does not have, CheckpointError for weights that
    cannot be had or do not fit.
    """
    parts = parse_name(name)
    if not timm.is_model(parts.timm):
        close = get_close_matches(parts.timm, timm.list_models(), n=4)
        hint = f"; close: {', '.join(close)}" if close else ""
        raise ConfigError(f"model.backbone = {name!r} is no timm model{hint}")
    weights: dict[str, Any] = {}
    if isinstance(pretrained, Path):
        names, place = _weights_in(pretrained)
        weights = {"pretrained": True, "pretrained_cfg_overlay": place}
    elif pretrained:
        weights = {"pretrained": True}
    with _no_word_of_surplus_keys(), attempts_unsaid():
        features = _create(parts, stages, output_stride, in_channels, weights, pretrained)
    if isinstance(pretrained, Path):
        _check_all_loaded(features, names, pretrained, name)
    change_geometry(features, parts.geometry)
    DilatedDepthwiseConv2d.replace_in(features)
    try:
        backbone = TimmBackbone(features)
    except ConfigError as error:
        raise ConfigError(f"model.backbone = {name!r} cannot be used: {error}") from None
    if backbone.stride != output_stride:
        raise ConfigError(
            f"model.backbone = {name!r} cannot have output stride {output_stride}; "
            f"its own is {backbone.stride}: set model.output_stride to {backbone.stride}"
        )
    return backbone


def backbone_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB images (0..1) that timm's weights of this model were trained with."""
    settings = timm.get_pretrained_cfg(parse_name(name).timm)
    mean, std = (
        (settings.mean, settings.std) if settings else (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    )
    return tuple(mean), tuple(std)


def _create(
    parts: BackboneName,
    stages: tuple[int, int],
    output_stride: int,
    in_channels: int,
    weights: dict[str, Any],
    pretrained: bool | Path,
) -> nn.Module:
    """The timm feature network. Families differ in what they accept, and say so only by refusing an argument."""
    name = parts.timm
    refused: Exception | None = None
    for family in ({"output_stride": output_stride}, {"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            return timm.create_model(
                name,
                features_only=True,
                out_indices=stages,
                in_chans=in_channels,
                **family,
                **parts.arguments,
                **weights,
            )
        except (TypeError, AssertionError) as error:
            refused = error
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            if not weights:
                raise ConfigError(f"model.backbone = {name!r} gives no feature maps: {_one_line(error)}") from None
            if isinstance(pretrained, Path):
                what = f"{pretrained}: could not be loaded into {name}"
            else:
                what = f"timm's weights of {name}: could not be had or loaded"
            raise CheckpointError(
                f"{what} ({_one_line(error)}); set model.pretrained to false, or to a safetensors file of this model"
            ) from None
    raise ConfigError(f"model.backbone = {name!r} gives no feature maps: {_one_line(refused)}")


@contextmanager
def _no_word_of_surplus_keys() -> Iterator[None]:
    """Keep timm from listing keys that feature maps do not need, the classifier's above all."""
    log = logging.getLogger("timm.models._builder")

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Unexpected keys")

    log.addFilter(wanted)
    try:
        yield
    finally:
        log.removeFilter(wanted)


def _weights_in(path: Path) -> tuple[set[str], dict[str, Any]]:
    """timm's names of the tensors in a file, and where timm is to take them from."""
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; model.pretrained takes true, false, a file of weights or a model's folder"
        )
    if path.suffix != ".safetensors":
        with path.open("rb") as file:
            if file.read(9)[8:] == b"{":  # timm would take it for a pickle
                raise CheckpointError(
                    f"{path}: not a safetensors file by its name; rename it to {path.stem}.safetensors"
                )
        tensors = read_imagenet(path)
        return set(tensors), {"state_dict": tensors}
    try:
        with safe_open(path, framework="pt") as content:
            return set(content.keys()), {"file": str(path)}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from None


def _check_all_loaded(features: nn.Module, names: set[str], path: Path, model: str) -> None:
    """Refuse a file that lacks weights of the network: timm fills what fits and leaves the rest at noise."""

    def plain(name: str) -> str:
        return name.removeprefix("model.").replace(".", "_")  # timm's feature wrappers rename modules this way

    known = {plain(name) for name in names}
    missing = [key for key in features.state_dict() if plain(key) not in known and "num_batches_tracked" not in key]
    if missing:
        raise CheckpointError(
            f"{path}: lacks {len(missing)} tensors of {model}, first {', '.join(missing[:3])}; "
            "the file must hold this model's weights under timm's names"
        )


def _one_line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
