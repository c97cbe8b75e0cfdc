"""BatchNorm folded into the convolution before it: where that is exact it happens, elsewhere nothing does."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from asymseg.blocks.attention import projection
from asymseg.model.batchnorm import affine, fold_batchnorm
from asymseg.model.dilated import DilatedDepthwiseConv2d


def lively(network, dtype=torch.float64):
    """The network in evaluation mode, with BatchNorms in which nothing is zero or one."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None:
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    return network.to(dtype).eval()


def norms(network):
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def test_factor_and_summand_by_hand():
    norm = nn.BatchNorm2d(2, eps=1.0)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
        norm.running_var.copy_(torch.tensor([3.0, 8.0]))
        norm.weight.copy_(torch.tensor([4.0, 1.0]))
        norm.bias.copy_(torch.tensor([5.0, 0.0]))
    factor, summand = affine(norm)
    assert factor.dtype == summand.dtype == torch.float64
    torch.testing.assert_close(factor.tolist(), [2.0, 1 / 3])
    torch.testing.assert_close(summand.tolist(), [3.0, 0.0])

    plain = nn.BatchNorm2d(1, eps=1.0, affine=False)
    plain.running_mean.fill_(1.0)
    plain.running_var.fill_(3.0)
    assert [part.tolist() for part in affine(plain)] == [[0.5], [-0.5]]


def test_weights_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)).eval()
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[0].bias.fill_(2.0)
        network[1].running_mean.fill_(1.0)
        network[1].running_var.fill_(3.0)
        network[1].weight.fill_(4.0)
        network[1].bias.fill_(5.0)
    fold_batchnorm(network, lambda: network(torch.zeros(1, 1, 1, 1)))  # x -> 2 * (3 x + 2) + 3
    assert (network[0].weight.item(), network[0].bias.item()) == (6.0, 7.0)
    assert type(network[1]) is nn.Identity


FOLDABLE = {
    "with bias": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
    "without bias": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    "in groups": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6)),
    "depthwise and dilated": lambda: nn.Sequential(
        DilatedDepthwiseConv2d(4, 8, 3, padding=2, dilation=2, groups=4), nn.BatchNorm2d(8)
    ),
    "padded like TensorFlow": lambda: nn.Sequential(Conv2dSame(4, 6, 3, stride=2), nn.BatchNorm2d(6)),
    "queries": lambda: projection(4, 6),
    "activation in the norm": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), BatchNormAct2d(6, act_layer=nn.SiLU)),
    "over several devices": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.SyncBatchNorm(6)),
    "neither scaled nor shifted": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)),
    "through what does nothing": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.Identity(), nn.Dropout(0.5), nn.BatchNorm2d(6)
    ),
    "twice": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5)),
}


@pytest.mark.parametrize("make", FOLDABLE.values(), ids=FOLDABLE.keys())
def test_folded(make):
    torch.manual_seed(1)
    network = lively(make())
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        fold_batchnorm(network, lambda: network(x))
        assert norms(network) == 0
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


