"""ANNNet's head, folded and not, against the plain equations and its own bare 3x3 convolution."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asymseg.benchmarking.comparison import Contestant, Say, Trial, compare, trials
from asymseg.benchmarking.figures import Comparison
from asymseg.benchmarking.machine import HALF, autocast, evaluating, highest_rates, in_reused_memory
from asymseg.benchmarking.rivals import plain_head
from asymseg.benchmarking.settings import BenchmarkSettings, Precision, Size
from asymseg.benchmarking.weights import liven
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import parameter_count
from asymseg.model.folding import fold

PREDICTED = "folded, as predicted"
"""As the predictor runs it: the channels of a pixel side by side, and memory kept from call to call."""
CLASSES = 19
SIZES: tuple[Size, ...] = ((64, 128), (97, 97))
TRAINING_SIZES: tuple[Size, ...] = ((48, 48),)
TRAINING_BATCH = 2
QUICK_SIZES: tuple[Size, ...] = ((8, 8),)

Head = Callable[[Tensor, Tensor], Tensor]


class Maps(nn.Module):
    """Stands where a backbone would: two maps of ones, at an eighth of the images' size."""

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.channels = (low_channels, high_channels)

    def forward(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b l hl wl"], Float[Tensor, "b g hg wg"]]:
        batch, _, height, width = images.shape
        low, high = (images.new_ones(batch, wide, -(-height // 8), -(-width // 8)) for wide in self.channels)
        return low, high


def benchmark_head(settings: BenchmarkSettings, device: torch.device, say: Say) -> list[Comparison]:
    """Prediction and a training step, for each precision and batch size."""
    network = make_head(quick=settings.quick).to(device)
    comparisons = []
    for trial in trials(settings, device, say):
        comparisons.append(_prediction(network, trial))
        comparisons.append(_training(network, replace(trial, batch=max(TRAINING_BATCH, trial.batch))))
    return comparisons


def make_head(*, quick: bool) -> ANNNet:
    """An ANNNet of ResNet-50's widths, or a tiny one, without a backbone."""
    low, high, narrow, wide = (8, 16, 8, 16) if quick else (1024, 2048, 256, 512)
    network = ANNNet(
        CLASSES, Maps(low, high), key_channels=narrow, value_channels=narrow, context_channels=wide, aux_channels=0
    )
    liven(network, lambda: network.head(torch.randn(2, low, 16, 16), torch.randn(2, high, 16, 16)))
    return network


def _prediction(network: ANNNet, trial: Trial) -> Comparison:
    folded, bare = fold(network), _bare(network)
    folded_last = copy.deepcopy(folded).to(memory_format=torch.channels_last)
    bare_last = copy.deepcopy(bare).to(memory_format=torch.channels_last)
    contestants = []
    for size in trial.settings.size or (QUICK_SIZES if trial.settings.quick else SIZES):
        maps = _maps(network, size, trial)
        last = tuple(map_.to(memory_format=torch.channels_last) for map_ in maps)
        forms: list[tuple[str, Callable[..., Tensor], tuple[Tensor, ...], nn.Module]] = [
            ("plain", lambda low, high: plain_head(network, low, high), maps, network),
            ("ours", network.head, maps, network),
            ("folded", folded.head, maps, folded),
            (PREDICTED, in_reused_memory(folded_last.head), last, folded),
        ]
        contestants += [
            _predicting(name, size, head, inputs, module, trial.precision) for name, head, inputs, module in forms
        ]
        for name, form, high in (
            ("bare 3x3", bare, maps[1]),
            ("bare 3x3, as predicted", in_reused_memory(bare_last), last[1]),
        ):
            call = evaluating(form, high, precision=trial.precision)
            contestants.append(Contestant(name, size, call, parameters=parameter_count(bare)))
    comparison = compare("ANN head, prediction", contestants, trial, ours=PREDICTED)
    copy_rate, product_rate = highest_rates(trial.device, trial.precision, trial.settings.quick)
    return replace(comparison, copy_rate=copy_rate, product_rate=product_rate)


def _predicting(
    name: str,
    size: Size,
    head: Callable[..., Tensor],
    maps: tuple[Tensor, ...],
    module: nn.Module,
    precision: Precision,
) -> Contestant:
    parameters = parameter_count(module)
    moved = sum(map_.numel() for map_ in maps) + parameters + len(maps[0]) * CLASSES * size[0] * size[1]
    traffic = moved * (2 if precision in HALF else 4)
    call = evaluating(head, *maps, precision=precision)
    return Contestant(name, size, call, None if name == "plain" else "plain", parameters, traffic=traffic)


def _bare(network: ANNNet) -> nn.Conv2d:
    """torch's own 3x3 convolution of the head's size, the floor of any head that has one."""
    wide, narrow = network.project[0].in_channels, network.project[0].out_channels
    return nn.Conv2d(cast(int, wide), cast(int, narrow), 3, padding=1, bias=False).to(next(network.parameters()).device)


def _training(network: ANNNet, trial: Trial) -> Comparison:
    ours, rival = copy.deepcopy(network).train(), copy.deepcopy(network).train()

    def rival_head(low: Tensor, high: Tensor) -> Tensor:
        return plain_head(rival, low, high)

    contestants = []
    for size in trial.settings.size or (QUICK_SIZES if trial.settings.quick else TRAINING_SIZES):
        low, high = (map_.requires_grad_() for map_ in _maps(network, size, trial))
        pull = torch.randn(trial.batch, CLASSES, *size, device=trial.device)
        contestants += [
            _step("plain", rival, rival_head, low, high, pull, trial.precision),
            _step("ours", ours, ours.head, low, high, pull, trial.precision),
        ]
    return compare("ANN head, forward and backward", contestants, trial, ours="ours")


def _step(
    name: str, network: ANNNet, head: Head, low: Tensor, high: Tensor, pull: Tensor, precision: Precision
) -> Contestant:
    """A forward and backward pass for the loss <pull, logits>; gives the logits and every gradient.

    The logits alone are compared here, the gradients in the tests, in float64: a ReLU whose input is within rounding of
    zero lets the whole gradient of a pixel pass or none of it.
    """
    parameters = list(network.parameters())
    leaves = [low, high, *parameters]

    def forward() -> Tensor:
        torch.manual_seed(0)  # dropout drops the same for all
        with autocast(precision, low.device):
            return head(low, high)

    def call() -> tuple[Tensor, ...]:
        logits = forward()
        torch.autograd.backward((logits.float() * pull).sum())
        gradients = [cast(Tensor, leaf.grad) for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None
        return (logits.detach(), *gradients)

    return Contestant(
        name,
        (high.shape[2], high.shape[3]),
        call,
        like=None if name == "plain" else "plain",
        parameters=parameter_count(network),
        forward=forward,
        state=[*parameters, *network.buffers()],
        compared=1,
    )


def _maps(network: ANNNet, size: Size, trial: Trial) -> tuple[Tensor, Tensor]:
    low, high = cast(Maps, network.backbone).channels
    low_map, high_map = (torch.randn(trial.batch, wide, *size, device=trial.device) for wide in (low, high))
    return low_map, high_map
