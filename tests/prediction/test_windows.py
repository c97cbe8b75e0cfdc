"""Windows: where they lie, and that the blend by bands is the plain one with full accumulators."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from asymseg.classes import Classes
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.predict import Predictor
from asymseg.prediction.windows import make_axis

CLASSES = Classes(("red", "green", "blue"))
INFO = ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3)


class Uneven(nn.Module):
    """Coarse logits that depend on where in the window a pixel lies, so that no two windows agree."""

    align_corners = False

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride, self.batches = stride, []

    def forward(self, images):
        self.batches.append(tuple(images.shape))
        maps = F.avg_pool2d(images, self.stride, ceil_mode=True)
        rows = torch.linspace(1, 2, maps.shape[2])[:, None]
        return maps * 3 * rows - torch.linspace(0, 1, maps.shape[3])


def starts_of(length: int, window: int, stride: int) -> list[int]:
    """mmsegmentation's formula."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(number * stride + window, length) - window, 0) for number in range(count)]


def weight_of(window: int, weighting: str) -> torch.Tensor:
    """Of one side's pixels."""
    if weighting == "flat":
        return torch.ones(window)
    return torch.sin(torch.pi * (torch.arange(window) + 0.5) / window) ** 2


def plainly(network: nn.Module, image: torch.Tensor, seeing: Seeing) -> torch.Tensor:
    """Probabilities by loops over full-size maps."""
    size, views = image.shape[1:], []
    enlarge = partial(F.interpolate, mode="bilinear", align_corners=network.align_corners)
    as_logits = seeing.average != "probabilities"
    for scale in seeing.scales:
        seen = [max(1, round(side * scale)) for side in size]
        scaled = F.interpolate(image[None], seen, mode="bilinear", antialias=True)  # nothing, at scale 1
        for mirrored in (False, True)[: 1 + seeing.flip]:
            x = scaled.flip(3) if mirrored else scaled
            height, width = (min(side, most) for side, most in zip(seen, seeing.window, strict=True))
            total, count = torch.zeros(1, 3, *seen), torch.zeros(1, 1, *seen)
            weight = weight_of(height, seeing.weighting)[:, None] * weight_of(width, seeing.weighting)
            for top in starts_of(seen[0], height, seeing.steps[0]):
                for left in starts_of(seen[1], width, seeing.steps[1]):
                    place = (..., slice(top, top + height), slice(left, left + width))
                    logits = enlarge(network(x[place]), (height, width))
                    total[place] += weight * (logits if as_logits else logits.softmax(1))
                    count[place] += weight
            blend = enlarge(total / count, size)
            blend = blend.flip(3) if mirrored else blend
            views.append(blend.softmax(1) if seeing.average == "mixed" else blend)
    joined = torch.stack(views).mean(0)[0]
    return joined.softmax(0) if seeing.average == "logits" else joined


SEEINGS = [
    Seeing("slide", (8, 8)),
    Seeing("slide", (16, 9), (5, 9), "tapered"),
    Seeing("slide", (9, 16), (4, 7), average="logits"),
    Seeing("slide", (300, 12), average="mixed", flip=True),
    Seeing("slide", (16, 16), (16, 16), "tapered", flip=True),
    Seeing("slide", (12, 10), (9, 10), "flat", (1.0, 1.6), True, "mixed"),
    Seeing("slide", (12, 12), (8, 8), "tapered", (0.6, 1.0), True, "logits"),
    Seeing("slide", (7, 11), None, "tapered", (1.3,), False, "probabilities"),
    Seeing("whole", scales=(0.5, 1.0, 2.0), flip=True, average="logits"),
]


