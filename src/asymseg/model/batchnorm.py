"""BatchNorm as what it is in evaluation, one factor and one summand per channel, folded into convolutions."""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float64
from timm.layers import BatchNormAct2d, Conv2dSame, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asymseg.blocks.attention import PointwiseConv2d
from asymseg.model.convolution import is_watched
from asymseg.model.dilated import DilatedDepthwiseConv2d
from asymseg.model.winograd import WinogradConv2d

_LINEAR = (nn.Conv2d, PointwiseConv2d, DilatedDepthwiseConv2d, WinogradConv2d, Conv2dSame)
"""Convolutions whose result is linear in `weight`; a subclass may first standardise it, for example."""

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)
"""BatchNorms of which it is known what they do besides."""


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
    pairs = _watch(network, run)
    plain = [(convolution.weight, convolution.bias) for convolution, _ in pairs]
    rests = [_remainder(norm) for _, norm in pairs]
    for (convolution, norm), rest in zip(pairs, rests, strict=True):
        factor, summand = affine(norm)
        weight, bias = convolution.weight, convolution.bias
        folded = factor[:, None, None, None] * weight.double()
        summand = summand if bias is None else summand + factor * bias.double()
        convolution.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=weight.requires_grad)
        convolution.bias = nn.Parameter(summand.to(weight.dtype), requires_grad=weight.requires_grad)
        _replace(network, norm, rest)
    still_called = _called([norm for _, norm in pairs], run)
    for (convolution, norm), rest, (weight, bias) in zip(pairs, rests, plain, strict=True):
        if norm in still_called:  # the network also holds it where modules are not looked for, such as in a list
            convolution.weight, convolution.bias = weight, bias
            _replace(network, rest, norm)


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
        if id(args[0]) in uses.watched:  # another tensor's id may come back once it is gone
            taken_by[id(args[0])] = module

    handles = []
    for module in network.modules():
        if is_watched(module):
            continue  # its hooks may change what comes in or out
        if type(module) in _LINEAR:
            handles.append(module.register_forward_hook(after_convolution))
        elif type(module) in _NORMS and cast(_BatchNorm, module).track_running_stats:
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
    """What is left of a BatchNorm once it is folded, in a module of its own: timm's have their activation in them."""
    activation = getattr(norm, "act", None)
    return nn.Sequential(activation) if isinstance(activation, nn.Module) else nn.Identity()


def _called(modules: list[nn.Module], run: Callable[[], object]) -> set[nn.Module]:
    """Which of the modules a forward pass calls."""
    called: set[nn.Module] = set()
    handles = [module.register_forward_pre_hook(lambda module, args: called.add(module)) for module in modules]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return called


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, under each of its names."""
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
