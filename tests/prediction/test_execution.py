"""Where and how a network runs: folded or not, in which precision, compiled or not; always the same logits."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.folded import FoldedANNNet
from asymseg.model.folding import fold
from asymseg.prediction.execution import Coarse, prepare

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """Strides 4 and 8."""

    channels = (6, 8)

    def __init__(self, size_multiple=1):
        super().__init__()
        self.size_multiple = size_multiple
        self.low = nn.Sequential(nn.Conv2d(3, 6, 5, 4, padding=2), nn.BatchNorm2d(6), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(6, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


def make(kind=ANNNet, size_multiple=1, **settings):
    torch.manual_seed(0)
    narrow = {"key_channels": 4, "value_channels": 3, "context_channels": 6, "aux_channels": 0}
    network = kind(3, Tiny(size_multiple), **narrow | settings)
    for block in (network.fusion, network.context):
        if block is not None:
            nn.init.normal_(block.output.weight)
    network(torch.randn(4, 3, 32, 32))  # BatchNorm's averages are no longer 0 and 1
    return network


class Doubled(ANNNet):
    def head(self, low, high):
        return 2 * super().head(low, high)


class Sharpened(ANNNet):
    def forward(self, images, with_aux=False):
        return 3 * super().forward(images)


def full(coarse, images):
    """Logits at the images' size from coarse ones, as the network itself makes them."""
    logits, covers = coarse(images)
    assert logits.dtype == torch.float32
    logits = F.interpolate(logits, covers, mode="bilinear", align_corners=coarse.network.align_corners)
    return logits[:, :, : images.shape[2], : images.shape[3]]


@pytest.mark.parametrize("folding", [True, False])
@pytest.mark.parametrize("multiple", [1, 32])
@pytest.mark.parametrize("kind", [ANNNet, Doubled, Sharpened])
@torch.inference_mode()
def test_the_networks_own_logits(kind, multiple, folding):
    network = make(kind, multiple).eval()
    coarse = Coarse(prepare(make(kind, multiple), CPU, folding=folding), CPU, "auto", compiling=False)
    assert isinstance(coarse.network, FoldedANNNet) == (folding and kind is ANNNet)
    for size in [(1, 1), (33, 47), (64, 64)]:
        images = torch.randn(2, 3, *size)
        torch.testing.assert_close(full(coarse, images), network(images), rtol=0, atol=1e-5)
        _, covers = coarse(images)
        assert covers == tuple(side + -side % multiple for side in size)
    assert not coarse.compile_seconds


@torch.inference_mode()
def test_any_module_that_gives_logits():
    """Without a head and a backbone of its own; its logits may be coarse."""
    network = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    coarse = Coarse(prepare(network, CPU, folding=True), CPU, "auto", compiling=False)
    images = torch.randn(1, 3, 9, 14)
    logits, covers = coarse(images)
    torch.testing.assert_close(logits, network(images))
    assert covers == (9, 14)


def test_folding_leaves_the_network_alone():
    network = make().train()
    prepared = prepare(network, CPU, folding=True)
    assert network.training
    assert network.project[0].weight.is_contiguous()
    assert not prepared.training
    assert prepared.classifier.weight.is_contiguous(memory_format=torch.channels_last)
    assert prepare(prepared, CPU, folding=True) is prepared


def test_without_folding_the_network_itself_runs():
    network = make().train()
    assert prepare(network, CPU, folding=False) is network
    assert not network.training


@torch.inference_mode()
def test_precision():
    network, images = prepare(make(), CPU, folding=True), torch.randn(1, 3, 64, 64)
    given = {
        name: full(Coarse(network, CPU, name, compiling=False), images) for name in ("auto", "fp32", "bf16", "fp16")
    }
    assert torch.equal(given["auto"], given["fp32"])
    scale = given["fp32"].abs().max()
    for name, most in (("bf16", 0.05), ("fp16", 0.01)):
        error = (given[name] - given["fp32"]).abs().max() / scale
        assert 1e-5 < error < most, name


@pytest.mark.parametrize("precision", ["fp8", "half", ""])
@pytest.mark.usefixtures("no_shape_checks")
def test_an_unknown_precision_is_one_line(precision):
    with pytest.raises(ConfigError) as caught:
        Coarse(make(), CPU, precision, compiling=False)
    assert str(caught.value) == f"precision = {precision!r} is not one of auto, fp32, bf16, fp16"


@pytest.mark.usefixtures("no_shape_checks")
def test_numbers_too_large_for_fp16_are_told():
    network = make(fusion="none", context="none").eval()
    network.project[0].weight.data *= 1e8
    images = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        assert Coarse(network, CPU, "bf16", compiling=False)(images)[0].isfinite().all()
        with pytest.raises(ConfigError, match="too large for fp16; use the precision bf16 or fp32"):
            Coarse(network, CPU, "fp16", compiling=False)(images)


def test_compiled():
    """The same logits, and how long each size took at first."""
    network = prepare(make(fusion="none", context="none"), CPU, folding=True)
    coarse = Coarse(network, CPU, "auto", compiling=True)
    plain = Coarse(network, CPU, "auto", compiling=False)
    with torch.inference_mode():
        images = torch.randn(1, 3, 33, 47)
        for _ in range(2):
            torch.testing.assert_close(full(coarse, images), full(plain, images), rtol=0, atol=1e-5)
    assert list(coarse.compile_seconds) == [(1, 3, 33, 47)]
    assert coarse.compile_seconds[1, 3, 33, 47] > 0


def test_each_size_is_compiled_once(monkeypatch):
    """Never for a size between others, nor again for one that was seen before."""
    seen = []

    def compile(function, **settings):
        seen.append(settings)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    coarse = Coarse(prepare(make(), CPU, folding=True), CPU, "auto", compiling=True)
    with torch.inference_mode():
        for height in (32, 40, 32, 48, 40):
            coarse(torch.randn(1, 3, height, 32))
    assert list(coarse.compile_seconds) == [(1, 3, height, 32) for height in (32, 40, 48)]
    assert seen == [{"dynamic": False, "options": {"freezing": True}}]


@torch.inference_mode()
def test_images_are_left_alone():
    coarse = Coarse(prepare(make(), CPU, folding=True), CPU, "auto", compiling=False)
    images = torch.randn(1, 3, 40, 40)
    before = images.clone()
    first, _ = coarse(images)
    second, _ = coarse(images)
    assert torch.equal(first, second)
    assert torch.equal(images, before)


def test_a_folded_network_is_taken_as_it_is():
    network = make().eval()
    images = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        coarse = Coarse(prepare(fold(network), CPU, folding=False), CPU, "auto", compiling=False)
        torch.testing.assert_close(full(coarse, images), network(images), rtol=0, atol=1e-5)
