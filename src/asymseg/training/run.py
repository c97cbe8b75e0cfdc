"""All that moves during a run."""

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from asymseg.model.annnet import ANNNet


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps done."""
    best_miou: float = -1.0
    best_step: int = 0
    losses: list[float] = field(default_factory=list)
    """Of each step since the last training line of the log."""
    unvalidated: bool = False
    """Whether the validation that is due after `step` was cut short."""


@dataclass
class Run:
    """All that moves during a run."""

    network: ANNNet
    model: nn.Module
    """The same network, as accelerate wraps it."""
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None
    """Moving average of the network, where there is one."""
    accelerator: Accelerator
    progress: Progress = field(default_factory=Progress)
    outline: ANNNet | None = None
    """The network without its numbers, where the processes share these out."""

    @property
    def evaluated(self) -> ANNNet:
        """The network that is measured and saved, perhaps in shares: the moving average where there is one."""
        module: nn.Module = self.network if self.average is None else self.average.module
        assert isinstance(module, ANNNet)
        return module
