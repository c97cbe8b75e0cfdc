"""Names of ResNets that timm lacks: their parts, their geometry, their faults."""

import pytest
import torch
from torch import nn

from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.backbone import backbone_normalisation, make_backbone
from asymseg.model.resnet import parse_name

NARROW = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 4}


def features(name, output_stride=8):
    torch.manual_seed(0)
    return make_backbone(name, False, (-2, -1), output_stride, 3).features


def dilations(network):
    """Of the 3x3 convolution of every block in the two last stages; padding must be the same."""
    convolutions = [block.conv2 for name in ("layer3", "layer4") for block in network[name]]
    assert all(convolution.padding == convolution.dilation for convolution in convolutions)
    return [convolution.dilation[0] for convolution in convolutions]


def test_parts_of_a_name():
    parts = parse_name("resnet50d+even+blocks=1,2,3,4+unpooled+width=8+stem=5")
    assert (parts.timm, parts.geometry) == ("resnet50d", ("even", "unpooled"))
    assert parts.arguments == {
        "layers": (1, 2, 3, 4),
        "channels": (8, 16, 32, 64),
        "stem_type": "deep",
        "stem_width": 5,
    }
    assert parse_name("mobilenetv2_100").arguments == {}


def test_dilations():
    small = "resnet50c+blocks=1,1,2,3+width=4"
    assert dilations(features(small)) == [1, 2, 2, 4, 4]
    assert dilations(features(f"{small}+even")) == [2, 2, 4, 4, 4]
    assert dilations(features(f"{small}+even", 16)) == [1, 1, 2, 2, 2]
    assert dilations(features(f"{small}+even", 32)) == [1, 1, 1, 1, 1]


def test_shortcuts():
    small = "resnet50d+blocks=1,1,1,1+width=4"
    pools = [type(features(small)[f"layer{stage}"][0].downsample[0]).__name__ for stage in (1, 2, 3, 4)]
    assert pools == ["Identity", "AvgPool2d", "AvgPool2dSame", "AvgPool2dSame"]
    changed = features(f"{small}+unpooled")
    pools = [type(changed[f"layer{stage}"][0].downsample[0]).__name__ for stage in (1, 2, 3, 4)]
    assert pools == ["Identity", "AvgPool2d", "Identity", "Identity"]
    strided = features(f"{small}+unpooled", 32)
    assert all(isinstance(strided[f"layer{stage}"][0].downsample[0], nn.AvgPool2d) for stage in (2, 3, 4))


@pytest.mark.parametrize(
    ("size", "down", "up"),
    [(480, 60, 61), (512, 64, 65), (520, 65, 66), (864, 108, 109), (1024, 128, 129), (769, 97, 97), (713, 90, 90)],
)
def test_pooling_that_rounds_up(size, down, up):
    """Sides of the last map, as the authors' network was seen to have them."""
    images = torch.zeros(1, 3, size, 8)
    for name, side in (("", down), ("+ceil", up)):
        network = features(f"resnet50s+blocks=1,1,1,1+width=1+stem=1{name}").eval()
        with torch.no_grad():
            assert network(images)[-1].shape[2] == side


def test_a_network_with_changes_takes_any_size():
    torch.manual_seed(0)
    network = ANNNet(2, "resnet50d+even+unpooled+ceil+blocks=1,1,1,1+width=2", **NARROW)
    for training in (True, False):
        for height, width in [(1, 1), (8, 16), (33, 47)]:
            assert network.train(training)(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


def test_normalisation_is_that_of_timms_weights():
    assert backbone_normalisation("resnet50c+ceil") == backbone_normalisation("resnet50c")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50+sealed", "no change 'sealed' can be made; a ResNet, and no other, takes each"),
        ("resnet50+ciel", "did you mean 'ceil'?"),
        ("resnet50+ceil+ceil", "no change 'ceil' can be made; a ResNet, and no other, takes each"),
        ("resnet50+blocks", "no change 'blocks' can be made; a ResNet, and no other, takes each"),
        ("resnet50+ceil=1", "no change 'ceil=1' can be made; a ResNet, and no other, takes each"),
        ("resnet50+width=4+width=4", "no change 'width=4' can be made; a ResNet, and no other, takes each"),
        ("resnet50+blocks=1,2,3", "blocks takes four numbers above 0"),
        ("resnet50+blocks=1,2,3,0", "blocks takes four numbers above 0"),
        ("resnet50+width=²", "width takes a number above 0"),
        ("resnet50+width=999999", "width takes a number above 0"),
        ("mobilenetv2_100+ceil", "a ResNet, and no other, takes each"),
        ("resnet51+ceil", "is no timm model; close: resnet"),
        ("resnet50+", "no change '' can be made"),
    ],
)
def test_names_that_cannot_be(name, message):
    with pytest.raises(ConfigError) as caught:
        ANNNet(2, name, **NARROW)
    assert message in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
