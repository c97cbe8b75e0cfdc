"""What every network promises, whatever its backbone, fusion, context and merge; and its whole head as equations."""

import copy
import itertools
import pickle

import pytest
import torch
from reference import afnb, apnb, batch_norm
from torch import nn
from torch.nn import functional as F

from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet

NARROW = {"key_channels": 4, "value_channels": 3, "context_channels": 6, "aux_channels": 5}
VARIANTS = list(itertools.product(["afnb", "none"], ["apnb", "nonlocal", "psp", "none"], ["concat", "add", "none"]))
SIZES = [(1, 1), (3, 5), (33, 47), (64, 64), (65, 130)]


class Tiny(nn.Module):
    """A backbone of a user's own: strides 4 and 8."""

    def __init__(self, in_channels=3):
        super().__init__()
        self.channels = (6, 8)
        self.stride = 8
        self.low = nn.Sequential(nn.Conv2d(in_channels, 6, 5, 4, padding=2), nn.BatchNorm2d(6), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(6, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


def tiny(seed=0, **settings):
    torch.manual_seed(seed)
    return ANNNet(3, settings.pop("backbone", None) or Tiny(), **NARROW | settings)


def wake(network):
    """Give the projections that start at zero random weights, so that context matters."""
    torch.manual_seed(1)
    for block in (network.fusion, network.context):
        if block is not None:
            nn.init.normal_(block.output.weight, std=0.5)
            nn.init.normal_(block.output.bias, std=0.5)
    return network


@pytest.mark.parametrize(("fusion", "context", "merge"), VARIANTS)
def test_any_size(fusion, context, merge):
    network = tiny(fusion=fusion, context=context, merge=merge).eval()
    for height, width in SIZES:
        images = torch.randn(2, 3, height, width)
        with torch.no_grad():
            logits, aux = network(images, with_aux=True)
            assert torch.equal(network(images), logits)  # and the same twice
            torch.testing.assert_close(network(images[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        assert logits.shape == aux.shape == (2, 3, height, width)
        assert logits.isfinite().all()


@pytest.mark.parametrize(("fusion", "context", "merge"), VARIANTS)
def test_one_image_in_training(fusion, context, merge):
    network = tiny(fusion=fusion, context=context, merge=merge, dropout=0.0).train()
    for height, width in [(1, 1), (8, 8), (9, 4), (33, 47)]:
        logits, aux = network(torch.randn(1, 3, height, width), with_aux=True)
        assert logits.shape == aux.shape == (1, 3, height, width)
        assert logits.isfinite().all()
    assert network(torch.randn(1, 3, 1, 1)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(("fusion", "context", "merge"), VARIANTS)
def test_every_parameter_learns(fusion, context, merge):
    network = wake(tiny(fusion=fusion, context=context, merge=merge, dropout=0.0)).train()
    logits, aux = network(torch.randn(2, 3, 40, 56), with_aux=True)
    labels = torch.randint(0, 3, (2, 40, 56))
    (F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(aux, labels)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_a_timm_backbone_at_every_stride(output_stride, in_channels):
    torch.manual_seed(0)
    network = ANNNet(2, "resnet10t", output_stride=output_stride, in_channels=in_channels, **NARROW)
    low, high = network.backbone(torch.randn(1, in_channels, 65, 97))
    assert high.shape[2:] == (-(-65 // output_stride), -(-97 // output_stride))
    assert (low.shape[1], high.shape[1]) == network.backbone.channels == (256, 512)
    for training, (height, width) in itertools.product((True, False), [(1, 1), (32, 32), (33, 9)]):
        assert network.train(training)(torch.randn(1, in_channels, height, width)).shape == (1, 2, height, width)


def test_a_network_without_auxiliary_classifier():
    network = tiny(aux_channels=0)
    images = torch.randn(2, 3, 16, 16)
    assert network(images).shape == (2, 3, 16, 16)
    assert not any(name.startswith("aux") for name in network.state_dict())
    with pytest.raises(ConfigError, match="build the network with aux_channels above 0"):
        network(images, with_aux=True)


def test_corners_of_the_upsampling():
    images = torch.randn(1, 3, 33, 49)
    for align_corners in (False, True):
        network = tiny(align_corners=align_corners).eval()
        coarse = network.head(*network.backbone(images))
        assert coarse.shape == (1, 3, 5, 7)
        fine = F.interpolate(coarse, (33, 49), mode="bilinear", align_corners=align_corners)
        assert torch.equal(network(images), fine)
        assert torch.equal(fine[..., -1, -1], coarse[..., -1, -1])
        assert torch.allclose(fine[..., ::8, ::8], coarse, atol=1e-6) == align_corners


def plain_head(network, low, high):
    """Figure 2 of the paper without any of our shortcuts."""
    x, _ = afnb(network.fusion, low, high)
    convolution, norm, _ = network.project
    x = F.relu(batch_norm(F.conv2d(x, convolution.weight, padding=1), norm))
    x, _ = apnb(network.context, x)
    return F.conv2d(x, network.classifier.weight, network.classifier.bias)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("merge", ["concat", "add", "none"])
def test_head_is_the_equations(merge, training):
    network = wake(tiny(merge=merge, dropout=0.0)).double()
    network(torch.randn(4, 3, 40, 40, dtype=torch.float64))  # moves BatchNorm's averages away from 0 and 1
    network.train(training)
    for low_size, high_size in [((9, 14), (5, 7)), ((1, 1), (2, 1)), ((16, 11), (16, 11))]:
        low = torch.randn(2, 6, *low_size, dtype=torch.float64, requires_grad=True)
        high = torch.randn(2, 8, *high_size, dtype=torch.float64, requires_grad=True)
        inputs = [low, high, *network.project.parameters(), *network.fusion.parameters(), *network.context.parameters()]
        ours, plain = network.head(low, high), plain_head(network, low, high)
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
        weights = torch.randn_like(ours)
        gradients = [torch.autograd.grad((out * weights).sum(), inputs) for out in (ours, plain)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_fresh_network_starts_without_context():
    network = tiny().eval()
    images = torch.randn(1, 3, 40, 40)
    before = network(images)
    with torch.no_grad():
        network.fusion.merge[0].weight[:, :8].mul_(100)
        network.context.merge[0].weight[:, :6].mul_(100)
    assert torch.equal(network(images), before)
    wake(network)
    assert not torch.allclose(network(images), before)


@pytest.mark.parametrize("merge", ["concat", "add", "none"])
def test_no_merge_is_dead_at_the_start(merge):
    network = tiny(merge=merge).eval()
    images = torch.randn(1, 3, 48, 48, requires_grad=True)
    network(images).square().sum().backward()
    assert images.grad.abs().max() > 1e-5


def test_names_in_a_checkpoint():
    norm = ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    projection = ["0.weight", *norm]
    query, key, merge = ([f"{part}.{name}" for name in projection] for part in ("query", "key", "merge"))
    ends = ["value.weight", "value.bias", "output.weight", "output.bias"]
    expected = [f"fusion.{name}" for name in [*query, *key, *ends, *merge]]
    expected += [f"project.{name}" for name in projection]
    expected += [f"context.{name}" for name in [*query, *ends, *merge]]
    expected += ["classifier.weight", "classifier.bias"]
    expected += [f"aux_classifier.{name}" for name in [*projection, "4.weight", "4.bias"]]
    names = list(ANNNet(2, "resnet10t", **NARROW).state_dict())
    assert [name for name in names if not name.startswith("backbone.")] == expected
    assert {name.split(".")[2] for name in names if name.startswith("backbone.features.")} == {
        *("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    }
    pyramid = [name for name in tiny(context="psp").state_dict() if name.startswith("pyramid.")]
    assert pyramid == [f"pyramid.projections.{grid}.{name}" for grid in range(4) for name in projection]


def test_copies_give_the_same_logits():
    network = wake(tiny()).eval()
    images = torch.randn(1, 3, 33, 17)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(images), network(images))
        assert twin.settings == network.settings
        assert all(a is not b for a, b in zip(twin.parameters(), network.parameters(), strict=True))
    torch.manual_seed(0)
    timms = ANNNet(2, "mobilenetv2_100", **NARROW).eval()
    assert torch.equal(pickle.loads(pickle.dumps(timms))(images), timms(images))


def test_the_same_seed_gives_the_same_network():
    images = torch.randn(2, 3, 24, 24)
    logits = []
    for _ in range(2):
        network = tiny(seed=7).train()
        logits.append(network(images))  # dropout included
    assert torch.equal(*logits)


@pytest.mark.parametrize("context", ["apnb", "nonlocal", "psp"])
def test_memory_order_does_not_matter(context):
    torch.manual_seed(0)
    network = wake(ANNNet(2, "resnet10t", context=context, **NARROW)).eval()
    images = torch.randn(1, 3, 65, 97)
    expected = network(images)
    logits = network.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fusion", "context"), [("afnb", "apnb"), ("none", "nonlocal"), ("none", "psp")])
def test_bfloat16(fusion, context):
    network = wake(tiny(fusion=fusion, context=context, dropout=0.0))
    images = torch.randn(2, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, aux = network(images, with_aux=True)
    (logits.float().square().mean() + aux.float().square().mean()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    network.eval()
    expected = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images).float()
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    ("fusion", "context", "backbone"),
    [("afnb", "apnb", "resnet10t"), ("none", "nonlocal", None), ("none", "psp", None), ("none", "none", None)],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_exported_with_free_sizes(fusion, context, backbone):
    settings = {"pool_sizes": (1, 2)} if context == "psp" else {}
    network = wake(tiny(fusion=fusion, context=context, backbone=backbone, stages=(1, 2), **settings)).eval()
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(free,)).module()
    for height, width in [(64, 96), (33, 47), (65, 130), (17, 96)]:
        images = torch.randn(2, 3, height, width)
        torch.testing.assert_close(program(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_backbone_that_wants_multiples():
    """Images are padded for it at the right and bottom, and logits cropped."""

    class Multiples(Tiny):
        size_multiple = 32

        def forward(self, images):
            assert images.shape[2] % 32 == images.shape[3] % 32 == 0
            return super().forward(images)

    network = tiny(backbone=Multiples()).eval()
    images = torch.randn(1, 3, 33, 47)
    assert torch.equal(network(images), network(F.pad(images, (0, 17, 0, 31)))[:, :, :33, :47])
    assert network.train()(torch.randn(1, 3, 1, 20)).shape == (1, 3, 1, 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "apnb"}, "fusion = 'apnb' is not one of 'afnb', 'none'"),
        ({"context": "ocr"}, "context = 'ocr' is not one of 'apnb', 'nonlocal', 'nonlocal_wang', 'psp', 'none'"),
        ({"merge": "sum"}, "merge = 'sum' is not one of 'concat', 'add', 'none'"),
        ({"output_stride": 4}, "output_stride = 4 is not one of 8, 16, 32"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"key_channels": 0}, "key_channels must be at least 1, not 0"),
        ({"backbone": nn.Identity()}, "Identity needs an attribute 'channels'"),
        ({"backbone": "resnet5"}, "'resnet5' is no timm model; close: resnet5"),
        ({"backbone": "resent50"}, "'resent50' is no timm model; close: res.*resnet50"),
        ({"backbone": "densenet121"}, "its own is 32: set model.output_stride to 32"),
        ({"backbone": "resnet10t", "stages": (5, 9)}, "'resnet10t' gives no feature maps"),
        (
            {"backbone": "mixer_s32_224", "output_stride": 32},
            "'mixer_s32_224' cannot be used: it takes images of one size only",
        ),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ANNNet(**{"num_classes": 3, "backbone": Tiny()} | settings)
    assert "\n" not in str(caught.value)
