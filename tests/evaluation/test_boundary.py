"""Boundary IoU: by hand, and against masks eroded one by one as its authors do."""

import math

import numpy as np
import pytest
import torch

from asymseg.classes import IGNORE
from asymseg.evaluation.boundary import BoundaryCounts, boundary_scores, count_boundary, rim_width


def blobs(seed: int, size: tuple[int, int], num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """A label of large pieces, some ignored, and a prediction of the same pieces moved and with specks."""
    rng = np.random.default_rng(seed)
    small = rng.choice([*range(num_classes), IGNORE], (-(-size[0] // 9), -(-size[1] // 9)))
    label = np.kron(small, np.ones((9, 9)))[: size[0], : size[1]].astype(np.uint8)
    moved = np.roll(np.where(label == IGNORE, 0, label), (2, -3), (0, 1))
    specks = rng.random(size) < 0.02
    prediction = np.where(specks, rng.integers(0, num_classes, size), moved).astype(np.uint8)
    return torch.from_numpy(prediction), torch.from_numpy(label)


def rim_of(mask: np.ndarray, reach: int) -> np.ndarray:
    """The pixels of a mask that one of the squares around them shows something else in, looked at one by one."""
    padded = np.pad(mask, reach)
    side = 2 * reach + 1
    rim = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        rim[row, column] = not padded[row : row + side, column : column + side].all()
    return rim


def test_by_hand() -> None:
    """A square of 7 x 7 in a field of 11 x 11, predicted one column to the right; rims of one pixel."""
    label = torch.zeros(11, 11, dtype=torch.uint8)
    label[2:9, 2:9] = 1
    counts = count_boundary(label.roll(1, 1), label, 2, share=0.0)
    # Rims of 24 pixels each; in common are the two long sides but for a column (6 each) and nothing else.
    assert counts.rims[:, 1].tolist() == [12, 24, 24]
    assert boundary_scores(counts).iou[1] == pytest.approx(12 / 36)
    # The inner 5 x 5 pixels of the square are all right.
    assert counts.interior[1].tolist() == [0, 25]


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 4), (31, 45), (64, 50)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_equals_masks_taken_one_by_one(size: tuple[int, int], share: float) -> None:
    prediction, label = blobs(size[1], size)
    counts = count_boundary(prediction, label, 4, share)
    truth, guess, counted = label.numpy(), prediction.numpy(), label.numpy() != IGNORE
    reach = max(1, round(share * math.hypot(*size)))
    assert rim_width(size, share) == reach
    for number in range(4):
        true_rim = rim_of((truth == number) & counted, reach)
        said_rim = rim_of((guess == number) & counted, reach)
        expected = [(true_rim & said_rim).sum(), true_rim.sum(), said_rim.sum()]
        assert counts.rims[:, number].tolist() == expected
        inside = (truth == number) & ~true_rim
        assert counts.interior[number].tolist() == np.bincount(guess[inside], minlength=4).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_authors_erosion(seed: int) -> None:
    """Their definition: the mask, padded by nothing, less the mask eroded d times by a square of 3 x 3."""
    ndimage = pytest.importorskip("scipy.ndimage")
    prediction, label = blobs(seed, (80, 120))
    reach = max(1, round(0.02 * math.hypot(80, 120)))
    counts = count_boundary(prediction, label, 4)
    iou = boundary_scores(counts).iou
    counted = (label != IGNORE).numpy()
    for number in range(4):
        rims = []
        for ids in (label.numpy(), prediction.numpy()):
            mask = (ids == number) & counted
            rims.append(mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=reach, border_value=0))
        assert iou[number] == pytest.approx((rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum(), abs=1e-12)


def test_counts_add_up_and_absent_classes_stay_out() -> None:
    parts = [count_boundary(*blobs(seed, (30, 40), 3), num_classes=5) for seed in range(3)]
    total = parts[0] + parts[1] + parts[2]
    assert total.rims.tolist() == sum(part.rims for part in parts).tolist()
    result = boundary_scores(total)
    assert [math.isnan(value) for value in result.iou] == [False] * 3 + [True] * 2
    assert result.mean == pytest.approx(np.mean(result.iou[:3]))
    content = result.to_dict(("a", "b", "c", "d", "e"))
    assert content["classes"]["d"] == {"boundary_iou": None, "interior_iou": None}
    assert content["rim"] == "2 % of the image's diagonal"


def test_a_perfect_prediction_and_one_never_right() -> None:
    _, label = blobs(5, (40, 60))
    guess = torch.where(label == IGNORE, 3, label)
    result = boundary_scores(count_boundary(guess, label, 4))
    assert result.iou == (1.0,) * 4
    assert result.interior_mean == 1.0
    wrong = boundary_scores(count_boundary((guess + 1) % 4, label, 4))
    assert wrong.mean == 0.0
    assert wrong.interior_mean == 0.0


def test_nothing_labelled() -> None:
    label = torch.full((5, 5), IGNORE, dtype=torch.uint8)
    counts = count_boundary(torch.zeros_like(label), label, 2)
    assert isinstance(counts, BoundaryCounts)
    assert counts.rims.sum() == 0
    assert math.isnan(boundary_scores(counts).mean)
