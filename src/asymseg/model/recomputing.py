"""Training in less memory: maps that are not kept for the backward pass but computed again in it.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv 1604.06174.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from jaxtyping import Float
from timm.models import FeatureListNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed_features(features: nn.Module, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
    """What `features` gives; of the maps on the way, training keeps those between blocks alone.

    timm's lists of stages go block by block, any other network in one piece.
    """
    if not isinstance(features, FeatureListNet):
        return list(_run(features, images))
    maps: list[Tensor] = []
    x: Any = images
    for piece, gives_map in _pieces(features):
        x = _run(piece, x)
        if gives_map:
            maps.append(x)
    return maps


def _pieces(features: FeatureListNet) -> Iterator[tuple[nn.Module, bool]]:
    """Parts of a network that overwrite nothing they get, in order, and whether what they give is asked for.

    Single layers stay together up to the next block or map, for one may overwrite what another gave, and then that
    could not be computed again.
    """
    layers = nn.Sequential()
    for name, stage in features.items():
        asked_for = name in features.return_layers
        blocks = blocks_in_row(stage) or [stage]
        if not is_block(stage):
            layers.append(stage)
            blocks = [layers] if asked_for else []
        elif len(layers) > 0:
            yield layers, False
        if blocks:
            layers = nn.Sequential()
        yield from ((block, asked_for and block is blocks[-1]) for block in blocks)


def is_block(module: nn.Module) -> bool:
    """Whether a module has parts with weights, other than a norm with an activation in it."""
    return any(parameter.dim() > 1 for child in module.children() for parameter in child.parameters())


def blocks_in_row(module: nn.Module) -> list[nn.Module]:
    """The blocks of a module that is nothing but a row of them; none of any other."""
    return list(module) if type(module) is nn.Sequential and all(map(is_block, module)) else []


def _run(part: nn.Module, x: Tensor) -> Any:
    return checkpoint(part, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _WithoutStatistics(part)))


class _WithoutStatistics:
    """A further pass in training that leaves the running averages of BatchNorm to the first; one for each backward."""

    def __init__(self, part: nn.Module) -> None:
        self.norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
