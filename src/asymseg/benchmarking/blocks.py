"""APNB against the same block written plainly and against the symmetric non-local block, over sizes of the map."""

import torch

from asymseg.benchmarking.comparison import Contestant, Say, compare, trials
from asymseg.benchmarking.figures import Comparison
from asymseg.benchmarking.machine import evaluating
from asymseg.benchmarking.rivals import fused_non_local, plain_apnb, plain_non_local
from asymseg.benchmarking.settings import BenchmarkSettings, Precision, Size
from asymseg.benchmarking.weights import liven
from asymseg.blocks import APNB
from asymseg.model.checkpoint import parameter_count

CHANNELS, KEYS, VALUES = 2048, 256, 256
SIZES: tuple[Size, ...] = ((64, 64), (96, 96), (64, 128), (128, 128), (128, 256))
"""Two pairs among them have four times the pixels of each other."""
QUICK_CHANNELS, QUICK_KEYS, QUICK_VALUES = 32, 8, 8
QUICK_SIZES: tuple[Size, ...] = ((8, 8), (8, 16), (16, 16))


def benchmark_blocks(settings: BenchmarkSettings, device: torch.device, say: Say) -> list[Comparison]:
    """A comparison for each batch size and precision, in which all sizes take turns."""
    channels, keys, values = (QUICK_CHANNELS, QUICK_KEYS, QUICK_VALUES) if settings.quick else (CHANNELS, KEYS, VALUES)
    sizes = settings.size or (QUICK_SIZES if settings.quick else SIZES)
    block = APNB(channels, channels, keys, values).to(device)
    liven(block, lambda: block(torch.randn(2, channels, 16, 16, device=device)))
    title = f"APNB {channels} -> {channels}, key {keys}, value {values}"
    comparisons = []
    for trial in trials(settings, device, say):
        contestants = []
        for size in sizes:
            x = torch.randn(trial.batch, channels, *size, device=device)
            contestants += _contestants(block, x, trial.precision)
        comparisons.append(compare(title, contestants, trial, ours="APNB"))
    return comparisons


def _contestants(block: APNB, x: torch.Tensor, precision: Precision) -> list[Contestant]:
    forms = (
        ("plain APNB", lambda x: plain_apnb(block, x), None),
        ("APNB", block, "plain APNB"),
        ("non-local, plain", lambda x: plain_non_local(block, x), None),
        ("non-local, fused attention", lambda x: fused_non_local(block, x), "non-local, plain"),
    )
    parameters = parameter_count(block)
    size = (x.shape[2], x.shape[3])
    return [
        Contestant(name, size, evaluating(form, x, precision=precision), like, parameters) for name, form, like in forms
    ]
