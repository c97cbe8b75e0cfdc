"""A dialect's names for the parts of a network, and the network filled from a checkpoint: every key or none."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast

import torch
from torch import Tensor, nn

from asymseg.errors import CheckpointError
from asymseg.model.info import ModelInfo

TORCH_NORM = {name: name for name in ("weight", "bias", "running_mean", "running_var")}
COUNTER = "num_batches_tracked"
SHOWN = 5
"""Modules listed in a message for each kind of fault; the others are counted."""


@dataclass(frozen=True)
class Translation:
    """How one checkpoint becomes a network."""

    dialect: str
    """Whose names these are, for messages."""
    settings: dict[str, Any]
    """The network that the weights are for."""
    modules: dict[str, str]
    """Our convolutions and BatchNorms -> theirs."""
    info: ModelInfo
    biased: frozenset[str] = frozenset()
    """Our convolutions without a bias that have one in this dialect; the BatchNorm after them takes it in."""
    twins: dict[str, str] = field(default_factory=dict)
    """Modules that a checkpoint may hold a second time -> where it holds them first."""
    norm: Mapping[str, str] = field(default_factory=lambda: TORCH_NORM)
    """Our names of BatchNorm's tensors -> theirs."""


def fill(network: nn.Module, translation: Translation, tensors: Mapping[str, Tensor], source: str) -> list[str]:
    """Copy the weights into the network and give the keys that were left out because others repeat them.

    Raises CheckpointError, which begins with `source`, for keys that are missing, unknown or of another shape, and
    for repeated keys that differ.
    """
    check_keys(network, translation, tensors, source)
    with torch.no_grad():
        for ours, theirs in translation.modules.items():
            module = network.get_submodule(ours)
            if isinstance(module, nn.BatchNorm2d):
                for name, other in translation.norm.items():
                    getattr(module, name).copy_(tensors[f"{theirs}.{other}"])
                if module.num_batches_tracked is not None and f"{theirs}.{COUNTER}" in tensors:
                    module.num_batches_tracked.copy_(tensors[f"{theirs}.{COUNTER}"])
            elif isinstance(module, nn.Conv2d):
                module.weight.copy_(tensors[f"{theirs}.weight"])
                if module.bias is not None:
                    module.bias.copy_(tensors[f"{theirs}.bias"])
        for ours in translation.biased:
            # BN(W x + b) with the mean m is BN(W x) with the mean m - b, in training and in evaluation alike.
            theirs_norm = translation.modules[_norm_after(ours)]
            mean = tensors[f"{theirs_norm}.{translation.norm['running_mean']}"].double()
            bias = tensors[f"{translation.modules[ours]}.bias"].double()
            norm = network.get_submodule(_norm_after(ours))
            cast(Tensor, norm.running_mean).copy_(mean - bias)
    return sorted(key for key in tensors if _first_of(key, translation.twins) is not None)


def check_keys(network: nn.Module, translation: Translation, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless `tensors` holds all that the network needs, in its shapes, and no more."""
    expected = dict(_expected(network, translation))
    # BatchNorm's counters are younger than some checkpoints.
    optional = {f"{key.rpartition('.')[0]}.{COUNTER}" for key in expected if key.endswith(".running_mean")}
    missing = [key for key in expected if key not in tensors]
    surplus, other, unequal = [], [], []
    for key, tensor in tensors.items():
        first = _first_of(key, translation.twins)
        if first is not None:
            if first in tensors and not torch.equal(tensor, tensors[first]):
                unequal.append(key)
        elif key in expected:
            if tensor.shape != expected[key]:
                other.append(f"{key} is {tuple(tensor.shape)} and not {tuple(expected[key])}")
            elif not tensor.is_floating_point():
                other.append(f"{key} is of {tensor.dtype} and not of floats")
        elif key not in optional or tensor.numel() != 1 or tensor.is_floating_point():
            surplus.append(key)
    faults = []
    if missing:
        faults.append(f"it lacks {_listed(missing, surplus, 'it has')}")
    if surplus:
        faults.append(f"it has unknown {_listed(surplus, missing, 'perhaps')}")
    if other:
        faults.append(f"of another shape: {'; '.join(other[:SHOWN])}{_more(other)}")
    if unequal:
        pairs = ", ".join(f"{key} and {_first_of(key, translation.twins)}" for key in unequal[:SHOWN])
        faults.append(f"one module in two values, so that none can be chosen: {pairs}{_more(unequal)}")
    if faults:
        raise CheckpointError(f"{source}: not quite a checkpoint of {translation.dialect}; " + "; ".join(faults))


def numbers(value: Any, name: str, count: int, above: float = -math.inf) -> tuple[float, ...]:
    """A setting that came with weights, as `count` numbers. Raises CheckpointError."""
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) != count or not all(type(v) in (int, float) and above < v < math.inf for v in values):
        raise CheckpointError(f"its settings have no {name} of {count} {'number' if count == 1 else 'numbers'}")
    return tuple(float(number) for number in values)


def _expected(network: nn.Module, translation: Translation) -> Iterable[tuple[str, torch.Size]]:
    for ours, theirs in translation.modules.items():
        module = network.get_submodule(ours)
        if isinstance(module, nn.BatchNorm2d):
            yield from ((f"{theirs}.{name}", module.weight.shape) for name in translation.norm.values())
        elif isinstance(module, nn.Conv2d):
            yield f"{theirs}.weight", module.weight.shape
            if module.bias is not None or ours in translation.biased:
                yield f"{theirs}.bias", torch.Size([module.out_channels])


def _norm_after(convolution: str) -> str:
    """In a Sequential of convolution and BatchNorm, the second's name from the first's."""
    return f"{convolution.removesuffix('.0')}.1"


def _first_of(key: str, twins: Mapping[str, str]) -> str | None:
    """The key that this one repeats, or None."""
    return next((first + key.removeprefix(twin) for twin, first in twins.items() if key.startswith(f"{twin}.")), None)


def _listed(keys: list[str], others: list[str], word: str) -> str:
    """Keys by module, as in `3 keys: conv_seg.{weight, bias}, stem.0.weight (perhaps stem.zero)`."""
    modules, candidates = _by_module(keys), _by_module(others)
    parts = []
    for module, leaves in list(modules.items())[:SHOWN]:
        text = f"{module}.{leaves[0]}" if len(leaves) == 1 else f"{module}.{{{', '.join(leaves)}}}"
        close = get_close_matches(module, candidates, n=1, cutoff=0.75)
        parts.append(f"{text.lstrip('.')} ({word} {close[0]})" if close else text.lstrip("."))
    rest = f" and {len(modules) - SHOWN} more modules" if len(modules) > SHOWN else ""
    return f"{len(keys)} {'key' if len(keys) == 1 else 'keys'}: {', '.join(parts)}{rest}"


def _by_module(keys: list[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        module, _, leaf = key.rpartition(".")
        modules[module].append(leaf)
    return modules


def _more(items: list[str]) -> str:
    return f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
