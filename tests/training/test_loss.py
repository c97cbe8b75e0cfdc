"""Losses: values by hand, torch's own where it has one, and nothing but 0 where no pixel is labelled."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from asymseg.classes import IGNORE
from asymseg.config import TrainConfig
from asymseg.training.loss import cross_entropy, make_loss, ohem_cross_entropy

WEIGHTS = torch.tensor([0.5, 2.0, 1.0])
LOSSES = [
    cross_entropy,
    partial(cross_entropy, weights=WEIGHTS),
    ohem_cross_entropy,
    partial(ohem_cross_entropy, min_kept=5),
    partial(ohem_cross_entropy, min_share=0.3, weights=WEIGHTS),
]


def random_case(seed: int = 0, ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 6, 7, generator=generator)
    labels = torch.randint(0, 3, (2, 6, 7), generator=generator)
    labels[torch.rand(2, 6, 7, generator=generator) < ignored] = IGNORE
    return logits, labels


def two_pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """True class probabilities 3/4 and 1/5, and a third pixel that counts nowhere."""
    logits = torch.log(torch.tensor([[[3.0, 4.0, 9.0]], [[1.0, 1.0, 1.0]]]))[None]  # 1 2 1 3
    return logits, torch.tensor([[[0, 1, IGNORE]]])


def test_cross_entropy_by_hand():
    logits, labels = two_pixels()
    expected = (-math.log(3 / 4) - math.log(1 / 5)) / 2
    assert cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_weighted_cross_entropy_by_hand():
    logits, labels = two_pixels()
    expected = (-0.5 * math.log(3 / 4) - 2 * math.log(1 / 5)) / 2.5
    assert cross_entropy(logits, labels, torch.tensor([0.5, 2.0])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs_weighted_mean(weights):
    logits, labels = random_case()
    logits.requires_grad_()
    ours, theirs = cross_entropy(logits, labels, weights), F.cross_entropy(logits, labels, weights, ignore_index=IGNORE)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bf16", [False, True])
def test_no_labelled_pixel_gives_zero_and_zero_gradients(loss, bf16):
    features = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kernel = torch.ones(3, 4, 1, 1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = F.conv2d(features, kernel)
        assert logits.dtype == (torch.bfloat16 if bf16 else torch.float32)
        value = loss(logits, torch.full((1, 5, 5), IGNORE))
    value.backward()
    assert value.item() == 0
    assert (features.grad == 0).all()
    assert (kernel.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_change_nothing(loss):
    logits, labels = random_case()
    other = logits.clone()
    other.movedim(1, -1)[labels == IGNORE] = 50.0 * torch.arange(3)
    assert loss(other, labels) == loss(logits, labels)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_computed_in_float32_under_autocast(loss):
    logits, labels = random_case()
    logits = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), labels))


def ohem_in_numpy(logits, labels, weights, threshold: float, min_kept: int) -> float:
    """The authors' rule with a plain sort; for more labelled pixels than `min_kept`."""
    wide = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy()  # b n h w -> pixels n
    flat = labels.flatten().numpy()
    wide, flat = wide[flat != IGNORE], flat[flat != IGNORE]
    shares = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    true = shares[np.arange(len(flat)), flat]
    kept = true < max(np.sort(true)[min_kept], threshold)
    return float((-np.log(true) * weights[flat])[kept].mean())


@pytest.mark.parametrize("min_kept", [1, 7, 30, 60])
@pytest.mark.parametrize("threshold", [0.01, 0.7])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_ohem_is_the_authors_rule(min_kept, threshold, weights):
    for seed in range(3):
        logits, labels = random_case(seed)
        ours = ohem_cross_entropy(logits, labels, weights, threshold=threshold, min_kept=min_kept)
        numbers = np.ones(3) if weights is None else weights.numpy()
        assert ours.item() == pytest.approx(ohem_in_numpy(logits, labels, numbers, threshold, min_kept), rel=1e-5)


def test_ohem_keeps_below_the_threshold_strictly():
    """True class probabilities 0.5, 0.7 and 0.8: with 0.7 as threshold the first alone is hard."""
    logits = torch.log(torch.tensor([[0.5, 0.75, 0.8], [0.5, 0.25, 0.2]]))[None, :, None]  # 1 2 1 3
    labels = torch.zeros(1, 1, 3, dtype=torch.int64)
    exact = float(torch.softmax(logits, 1)[0, 0, 0, 1])
    assert ohem_cross_entropy(logits, labels, threshold=exact, min_kept=1).item() == pytest.approx(math.log(2))


def test_ohem_weights_are_not_normalised():
    logits, labels = two_pixels()
    value = ohem_cross_entropy(logits, labels, torch.tensor([0.5, 2.0]), min_kept=1)
    assert value.item() == pytest.approx(-2 * math.log(1 / 5), rel=1e-6)


def test_ohem_keeps_all_where_fewer_are_labelled():
    logits, labels = two_pixels()
    assert ohem_cross_entropy(logits, labels, min_kept=2).item() == pytest.approx(cross_entropy(logits, labels).item())
    assert ohem_cross_entropy(logits, labels).item() == pytest.approx(cross_entropy(logits, labels).item())


def test_ohem_share_is_of_the_labelled_pixels():
    logits, labels = random_case()
    count = int((labels != IGNORE).sum())
    by_share = ohem_cross_entropy(logits, labels, threshold=0.01, min_share=0.25)
    assert by_share == ohem_cross_entropy(logits, labels, threshold=0.01, min_kept=round(0.25 * count))
    assert by_share != ohem_cross_entropy(logits, labels, threshold=0.01, min_kept=round(0.5 * count))


def test_ohem_gradient_is_that_of_the_kept_pixels():
    logits, labels = two_pixels()
    logits.requires_grad_()
    ohem_cross_entropy(logits, labels, min_kept=1).backward()
    expected = torch.tensor([[0.0, 0.8, 0.0], [0.0, -0.8, 0.0]])[None, :, None]
    torch.testing.assert_close(logits.grad, expected)


def test_auxiliary_loss_is_plain_whatever_the_main_loss():
    logits, labels = random_case()
    main, aux = make_loss(TrainConfig(loss="ohem", ohem_threshold=0.3, ohem_min_kept=4), WEIGHTS)
    assert main(logits, labels) == ohem_cross_entropy(logits, labels, WEIGHTS, threshold=0.3, min_kept=4)
    assert aux(logits, labels) == cross_entropy(logits, labels, WEIGHTS)
    main, aux = make_loss(TrainConfig(), None)
    assert main(logits, labels) == aux(logits, labels) == cross_entropy(logits, labels)
    main, _ = make_loss(TrainConfig(loss="ohem", ohem_threshold=0.3, ohem_min_share=0.5), None)
    assert main(logits, labels) == ohem_cross_entropy(logits, labels, threshold=0.3, min_share=0.5)
