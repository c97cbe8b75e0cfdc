"""ANNNet whole, from images to logits of their size: the plain form against each thing that makes ours faster."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg.benchmarking.comparison import Contestant, Say, Trial, compare, trials
from asymseg.benchmarking.figures import Comparison
from asymseg.benchmarking.machine import autocast, evaluating
from asymseg.benchmarking.rivals import plain_backbone, plain_head, plain_network
from asymseg.benchmarking.settings import BenchmarkSettings, Precision, Size
from asymseg.benchmarking.weights import liven
from asymseg.model.annnet import ANNNet, pad_for, upsample
from asymseg.model.checkpoint import parameter_count
from asymseg.prediction.device import Precision as PredictorPrecision
from asymseg.prediction.execution import Coarse, prepare
from asymseg.training.loss import cross_entropy

PLAIN = "plain, eager, NCHW"
PREDICTED = "as predicted"
"""What the predictor does unless told otherwise: folded, channels_last, memory kept from call to call."""
CHOICES: dict[Precision, PredictorPrecision] = {"fp32": "fp32", "tf32": "fp32", "bf16": "bf16", "fp16": "fp16"}
CLASSES = 19
AUX_WEIGHT = 0.4
SIZES: tuple[Size, ...] = ((512, 1024),)
QUICK_SIZES: tuple[Size, ...] = ((64, 96),)
QUICK_WIDTHS = {"key_channels": 8, "value_channels": 8, "context_channels": 16, "aux_channels": 8}


def benchmark_network(
    settings: BenchmarkSettings, device: torch.device, say: Say, *, backbone: str, compiling: bool, training: bool
) -> list[Comparison]:
    """Prediction, and with `training` a training step, for each precision and batch size."""
    network = make_network(backbone, quick=settings.quick).to(device)
    comparisons = []
    for trial in trials(settings, device, say):
        comparisons.append(_prediction(network, trial, compiling))
        if training:
            comparisons.append(_training(network, trial))
    return [replace(one, title=f"ANNNet {backbone}, {one.title}", counts_images=True) for one in comparisons]


def make_network(backbone: str, *, quick: bool) -> ANNNet:
    """An untrained network at output stride 8 with weights that hide nothing."""
    widths: dict[str, Any] = QUICK_WIDTHS if quick else {}
    network = ANNNet(CLASSES, backbone, **widths)
    images = torch.randn(2, 3, *((64, 64) if quick else (128, 128)))
    liven(network, lambda: network(images, with_aux=True))
    return network


def _prediction(network: ANNNet, trial: Trial, compiling: bool) -> Comparison:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    rival = _rival(network)
    folded = prepare(network, trial.device, folding=True)
    precision = trial.precision
    # A copy, so that what it keeps is seen to be its own.
    predicted = Coarse(copy.deepcopy(folded), trial.device, CHOICES[precision], compiling=False)
    contestants = []
    for size in _sizes(trial.settings):
        images = torch.randn(trial.batch, 3, *size, device=trial.device)
        turned = images.to(memory_format=torch.channels_last)
        forms: list[tuple[str, Callable[[Tensor], Tensor], Tensor, nn.Module]] = [
            (PLAIN, lambda images: plain_network(rival, images), images, rival),
            ("ours, eager, NCHW", network, images, network),
            ("ours, channels_last", last, turned, last),
            ("folded, channels_last", folded, turned, folded),
            (PREDICTED, _full(predicted, network.align_corners), turned, folded),
        ]
        for name, form, x, module in forms:
            call = evaluating(form, x, precision=precision)
            contestants.append(Contestant(name, size, call, None if name == PLAIN else PLAIN, parameter_count(module)))
        if compiling:
            contestants.append(_compiled(folded, network.align_corners, turned, trial))
    return compare("prediction", contestants, trial, ours=PREDICTED)


def _rival(network: ANNNet) -> ANNNet:
    twin = copy.deepcopy(network)
    twin.backbone = plain_backbone(twin.backbone)
    return twin


def _compiled(folded: nn.Module, align_corners: bool, images: Tensor, trial: Trial) -> Contestant:
    """The predictor's compiled form; compiled here and now."""
    coarse = Coarse(folded, trial.device, CHOICES[trial.precision], compiling=True)
    call = evaluating(_full(coarse, align_corners), images, precision=trial.precision)
    trial.say("compiling")
    call()
    (seconds,) = coarse.compile_seconds.values()

    def ordinary() -> tuple[Tensor]:
        with torch.enable_grad():  # in which, as when compiled, convolutions are what they are by name
            return (folded(images),)

    size = (images.shape[2], images.shape[3])
    note = f"compiled in {seconds:.0f} s"
    return Contestant("folded, compiled", size, call, PLAIN, parameter_count(folded), ordinary, note=note)


def _full(coarse: Coarse, align_corners: bool) -> Callable[[Tensor], Tensor]:
    """Logits at the size of the images, as the network itself gives them."""

    def logits(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        found, covers = coarse(images)
        return F.interpolate(found, covers, mode="bilinear", align_corners=align_corners)[:, :, :height, :width]

    return logits


def _training(network: ANNNet, trial: Trial) -> Comparison:
    rival = _rival(network).train()
    ours = copy.deepcopy(network).train().to(memory_format=torch.channels_last)

    def rival_head(low: Tensor, high: Tensor) -> Tensor:
        return plain_head(rival, low, high)

    contestants = []
    for size in _sizes(trial.settings):
        images = torch.randn(trial.batch, 3, *size, device=trial.device)
        labels = torch.randint(CLASSES, (trial.batch, *size), device=trial.device)
        turned = images.to(memory_format=torch.channels_last)
        contestants += [
            _step(PLAIN, rival, rival_head, images, labels, trial.precision),
            _step("ours, channels_last", ours, ours.head, turned, labels, trial.precision),
        ]
    return compare("forward and backward", contestants, trial, ours="ours, channels_last")


def _step(
    name: str,
    network: ANNNet,
    head: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    precision: Precision,
) -> Contestant:
    """A forward and backward pass with both losses; gives the logits."""
    aux_classifier = cast(nn.Module, network.aux_classifier)

    def forward() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)  # dropout drops the same for all
        with autocast(precision, images.device):
            padded = pad_for(network.backbone, images)
            low, high = network.backbone(padded)
            logits = upsample(head(low, high), padded, images, network.align_corners)
            aux = upsample(aux_classifier(low), padded, images, network.align_corners)
            return logits, cross_entropy(logits, labels) + AUX_WEIGHT * cross_entropy(aux, labels)

    def call() -> tuple[Tensor]:
        logits, loss = forward()
        torch.autograd.backward(loss)
        network.zero_grad(set_to_none=True)
        return (logits.detach(),)

    return Contestant(
        name,
        (images.shape[2], images.shape[3]),
        call,
        like=None if name == PLAIN else PLAIN,
        parameters=parameter_count(network),
        forward=forward,
        state=[*network.parameters(), *network.buffers()],
    )


def _sizes(settings: BenchmarkSettings) -> tuple[Size, ...]:
    return settings.size or (QUICK_SIZES if settings.quick else SIZES)
