"""What a run keeps so that it can go on: weights, optimizer, moving average, loss scale, step and best score.

Order of images, augmentation, dropout and learning rate are functions of the step alone and need no state.
"""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from asymseg.atomic import atomic_folder, surviving_folder
from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import ModelInfo, write_model

STATE = "training.pt"


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps done."""
    best_miou: float = -1.0
    best_step: int = 0
    losses: list[float] = field(default_factory=list)
    """Of each step since the last training line of the log."""


def save_last(
    folder: Path,
    progress: Progress,
    network: ANNNet,
    optimizer: torch.optim.Optimizer,
    average: ModelEmaV3 | None,
    accelerator: Accelerator,
    info: ModelInfo,
) -> None:
    """Write `folder` as a model that can be used and a state that can be resumed, whole or not at all."""
    state: dict[str, Any] = {
        "progress": vars(progress),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.module.state_dict() if average is not None else None,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
    }
    with atomic_folder(folder) as temporary:
        write_model(temporary, evaluated_network(network, average), info)
        torch.save(state, temporary / STATE)


def load_last(
    folder: Path,
    network: ANNNet,
    optimizer: torch.optim.Optimizer,
    average: ModelEmaV3 | None,
    accelerator: Accelerator,
) -> Progress | None:
    """Fill network, optimizer and the rest from `folder`; None where there is no state yet. Raises CheckpointError."""
    found = surviving_folder(folder)
    if found is None:
        return None
    path = found / STATE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        _load_optimizer(optimizer, state["optimizer"])
        if average is not None:
            average.module.load_state_dict(state["average"])
        if accelerator.scaler is not None and state["scaler"] is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
        return Progress(**state["progress"])
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be resumed with these settings ({reason}); "
            "keep the model and optimizer settings of the run, or start anew with another --out"
        ) from None


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over momenta and the like; rates, decay and the rest stay as the settings of now say."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    if [set(group) - {"params"} for group in state["param_groups"]] != [set(group) for group in settings]:
        raise ValueError("another optimizer, or other parts of the network frozen")
    optimizer.load_state_dict(state)
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        group.update(kept)


def evaluated_network(network: ANNNet, average: ModelEmaV3 | None) -> ANNNet:
    """The network that is measured and saved: the moving average where there is one."""
    module: nn.Module = network if average is None else average.module
    assert isinstance(module, ANNNet)
    return module
