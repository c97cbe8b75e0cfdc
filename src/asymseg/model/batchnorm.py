"""BatchNorm as what it is in evaluation, one factor and one summand per channel, folded into convolutions."""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float64
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asymseg.blocks.attention import PointwiseConv2d
from asymseg.model.dilated import DilatedDepthwiseConv2d
from asymseg.model.winograd import WinogradConv2d

_LINEAR = (nn.Conv2d, PointwiseConv2d, DilatedDepthwiseConv2d, WinogradConv2d, Conv2dSame)
"""Convolutions whose result is linear in `weight`; a subclass may first standardise it, for example."""


def affine(norm: nn.Module) -> tuple[Float64[Tensor, " c"], Float64[Tensor, " c"]]:
    """Factor and summand of each channel of a BatchNorm in evaluation, in float64."""
    norm = cast(nn.BatchNorm2d, norm)
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    summand = -mean * factor
    if norm.bias is not None:
        summand = summand + norm.bias.double()
    return factor, summand


@torch.no_grad()
def fold_batchnorm(network: nn.Module, run: Callable[[], object]) -> None:
    """Fold, in place, each BatchNorm of a network in evaluation mode into the convolution whose result it alone takes.

    Which these are is seen by watching `run`, one forward pass, and not guessed from names. A BatchNorm behind
    anything else stays as it is.
    """
    for convolution, norm in _watch(network, run):
        factor, summand = affine(norm)
        weight, bias = convolution.weight, convolution.bias
        folded = factor[:, None, None, None] * weight.double()
        summand = summand if bias is None else summand + factor * bias.double()
        convolution.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=weight.requires_grad)
        convolution.bias = nn.Parameter(summand.to(weight.dtype), requires_grad=weight.requires_grad)
        _replace(network, norm, _remainder(norm))


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often each watched tensor is taken by an operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watched: dict[int, tuple[Tensor, int]] = {}  # the tensor too, so that its id stays its own

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if id(leaf) in self.watched:
                tensor, count = self.watched[id(leaf)]
                self.watched[id(leaf)] = tensor, count + 1
        return func(*args, **(kwargs or {}))


def _watch(network: nn.Module, run: Callable[[], object]) -> list[tuple[nn.Conv2d, nn.Module]]:
    """The pairs of a convolution and the BatchNorm that alone takes its result, each of them called once."""
    uses = _Uses()
    made_by: dict[int, nn.Conv2d] = {}
    taken_by: dict[int, nn.Module] = {}
    calls: dict[nn.Module, int] = {}

    def after_convolution(module: nn.Module, args: Any, result: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        uses.watched[id(result)] = result, 0
        made_by[id(result)] = cast(nn.Conv2d, module)

    def before_norm(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        taken_by[id(args[0])] = module

    handles = []
    for module in network.modules():
        if type(module) in _LINEAR:
            handles.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        with uses:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return [
        (convolution, taken_by[key])
        for key, convolution in made_by.items()
        if key in taken_by and uses.watched[key][1] == 1 and calls[convolution] == calls[taken_by[key]] == 1
    ]


def _remainder(norm: nn.Module) -> nn.Module:
    """What is left of a BatchNorm once it is folded: timm's carry their activation with them."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)
