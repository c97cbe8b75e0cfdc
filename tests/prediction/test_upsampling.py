"""Logits brought to an image's size some rows at a time, against `F.interpolate` of the whole map at once."""

import pytest
import torch
from torch.nn import functional as F

from asymseg.prediction.upsampling import View, upsampled

# What the logits cover, how much of it the network saw as image, and the size of the coarse map.
SEEN = [
    ((1, 1), (1, 1), (1, 1)),
    ((8, 8), (1, 5), (1, 1)),
    ((9, 1), (9, 1), (2, 1)),
    ((16, 24), (16, 24), (2, 3)),
    ((33, 47), (33, 47), (5, 6)),
    ((64, 64), (33, 50), (2, 2)),
    ((40, 70), (40, 70), (10, 18)),
    ((7, 5), (7, 5), (7, 5)),
    ((6, 9), (6, 9), (12, 20)),  # finer than the image
]
SIZES = [(1, 1), (1, 13), (20, 1), (17, 31), (50, 23)]


def whole(view, size, align_corners):
    """The same, in one piece: to what the logits cover, cropped, to the image's size, turned back."""
    logits = F.interpolate(view.logits, view.covers, mode="bilinear", align_corners=align_corners)
    logits = logits[:, :, : view.seen[0], : view.seen[1]]
    if view.seen != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return logits[0].flip(2) if view.mirrored else logits[0]


def in_portions(view, size, align_corners, step=7):
    portions = [slice(first, min(first + step, size[0])) for first in range(0, size[0], step)]
    return torch.cat([upsampled(view, size, rows, align_corners) for rows in portions], dim=1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_as_in_one_piece(step, align_corners):
    """At the size that was seen and at others, one row at a time, several, and all."""
    torch.manual_seed(0)
    for number, (covers, seen, coarse) in enumerate(SEEN):
        for size in (seen, *SIZES):
            view = View(torch.randn(1, 4, *coarse), covers, seen, mirrored=bool(number % 2))
            out = in_portions(view, size, align_corners, step)
            assert out.shape == (4, *size)
            torch.testing.assert_close(out, whole(view, size, align_corners), rtol=0, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_far_down_a_tall_image(align_corners):
    """Positions stay exact enough where they are large."""
    torch.manual_seed(1)
    view = View(torch.randn(1, 1, 1025, 1), (8193, 1), (8193, 1), mirrored=False)
    for size in [(8193, 1), (6001, 1)]:
        rows = slice(size[0] - 200, size[0])
        out, expected = upsampled(view, size, rows, align_corners), whole(view, size, align_corners)
        torch.testing.assert_close(out, expected[:, rows], rtol=0, atol=2e-3)


def test_values_by_hand():
    """Two by two pixels brought to four by four: weights of a quarter and three quarters; corners at the corners."""
    view = View(torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]]), (4, 4), (4, 4), mirrored=False)
    middle = upsampled(view, (4, 4), slice(1, 2), align_corners=False)
    assert middle.tolist() == [[[2.0, 3.0, 5.0, 6.0]]]
    last = upsampled(view, (4, 4), slice(3, 4), align_corners=True)
    torch.testing.assert_close(last, torch.tensor([[[8.0, 28 / 3, 32 / 3, 12.0]]]))
    turned = View(view.logits, (4, 4), (4, 4), mirrored=True)
    assert upsampled(turned, (4, 4), slice(1, 2), align_corners=False).tolist() == [[[6.0, 5.0, 3.0, 2.0]]]
    cropped = View(view.logits, (4, 4), (3, 3), mirrored=True)
    assert upsampled(cropped, (3, 3), slice(1, 2), align_corners=False).tolist() == [[[5.0, 3.0, 2.0]]]


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_of_the_logits_does_not_matter(channels_last):
    torch.manual_seed(2)
    logits = torch.randn(1, 6, 5, 7)
    before = logits.clone()
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    view = View(logits, (33, 50), (33, 50), mirrored=False)
    for size in [(33, 50), (20, 20)]:
        torch.testing.assert_close(in_portions(view, size, False), whole(view, size, False), rtol=0, atol=1e-5)
    assert torch.equal(logits, before)
