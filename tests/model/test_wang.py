"""Wang et al.'s non-local block and the refining convolutions against plain equations, forward and backward."""

import pytest
import torch
from reference import batch_norm
from torch.nn import functional as F

from asymseg.model.annnet import ANNNet
from asymseg.model.refine import Refine
from asymseg.model.wang import WangNonLocalBlock

NARROW = {"key_channels": 3, "value_channels": 4, "context_channels": 6, "aux_channels": 0}


def wang(block, x):
    query, key, value = (
        F.conv2d(x, layer.weight, layer.bias).flatten(2) for layer in (block.query, block.key, block.value)
    )
    weights = torch.softmax(torch.einsum("bkn,bkm->bnm", query, key) / query.shape[1] ** 0.5, dim=2)
    context = torch.einsum("bvm,bnm->bvn", value, weights).unflatten(2, x.shape[2:])
    return x + batch_norm(F.conv2d(context, block.output[0].weight), block.output[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 2), (5, 7), (16, 3)])
def test_the_block_is_its_equations(height, width, training):
    torch.manual_seed(0)
    block = WangNonLocalBlock(6, 3, 4).double()
    torch.nn.init.normal_(block.output[1].weight)
    block(torch.randn(4, 6, 8, 8, dtype=torch.float64))  # moves BatchNorm's averages
    block.train(training)
    x = torch.randn(2, 6, height, width, dtype=torch.float64, requires_grad=True)
    ours, plain = block(x), wang(block, x)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    inputs = [x, *block.parameters()]
    weights = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad((out * weights).sum(), inputs) for out in (ours, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_fresh_block_is_the_identity():
    x = torch.randn(2, 6, 5, 4)
    assert torch.equal(WangNonLocalBlock(6, 3, 4)(x), x)


def test_refining_sees_the_map_again():
    torch.manual_seed(0)
    refine = Refine(5, 3).eval()
    high, x = torch.randn(2, 5, 6, 7), torch.randn(2, 3, 6, 7)
    second = F.relu(batch_norm(F.conv2d(x, refine.second[0].weight, padding=1), refine.second[1]))
    joined = torch.cat([high, second], dim=1)
    expected = F.relu(batch_norm(F.conv2d(joined, refine.joined[0].weight, padding=1), refine.joined[1]))
    torch.testing.assert_close(refine(high, x), expected)
    assert not torch.allclose(refine(high + 1, x), expected)


@pytest.mark.parametrize(("fusion", "context"), [("none", "none"), ("none", "nonlocal_wang"), ("afnb", "apnb")])
@pytest.mark.parametrize("refine", [True, False])
def test_networks_with_them(fusion, context, refine):
    torch.manual_seed(0)
    backbone = "resnet50c+blocks=1,1,1,1+width=2+stem=2"
    network = ANNNet(3, backbone, fusion=fusion, context=context, refine=refine, dropout=0.0, **NARROW).train()
    for height, width in [(1, 1), (9, 33)]:
        assert network(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)
    if context == "nonlocal_wang":
        torch.nn.init.ones_(network.context.output[1].weight)
    for block in (network.fusion, network.context):
        if fusion == "afnb":
            torch.nn.init.normal_(block.output.weight)
    logits = network(torch.randn(2, 3, 40, 56))
    F.cross_entropy(logits, torch.randint(0, 3, (2, 40, 56))).backward()
    head = {name: p for name, p in network.named_parameters() if not name.startswith("backbone.")}
    unmoved = [name for name, parameter in head.items() if not parameter.grad.abs().max() > 0]
    # A bias of the keys adds the same to all scores of a pixel, and softmax does not see it.
    assert [name for name in unmoved if name != "context.key.bias"] == []


@pytest.mark.usefixtures("no_shape_checks")
def test_exported_with_free_sizes():
    torch.manual_seed(0)
    backbone = "resnet50c+blocks=1,1,1,1+width=2+stem=2"
    network = ANNNet(3, backbone, fusion="none", context="nonlocal_wang", refine=True, **NARROW).eval()
    torch.nn.init.ones_(network.context.output[1].weight)
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(free,)).module()
    for height, width in [(64, 96), (33, 47)]:
        images = torch.randn(2, 3, height, width)
        torch.testing.assert_close(program(images), network(images), rtol=1e-4, atol=1e-5)
