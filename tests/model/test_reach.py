"""How far backbones look; receptive fields worked out by hand."""

import pytest
import torch
from torch import nn

from asymseg.errors import ConfigError
from asymseg.model.backbone import make_backbone
from asymseg.model.reach import Reach, measure_reach


class Two(nn.Module):
    """Its two maps are what two modules make of an image, one after the other."""

    channels = (2, 2)

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


def same(kernel, stride=1, dilation=1, channels=2):
    return nn.Conv2d(channels, 2, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation)


@pytest.mark.parametrize(
    ("backbone", "reach"),
    [
        (Two(nn.Identity(), nn.Identity()), Reach((1, 1), 1, 1, 0)),
        (Two(same(3), same(5)), Reach((1, 1), 1, 1, 3)),
        (Two(same(3), same(3, dilation=4)), Reach((1, 1), 1, 1, 5)),
        # Cell j is at pixel 2j and sees 2j - 1 to 2j + 1, so a cut costs one cell, of two pixels, before it alone.
        (Two(same(3, 2), nn.ReLU()), Reach((2, 2), 1, 2, 2)),
        (Two(same(3, 2), nn.MaxPool2d(3, 2, padding=1)), Reach((2, 4), 1, 4, 4)),
        # Low looks one cell of 2 pixels far, high two of its own 4 pixels: 3 + 2 * 4 = 11 before, 12 with whole cells.
        (Two(same(3, 2), nn.Sequential(same(3, 2), same(3), same(3))), Reach((2, 4), 1, 4, 12)),
        (Two(nn.Conv2d(2, 2, 4, 4), nn.BatchNorm2d(2)), Reach((4, 4), 1, 4, 0)),
        (Two(nn.Conv2d(2, 2, (3, 9), padding=(1, 4)), nn.Identity()), Reach((1, 1), 1, 1, 4)),
        (Two(same(3), nn.GroupNorm(1, 2)), Reach((1, 1), 1, 1, None)),
        (Two(same(3), nn.Softmax2d()), Reach((1, 1), 1, 1, 1)),
    ],
)
def test_by_hand(backbone, reach):
    torch.manual_seed(0)
    if reach.strides[0] == 4 and reach.radius == 0:
        backbone.size_multiple = 4
        reach = Reach(reach.strides, 4, 4, 0)
    assert measure_reach(backbone, 2) == reach


def test_the_pyramid_of_another_stride_makes_parts_begin_at_its_own():
    """A map that is pooled by 3 and brought back shifts with the image by threes alone; 8 tries find no such step."""

    class Pooled(nn.Module):
        def forward(self, x):
            coarse = nn.functional.avg_pool2d(x, 4, ceil_mode=True)
            return x + nn.functional.interpolate(coarse, scale_factor=4)[:, :, : x.shape[2], : x.shape[3]]

    reach = measure_reach(Two(nn.Identity(), Pooled()), 2)
    assert reach.align == 4
    assert reach.radius is not None


def test_a_place_in_the_image_that_matters_is_no_end_of_it():
    class Gradient(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[2])[:, None]

    assert measure_reach(Two(nn.Identity(), Gradient()), 2).radius is None


@pytest.mark.parametrize(
    ("name", "settings", "radius"),
    [
        ("test_resnet", ((-2, -1), 8, 3), 88),
        ("resnet10t", ((1, 2), 8, 3), 32),
        ("test_efficientnet", ((-2, -1), 16, 3), None),
    ],
)
def test_of_timm(name, settings, radius):
    torch.manual_seed(0)
    backbone = make_backbone(name, False, *settings)
    backbone.train()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    reach = measure_reach(backbone, 3)
    assert reach.radius == radius
    assert reach.strides == backbone.strides
    assert backbone.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


def test_odd_maps_are_one_line():
    with pytest.raises(ConfigError, match="no whole number of pixels per cell") as caught:
        measure_reach(Two(nn.Conv2d(2, 2, 3), nn.Identity()), 2)
    assert "\n" not in str(caught.value)
