"""A run that begins with all weights of a trained network, whose classes may be others."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from asymseg.classes import Classes
from asymseg.errors import CheckpointError, ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.model.source import open_model
from asymseg.model.zoo import ZOO

_FREE = ("num_classes", "output_stride", "aux_channels", "dropout", "align_corners")
"""Settings in which the two networks may differ: no weight that is taken over depends on them."""


def names_model(pretrained: bool | Path) -> TypeGuard[Path]:
    """Whether `model.pretrained` names a whole network, and not the weights of a backbone."""
    return isinstance(pretrained, Path) and (pretrained.is_dir() or str(pretrained) in ZOO)


def begin_with(source: Path, network: ANNNet, classes: Classes) -> ModelInfo:
    """Fill a network with the weights of the model that `source` names; what travels with that model, for RGB images.

    A classifier takes the rows of the classes that both have, by their names; its others stay as they are, as does an
    auxiliary classifier of another width.

    Raises CheckpointError where there is no such model, ConfigError where its network is built otherwise.
    """
    trained, info = open_model(source)
    if not isinstance(trained, ANNNet):
        raise CheckpointError(f"{source}: a folded network, which cannot be trained; begin with the one it was made of")
    others = {
        name: value for name, value in trained.settings.items() if name not in _FREE and value != network.settings[name]
    }
    if others:
        flags = " ".join(f"--model.{name} {_as_typed(value)}" for name, value in others.items())
        raise ConfigError(f"{source}: its network is built otherwise; begin with it by {flags}")
    if info.channel_order == "BGR":
        first = next(weight for weight in trained.backbone.parameters() if weight.dim() == 4)
        first.data = first.data.flip(1)
        info = replace(info, mean=info.mean[::-1], std=info.std[::-1], channel_order="RGB")
    rows = [(classes.names.index(name), row) for row, name in enumerate(info.classes.names) if name in classes.names]
    for name, part in network.named_children():
        if name not in ("classifier", "aux_classifier"):
            part.load_state_dict(getattr(trained, name).state_dict())
    _take_rows(network.classifier, trained.classifier, rows)
    own, given = network.aux_classifier, trained.aux_classifier
    if own is not None and given is not None and network.settings["aux_channels"] == trained.settings["aux_channels"]:
        own[:-1].load_state_dict(given[:-1].state_dict())
        _take_rows(own[-1], given[-1], rows)
    return info


@torch.no_grad()
def _take_rows(own: nn.Module, given: nn.Module, rows: list[tuple[int, int]]) -> None:
    for tensor, other in zip(own.parameters(), given.parameters(), strict=True):
        for to, row in rows:
            tensor[to] = other[row]


def _as_typed(value: Any) -> str:
    """A setting's value as the command line takes it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