@pytest.mark.parametrize("seeing", SEEINGS, ids=str)
@pytest.mark.parametrize("align_corners", [False, True])
def test_as_plain_loops_over_full_maps(seeing, align_corners):
    network = Uneven(4)
    network.align_corners = align_corners
    image = torch.rand(3, 25, 31, generator=torch.Generator().manual_seed(1))
    expected = plainly(network, image, seeing)
    predictor = Predictor(network, ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3, seeing=seeing), "cpu")
    for numbers, pixels in ((3_000_000, 10**6), (2_000, 400)):
        predictor.portions.numbers, predictor.portions.pixels = numbers, pixels
        shares = predictor.probabilities(image)
        torch.testing.assert_close(shares, expected, rtol=0, atol=2e-6)
        assert torch.equal(predictor.class_map(image).long(), shares.argmax(0))
    result = predictor(image)
    np.testing.assert_array_equal(result.mask, shares.argmax(0).numpy())
    np.testing.assert_array_equal(result.probabilities, shares.numpy())
    mask, confidence = predictor.class_map_and_confidence(image)
    assert torch.equal(mask.long(), shares.argmax(0))
    torch.testing.assert_close(confidence, shares.amax(0))


def test_mmsegmentations_slide_inference():
    """Its formula, in its own order: all logits added up, divided by how many there were, softmax, arg max."""
    network, image = Uneven(8), torch.rand(3, 50, 61, generator=torch.Generator().manual_seed(2))
    (height, width), (down, across) = (24, 24), (16, 16)
    rows = max(50 - height + down - 1, 0) // down + 1
    columns = max(61 - width + across - 1, 0) // across + 1
    added, times = torch.zeros(1, 3, 50, 61), torch.zeros(1, 1, 50, 61)
    for row in range(rows):
        for column in range(columns):
            bottom, right = min(row * down + height, 50), min(column * across + width, 61)
            top, left = max(bottom - height, 0), max(right - width, 0)
            logits = network(image[None, :, top:bottom, left:right])
            logits = F.interpolate(logits, (bottom - top, right - left), mode="bilinear", align_corners=False)
            added += F.pad(logits, (left, 61 - right, top, 50 - bottom))
            times[:, :, top:bottom, left:right] += 1
    said = Predictor(network, INFO, "cpu").seeing(mode="slide", window=(24, 24), stride=(16, 16), average="logits")
    torch.testing.assert_close(said.probabilities(image), (added / times)[0].softmax(0), rtol=0, atol=1e-6)
    assert torch.equal(said.class_map(image).long(), (added / times)[0].argmax(0))


sides = st.integers(1, 70)


@given(sides, sides, st.data(), st.sampled_from(["flat", "tapered"]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_windows_cover_a_side_with_shares_that_add_up(length, window, data, weighting):
    stride = data.draw(st.integers(1, window))
    axis = make_axis(length, window, stride, weighting)
    assert list(axis.starts) == starts_of(length, window, stride)
    assert len(set(axis.starts)) == len(axis.starts)
    assert axis.starts[-1] + axis.window == length
    added, shares = np.zeros(length), weight_of(axis.window, weighting)
    for number, start in enumerate(axis.starts):
        share = axis.share(number)
        assert float(share.min()) > 0
        added[start : start + axis.window] += share
        assert number in axis.touching(start, start + 1)
    np.testing.assert_allclose(added, 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(axis.weights, shares, atol=1e-6)


def test_shares_by_hand():
    axis = make_axis(6, 4, 2, "tapered")
    low, high = np.sin(np.pi / 8) ** 2, np.sin(3 * np.pi / 8) ** 2
    assert axis.starts == (0, 2)
    assert axis.share(0).tolist() == pytest.approx([1, 1, high / (high + low), low / (low + high)])
    assert axis.share(1).tolist() == pytest.approx([low / (high + low), high / (low + high), 1, 1])
    assert make_axis(5, 4, 4, "flat").share(1).tolist() == [0.5, 0.5, 0.5, 1]


def test_windows_at_once():
    """Several small windows go through together, and no more than the portion says; the sums come out even."""
    network = Uneven(4)
    predictor = Predictor(network, INFO, "cpu").seeing(mode="slide", window=(10, 10), stride=(5, 5))
    predictor.portions.pixels = 450
    predictor.class_map(torch.rand(3, 10, 30))
    assert network.batches == [(3, 3, 10, 10), (2, 3, 10, 10)]
    network.batches.clear()
    predictor.class_map(torch.rand(3, 7, 40))
    assert network.batches == [(4, 3, 7, 10), (3, 3, 7, 10)]
