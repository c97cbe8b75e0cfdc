"""No pixel moves: a network that reads the class off the colour gives back the mask, however it sees the image."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asymseg.classes import Classes
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.predict import Predictor

CLASSES = Classes(tuple("abcd"))
INFO = ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3)
COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]], dtype=torch.uint8)


class Colours(nn.Module):
    """The image at a stride, as both maps."""

    channels = (3, 3)

    def __init__(self, stride: int, multiple: int) -> None:
        super().__init__()
        self.stride, self.size_multiple = stride, multiple

    def forward(self, images):
        inside = slice(self.stride // 2, None, self.stride)
        seen = images[:, :, inside, inside]
        return seen, seen


class Reading(ANNNet):
    """Logits of four classes by colour; black is the fourth."""

    def __init__(self, stride: int = 1, multiple: int = 1) -> None:
        backbone = Colours(stride, multiple)
        super().__init__(4, backbone, fusion="none", context="none", context_channels=4, aux_channels=0)

    def head(self, low, high):
        return 10 * torch.cat([high, 1 - high.sum(dim=1, keepdim=True)], dim=1)


def image_of(mask: np.ndarray) -> torch.Tensor:
    return COLOURS[torch.from_numpy(mask).long()].permute(2, 0, 1)


side = st.integers(1, 45)


@st.composite
def ways_to_see(draw):
    window = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    stride = tuple(draw(st.integers(-(-pixels // 3), pixels)) for pixels in window)
    return {
        "mode": draw(st.sampled_from(["whole", "slide"])),
        "window": window,
        "stride": draw(st.sampled_from([None, stride])),
        "weighting": draw(st.sampled_from(["flat", "tapered"])),
        "scales": (1.0,) * draw(st.integers(1, 2)),
        "flip": draw(st.booleans()),
        "average": draw(st.sampled_from(["probabilities", "logits", "mixed"])),
    }


@given(ways_to_see(), st.tuples(side, side), st.sampled_from([1, 4, 32]), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_mask_comes_back(seeing, size, multiple, seed):
    # Not a thousand windows of a pixel each.
    height, width = (min(side, 7 * window) for side, window in zip(size, seeing["window"], strict=True))
    mask = np.random.default_rng(seed).integers(0, 4, (height, width), dtype=np.uint8)
    predictor = Predictor(Reading(multiple=multiple), replace(INFO, seeing=Seeing(**seeing)), "cpu")
    image = image_of(mask)
    np.testing.assert_array_equal(predictor.class_map(image).numpy(), mask)
    result = predictor(image)
    np.testing.assert_array_equal(result.mask, mask)
    np.testing.assert_array_equal(result.probabilities.argmax(0), mask)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)


@given(ways_to_see(), st.integers(1, 6), st.integers(1, 6), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_mask_comes_back_from_a_stride_of_eight(seeing, rows, columns, upright, seed):
    """Stripes along the network's grid; each pixel is nearer to its own stripe than to the next, so it wins."""
    window = tuple(8 * -(-side // 8) for side in seeing["window"])
    stride = tuple(8 * -(-side // 8) for side in seeing["stride"] or (1, 1))
    info = replace(INFO, seeing=Seeing(**seeing | {"window": window, "stride": stride}))
    predictor = Predictor(Reading(stride=8), info, "cpu")
    stripes = np.random.default_rng(seed).integers(0, 4, columns if upright else rows, dtype=np.uint8).repeat(8)
    mask = np.tile(stripes, (8 * rows, 1)) if upright else np.tile(stripes[:, None], (1, 8 * columns))
    np.testing.assert_array_equal(predictor.class_map(image_of(mask)).numpy(), mask)
