"""The fast form of a dilated depthwise convolution against the ordinary one."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from asymseg.model import dilated
from asymseg.model.dilated import DilatedDepthwiseConv2d


def pair(size, dilation, bias, out_channels=3):
    torch.manual_seed(0)
    settings = {"padding": dilation * (size // 2), "dilation": dilation, "groups": 3, "bias": bias}
    holder = nn.Sequential(nn.Conv2d(3, out_channels, size, **settings)).double()
    ordinary = holder[0]
    DilatedDepthwiseConv2d.replace_in(holder)
    assert type(holder[0]) is DilatedDepthwiseConv2d
    return ordinary, holder[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("size", [3, 5])
def test_values_and_gradients(size, dilation, bias):
    ordinary, fast = pair(size, dilation, bias, out_channels=6 if bias else 3)
    parameters = list(ordinary.parameters())
    assert [id(parameter) for parameter in fast.parameters()] == [id(parameter) for parameter in parameters]
    for height, width in [(1, 1), (2, 3), (4, 4), (5, 7), (8, 12), (13, 9)]:
        x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
        expected, out = ordinary(x), fast(x)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        weights = torch.randn_like(expected)
        for ours, theirs in zip(
            torch.autograd.grad((out * weights).sum(), [x, *parameters]),
            torch.autograd.grad((expected * weights).sum(), [x, *parameters]),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_evaluation_is_the_ordinary_way(monkeypatch):
    """Bit for bit, and without the rearrangement."""
    ordinary, fast = pair(3, 2, True)
    x = torch.randn(1, 3, 7, 9, dtype=torch.float64)
    pads = []
    monkeypatch.setattr(dilated.F, "pad", lambda *arguments: pads.append(1) or torch.constant_pad_nd(*arguments))
    fast.eval()
    assert torch.equal(fast(x), ordinary(x))
    fast.train()
    with torch.no_grad():
        assert torch.equal(fast(x), ordinary(x))
    assert not pads
    fast(x)
    assert pads


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4),  # not dilated
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),  # not depthwise
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, padding=0, dilation=2, groups=4),  # makes the map smaller
        nn.Conv2d(4, 4, 2, padding=2, dilation=2, groups=4),  # makes it larger
        nn.Conv2d(4, 4, (3, 1), padding=(2, 0), dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=(2, 4), dilation=(2, 4), groups=4),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, padding_mode="reflect"),
    ],
)
def test_others_are_left_alone(other):
    holder = nn.Sequential(nn.Sequential(other))
    DilatedDepthwiseConv2d.replace_in(holder)
    assert holder[0][0] is other


def test_replaced_in_mobilenetv2():
    """A block that loses its stride keeps the dilation of those before it: 3 + 3 + 1 times 2, then 2 + 1 times 4."""
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_100", features_only=True, out_indices=(-2, -1), output_stride=8)
    names = list(network.state_dict())
    dilations = [m.dilation[0] for m in network.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    network.eval()
    x = torch.randn(1, 3, 40, 48)
    before = network(x)
    DilatedDepthwiseConv2d.replace_in(network)
    replaced = [module for module in network.modules() if isinstance(module, DilatedDepthwiseConv2d)]
    assert [module.dilation[0] for module in replaced] == dilations == [2] * 7 + [4] * 3
    assert list(network.state_dict()) == names
    for ours, theirs in zip(network(x), before, strict=True):
        assert torch.equal(ours, theirs)
    network.train()
    assert F.mse_loss(network(x)[-1], torch.zeros(1, 320, 5, 6)).isfinite()
