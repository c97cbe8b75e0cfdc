"""Weights to measure with: fresh ones would hide differences, for a new block's output is zero."""

from collections.abc import Callable

import torch
from torch import nn


@torch.no_grad()
def liven(module: nn.Module, forward: Callable[[], object]) -> None:
    """Fill `module` with noise of a trained network's size and leave it in evaluation form.

    Weights that start at zero get noise, BatchNorm any scale, and its averages are those of one `forward` in training,
    so that values stay of one size through a deep network. A scale that starts at zero ends a residual branch and stays
    small, as training leaves it: branches as strong as what goes past them make rounding grow from block to block.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    ends = {norm for norm in norms if not norm.weight.any()}
    for parameter in module.parameters():
        if not parameter.any():
            fan_in = max(1, parameter[0].numel())
            parameter.normal_(std=fan_in**-0.5)
    for norm in norms:
        norm.weight.uniform_(*((0.1, 0.3) if norm in ends else (0.5, 1.5)))
        norm.bias.normal_(std=0.3)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    module.train()
    forward()
    module.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
