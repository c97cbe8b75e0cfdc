"""Calibration and risk against coverage: by hand, against torchmetrics, and against sorting every pixel."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from asymseg.classes import IGNORE
from asymseg.evaluation.calibration import BINS, FINE, STEPS, calibration_scores, count_calibration


def judged(seed: int, classes: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities n h w, the class of each pixel and its label; the surer, the more often right."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(classes, 40, 50, generator=generator, dtype=torch.float64)
    shares = logits.softmax(0).to(dtype)
    best, guess = shares.max(0)
    right = torch.rand(40, 50, generator=generator) < best**2
    other = torch.randint(classes, (40, 50), generator=generator)
    label = torch.where(right, guess, other).byte()
    label[:5] = IGNORE
    return shares, guess.byte(), label


def test_by_hand() -> None:
    prediction = torch.tensor([[0, 0, 1, 1]], dtype=torch.uint8)
    label = torch.tensor([[0, 1, 1, IGNORE]], dtype=torch.uint8)
    confidence = torch.tensor([[0.9, 0.9, 1.0, 0.1]])
    result = calibration_scores(count_calibration(prediction, confidence, label, 2))
    # bin 13 holds two pixels sure to 0.9 of which one is right; bin 14 one that is sure and right
    assert result.pixels == (*[0] * 13, 2, 1)
    assert result.accuracy[13:] == (0.5, 1.0)
    assert result.confidence[13:] == pytest.approx((0.9, 1.0))
    assert result.ece == pytest.approx(2 / 3 * 0.4)
    assert result.class_ece == pytest.approx((0.4, 0.0))
    assert result.overconfidence == pytest.approx((2.8 - 2) / 3)
    assert result.coverage == pytest.approx((1 / 3, 1))
    assert result.risk == pytest.approx((0, 1 / 3))
    # of the two equally sure, either may come first: risks 0, 1/2, 1/3 or 0, 0, 1/3
    assert result.aurc == pytest.approx((0 + 1 / 4 + 1 / 3) / 3)
    assert result.aurc_resolution == pytest.approx(1 / 4 / 3)
    assert result.risk_at(2 / 3) == pytest.approx(1 / 4)
    assert result.risk_at(1.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_ece_equals_torchmetrics_in_float64(seed: int) -> None:
    """Its public form rounds confidences to float32, so its sum is asked for here; below, the public form."""
    module = pytest.importorskip("torchmetrics.functional.classification.calibration_error")
    shares, guess, label = judged(seed)
    best, counted = shares.amax(0), label != IGNORE
    result = calibration_scores(count_calibration(guess, best, label, 5))
    theirs = module._ce_compute(best[counted], (guess == label)[counted].double(), BINS)
    assert result.ece == pytest.approx(theirs.item(), abs=1e-9)
    for number in range(5):
        mine = counted & (guess == number)
        theirs = module._ce_compute(best[mine], (guess == label)[mine].double(), BINS)
        assert result.class_ece[number] == pytest.approx(theirs.item(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_ece_agrees_with_torchmetrics_as_it_is_called(seed: int) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    shares, guess, label = judged(seed, dtype=torch.float32)
    result = calibration_scores(count_calibration(guess, shares.amax(0), label, 5))
    theirs = classification.multiclass_calibration_error(shares[None], label[None].long(), 5, BINS, ignore_index=IGNORE)
    assert result.ece == pytest.approx(theirs.item(), abs=1e-5)  # it adds up in float32


def sorted_risks(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of mistakes among the k surest, for every k."""
    order = np.argsort(-confidence, kind="stable")
    return np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)


@pytest.mark.parametrize("seed", range(4))
def test_risk_and_coverage_against_sorting_all_pixels(seed: int) -> None:
    shares, guess, label = judged(seed, dtype=torch.float32)
    counted = label != IGNORE
    best = shares.amax(0)
    risks = sorted_risks(best[counted].numpy(), (guess != label)[counted].numpy())
    result = calibration_scores(count_calibration(guess, best, label, 5))
    assert abs(result.aurc - risks.mean()) <= result.aurc_resolution < 0.002
    assert result.risk[-1] == pytest.approx(risks[-1])
    for coverage, risk in zip(result.coverage, result.risk, strict=True):
        assert risk == pytest.approx(risks[round(coverage * len(risks)) - 1])
    for share in (0.3, 0.5, 0.9):
        assert result.risk_at(share) == pytest.approx(risks[round(share * len(risks)) - 1], abs=0.002)


def test_confidences_near_one_keep_their_order() -> None:
    """Where a network is sure, 1 - confidence spans many powers of two, and the bins with it."""
    unsure = 2.0 ** -torch.arange(1, 25, dtype=torch.float64)
    prediction = torch.zeros(1, 24, dtype=torch.uint8)
    counts = count_calibration(prediction, (1 - unsure).float()[None], prediction, 1)
    assert np.flatnonzero(counts.ranked[0]).tolist() == [1 + STEPS * octave for octave in range(24)]
    ends = count_calibration(prediction[:, :2], torch.tensor([[1.0, 0.0]]), prediction[:, :2], 1)
    assert np.flatnonzero(ends.ranked[0]).tolist() == [0, FINE - 1]


def test_counts_add_up_whatever_the_portions() -> None:
    shares, guess, label = judged(1)
    best = shares.amax(0)
    whole = count_calibration(guess, best, label, 5)
    parts = [count_calibration(guess[rows], best[rows], label[rows], 5) for rows in (slice(0, 17), slice(17, None))]
    total = parts[0] + parts[1]
    for name in ("pixels", "correct", "ranked"):
        assert getattr(total, name).tolist() == getattr(whole, name).tolist()
    np.testing.assert_allclose(total.confidence, whole.confidence, rtol=1e-12)
    assert total.pixels.sum() == int((label != IGNORE).sum())


def test_nothing_labelled() -> None:
    label = torch.full((2, 2), IGNORE, dtype=torch.uint8)
    result = calibration_scores(count_calibration(torch.zeros_like(label), torch.ones(2, 2), label, 3))
    assert all(math.isnan(value) for value in (result.ece, result.aurc, result.overconfidence, result.risk_at(0.5)))
    content = result.to_dict(("a", "b", "c"))
    assert content["ece"] is None
    assert content["class_ece"] == {"a": None, "b": None, "c": None}
