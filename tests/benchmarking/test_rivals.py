"""The plain forms are the paper's equations: equal to the reference and to our own blocks, on the same weights."""

import pytest
import reference
import torch
from torch import nn

from asymseg.benchmarking.rivals import (
    fused_non_local,
    plain_afnb,
    plain_apnb,
    plain_backbone,
    plain_head,
    plain_network,
    plain_non_local,
)
from asymseg.benchmarking.weights import liven
from asymseg.blocks import AFNB, APNB
from asymseg.model.annnet import ANNNet
from asymseg.model.dilated import DilatedDepthwiseConv2d
from asymseg.model.winograd import WinogradConv2d

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
SIZES = [(1, 1), (2, 7), (8, 8), (9, 13)]


def lively(block, *channels):
    """`block` in float64, without zeros."""
    torch.manual_seed(0)
    liven(block, lambda: block(*(torch.randn(2, count, 9, 8) for count in channels)))
    return block.double()


def make_apnb(merge):
    return lively(APNB(6, 6 if merge == "add" else 7, 4, 3, merge=merge), 6)


@pytest.mark.parametrize("merge", ["concat", "add", "none"])
@pytest.mark.parametrize("size", SIZES)
def test_plain_apnb(merge, size):
    block, x = make_apnb(merge), torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(plain_apnb(block, x), reference.apnb(block, x)[0], **CLOSE)
    torch.testing.assert_close(plain_apnb(block, x), block(x), **CLOSE)


@pytest.mark.parametrize("merge", ["concat", "add", "none"])
@pytest.mark.parametrize("size", SIZES)
def test_plain_afnb(merge, size):
    block = lively(AFNB(5, 6, 6 if merge == "add" else 7, 4, 3, merge=merge), 5, 6)
    low, high = torch.randn(2, 5, 9, 5, dtype=torch.float64), torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(plain_afnb(block, low, high), reference.afnb(block, low, high)[0], **CLOSE)
    torch.testing.assert_close(plain_afnb(block, low, high), block(low, high), **CLOSE)


@pytest.mark.parametrize("form", [plain_non_local, fused_non_local])
@pytest.mark.parametrize("merge", ["concat", "add", "none"])
@pytest.mark.parametrize("size", SIZES)
def test_both_non_local_forms(form, merge, size):
    block, x = make_apnb(merge), torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(form(block, x), reference.non_local(block, x)[0], **CLOSE)


def test_the_plain_forms_are_plain():
    """Keys and queries of APNB each run the projection; the symmetric block's are one map."""
    block, x = make_apnb("concat"), torch.randn(1, 6, 9, 9, dtype=torch.float64)
    runs = []
    block.query[1].register_forward_hook(lambda *_: runs.append("projected"))
    plain_apnb(block, x)
    assert len(runs) == 2
    plain_non_local(block, x)
    assert len(runs) == 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = ANNNet(5, "resnet10t", key_channels=4, value_channels=3, context_channels=6, aux_channels=0, dropout=0.3)
    liven(network, lambda: network(torch.randn(2, 3, 64, 64)))
    return network.double()


def test_plain_head_and_network(network):
    images = torch.randn(2, 3, 65, 40, dtype=torch.float64)
    low, high = network.backbone(images)
    torch.testing.assert_close(plain_head(network, low, high), network.head(low, high), **CLOSE)
    torch.testing.assert_close(plain_network(network, images), network(images), **CLOSE)


def test_plain_head_in_training(network):
    """The same batch statistics and, from the same seed, the same dropped channels: outputs and gradients agree."""
    network.train()
    low, high = (torch.randn(2, count, 5, 6, dtype=torch.float64) for count in network.backbone.channels)
    results = []
    for head in (network.head, lambda low, high: plain_head(network, low, high)):
        torch.manual_seed(1)
        leaves = [low.requires_grad_(), high.requires_grad_(), *network.classifier.parameters()]
        logits = head(low, high)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), leaves)])
    network.eval()
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_the_plain_backbone_has_torch_s_own_convolutions():
    backbone = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False), WinogradConv2d(4, 5, 3, padding=1)
    )
    DilatedDepthwiseConv2d.replace_in(backbone)
    assert type(backbone[0]) is DilatedDepthwiseConv2d
    twin = plain_backbone(backbone.train())
    assert [type(part) for part in twin] == [nn.Conv2d, nn.Conv2d]
    images = torch.randn(1, 4, 9, 8)
    torch.testing.assert_close(twin(images), backbone(images))
    assert twin[0].weight is not backbone[0].weight


def test_liven_leaves_nothing_at_zero_and_calibrates():
    torch.manual_seed(0)
    block = APNB(6, 7, 4, 3)
    x = torch.randn(2, 6, 9, 8) * 5 + 3
    assert not block.output.weight.any()
    liven(block, lambda: block(x))
    assert all(parameter.any() for parameter in block.parameters())
    assert not block.training
    projected = block.query[0](x)
    torch.testing.assert_close(block.query[1].running_mean, projected.mean(dim=(0, 2, 3)))
    assert block.query[1].momentum == 0.1
