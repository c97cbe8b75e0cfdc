"""What moves the weights: parameter groups, SGD or AdamW, and the poly schedule."""

import torch
from torch import nn

from asymseg.config import TrainConfig
from asymseg.model.annnet import ANNNet


def make_optimizer(network: ANNNet, settings: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over four groups: backbone and head, each with and without weight decay.

    Biases and the scales of normalisation layers have none unless `decay_all` is set. Every group carries `factor`,
    its share of the learning rate of the moment.
    """
    groups = []
    vector_decay = settings.weight_decay if settings.decay_all else 0.0
    for module, factor in ((network.backbone, settings.backbone_factor), (None, 1.0)):
        inside = {id(parameter) for parameter in network.backbone.parameters()}
        parameters = [
            parameter
            for parameter in network.parameters()
            if parameter.requires_grad and (id(parameter) in inside) == (module is not None)
        ]
        for decay, members in (
            (settings.weight_decay, [parameter for parameter in parameters if parameter.dim() > 1]),
            (
                vector_decay,
                [parameter for parameter in parameters if parameter.dim() <= 1],
            ),
        ):
            if members:
                groups.append({"params": members, "weight_decay": decay, "factor": factor})
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def learning_rate(step: int, settings: TrainConfig) -> float:
    """Learning rate of the head in step 0, 1, ...: linear warm-up times poly decay.

    It depends on the step alone, so a resumed run needs no state for it.
    """
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    left: float = (1 - step / settings.steps) ** settings.power
    return settings.learning_rate * warmup * (settings.final_factor + (1 - settings.final_factor) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def freeze_batchnorm(module: nn.Module) -> None:
    """Keep the statistics and scales of every BatchNorm in `module` as they are."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