class Own(nn.Module):
    """A network of a user's own: two convolutions, two BatchNorms, and what they do by `forward`."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.p, self.q = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def taken_twice(net, x):
    y = net.a(x)
    return net.p(y) + y


def taken_by_two_norms(net, x):
    y = net.a(x)
    return net.p(y) + net.q(y)


def overwritten_between(net, x):
    return net.p(F.relu(net.a(x), inplace=True))


def overwritten_after(net, x):
    y = net.a(x)
    z = net.p(y)
    return z + y.mul_(2)


def seen_through_a_view(net, x):
    y = net.a(x)
    shape = y.flatten(2)
    return net.p(y) + shape.mean(dim=2)[:, :, None, None]


def one_convolution_for_two(net, x):
    return net.p(net.a(x)) + net.q(net.a(x + 1))


def one_norm_for_two(net, x):
    return net.p(net.a(x)) + net.p(net.b(x))


def one_convolution_and_one_norm(net, x):
    return net.p(net.a(net.p(net.a(x))))


def norm_first(net, x):
    return net.a(net.p(x))


def of_a_passing_map(net, x):
    """By the time that the convolution gives its result, what the norm took is gone, and its place in memory free."""
    y = net.p(x + 1)
    return net.a(y) * 2 + net.b(net.q(y + 1)) * 2


def only_some_channels(net, x):
    return net.p(torch.cat([net.a(x)[:, :2], net.b(x)[:, 2:]], dim=1))


def of_a_sum(net, x):
    return net.p(net.a(x) + net.b(x))


UNTOUCHED = [
    taken_twice,
    taken_by_two_norms,
    overwritten_between,
    overwritten_after,
    seen_through_a_view,
    one_convolution_for_two,
    one_norm_for_two,
    one_convolution_and_one_norm,
    norm_first,
    of_a_passing_map,
    only_some_channels,
    of_a_sum,
]


@pytest.mark.parametrize("forward", UNTOUCHED, ids=lambda forward: forward.__name__)
def test_left_alone(forward):
    torch.manual_seed(2)
    network = lively(Own(forward))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        fold_batchnorm(network, lambda: network(x))
        assert norms(network) == 2
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert torch.equal(network(x), expected)


def some_of_each(net, x):
    y = net.b(net.p(net.a(x)))
    return net.q(y) * y


def test_each_pair_by_itself():
    network = lively(Own(some_of_each))
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        fold_batchnorm(network, lambda: network(x))
        assert (type(network.p), type(network.q)) == (nn.Identity, nn.BatchNorm2d)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


class Scaled(nn.BatchNorm2d):
    """A BatchNorm that does more than its name says."""

    def forward(self, x):
        return 3 * torch.sigmoid(super().forward(x))


def watched_convolution():
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    network[0].register_forward_hook(lambda module, inputs, result: result.relu())
    return network


def watched_norm():
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    network[1].register_forward_hook(lambda module, inputs, result: result.sigmoid())
    return network


UNUSUAL = {
    "weights standardised": lambda: nn.Sequential(StdConv2d(4, 6, 3), nn.BatchNorm2d(6)),
    "statistics of the batch": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)),
    "weights by parametrization": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), nn.BatchNorm2d(6)
    ),
    "weights pruned": lambda: nn.Sequential(
        prune.l1_unstructured(nn.Conv2d(4, 6, 3), "weight", 0.5), nn.BatchNorm2d(6)
    ),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d(6)),
    "another norm": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, track_running_stats=True)),
    "a norm that does more": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), Scaled(6)),
    "a hook on the convolution": watched_convolution,
    "a hook on the norm": watched_norm,
}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_unusual_modules_give_the_same(make):
    torch.manual_seed(3)
    network = lively(make())
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        fold_batchnorm(network, lambda: network(x))
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


class TwoNames(nn.Module):
    """One BatchNorm that the network knows by two names."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.norm = self.bn

    def forward(self, x):
        return self.norm(self.conv(x))


class InAList(nn.Module):
    """Layers that the network also keeps where modules are not looked for."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.layers = [self.conv, self.bn]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("kind", [TwoNames, InAList])
def test_a_norm_that_is_found_elsewhere_too(kind):
    network = lively(kind())
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        fold_batchnorm(network, lambda: network(x))
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


def test_products_are_made_in_float64_and_kept_in_the_networks_precision():
    torch.manual_seed(4)
    network = lively(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), torch.float32)
    convolution, norm = copy.deepcopy(network)
    factor, summand = affine(norm)
    fold_batchnorm(network, lambda: network(torch.zeros(1, 4, 3, 3)))
    assert torch.equal(network[0].weight, (factor[:, None, None, None] * convolution.weight.double()).float())
    assert torch.equal(network[0].bias, (summand + factor * convolution.bias.double()).float())


def test_what_is_frozen_stays_frozen():
    for frozen in (True, False):
        network = lively(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))).requires_grad_(not frozen)
        fold_batchnorm(network, lambda network=network: network(torch.zeros(1, 4, 3, 3, dtype=torch.float64)))
        assert [parameter.requires_grad for parameter in network.parameters()] == [not frozen] * 2


def test_no_hook_is_left_behind():
    network = lively(Own(taken_twice))

    def failing():
        network(torch.zeros(1, 4, 3, 3, dtype=torch.float64))
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fold_batchnorm(network, failing)
    fold_batchnorm(network, lambda: network(torch.zeros(1, 4, 3, 3, dtype=torch.float64)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
