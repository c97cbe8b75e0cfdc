"""Intervals: the draws against a plain loop, known spreads, and the same draws for two models."""

import math

import numpy as np
import pytest
import torch

from asymseg.errors import ConfigError
from asymseg.evaluation.bootstrap import bootstrap, image_counts, resampled, scores_of
from asymseg.evaluation.metrics import scores


def random_counts(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices of some images, in which some classes do not occur, and their counts."""
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 50, (images, classes, classes)) * (rng.random((images, classes, 1)) < 0.6)
    return matrices, np.stack([image_counts(matrix) for matrix in matrices])


def test_scores_are_those_of_the_summed_matrix() -> None:
    matrices, counts = random_counts(7, 4)
    expected = scores(torch.from_numpy(matrices.sum(axis=0)))
    result = bootstrap(counts, replicates=10)
    assert result.miou.value == pytest.approx(expected.miou, abs=1e-12)
    assert result.pixel_accuracy.value == pytest.approx(expected.pixel_accuracy, abs=1e-12)
    assert [interval.value for interval in result.iou] == pytest.approx(expected.iou, abs=1e-12)


def test_replicates_equal_a_plain_loop_over_the_same_draws() -> None:
    matrices, counts = random_counts(9, 3)
    drawn = resampled(counts, replicates=300, seed=5)
    generator = np.random.default_rng(5)
    for number, draws in enumerate([*generator.integers(0, 9, (250, 9)), *generator.integers(0, 9, (50, 9))]):
        expected = scores(torch.from_numpy(sum(matrices[image] for image in draws)))
        assert drawn.miou[number] == pytest.approx(expected.miou, abs=1e-12)
        assert drawn.pixel_accuracy[number] == pytest.approx(expected.pixel_accuracy, abs=1e-12)
        np.testing.assert_allclose(drawn.iou[number], expected.iou, atol=1e-12)


def test_the_interval_has_the_width_that_statistics_says() -> None:
    """Accuracy of 400 images, each right or wrong throughout with probability 0.8: the spread of a binomial."""
    right = (np.random.default_rng(1).random(400) < 0.8).astype(np.int64)
    counts = np.stack([right, np.ones_like(right), np.ones_like(right)], axis=1)[:, :, None] * 100
    interval = bootstrap(counts, replicates=4000).pixel_accuracy
    share = right.mean()
    half = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert interval.value == pytest.approx(share)
    assert (interval.low, interval.high) == pytest.approx((share - half, share + half), abs=0.004)
    wider = bootstrap(counts, replicates=4000, level=0.99).pixel_accuracy
    assert wider.low < interval.low < interval.high < wider.high


def test_the_same_seed_draws_the_same_images() -> None:
    _, counts = random_counts(20, 3)
    assert bootstrap(counts, 50) == bootstrap(counts, 50)
    assert bootstrap(counts, 50) != bootstrap(counts, 50, seed=1)
    better = counts.copy()
    better[:, 0] = better[:, 1]  # all labelled pixels right: on each draw accuracy is 1
    assert (resampled(better, 50).pixel_accuracy == 1).all()


def test_a_class_that_some_draws_miss_and_one_that_is_nowhere() -> None:
    matrices = np.zeros((5, 3, 3), dtype=np.int64)
    matrices[:, 0, 0] = 10
    matrices[0, 1, 0] = 3  # class 1 occurs in one image, and is missed
    counts = np.stack([image_counts(matrix) for matrix in matrices])
    drawn = resampled(counts, 200)
    missing = np.isnan(drawn.iou[:, 1])
    assert 0.2 < missing.mean() < 0.45  # (4/5)^5 = 0.33
    assert (drawn.miou[missing] == 1).all()
    result = bootstrap(counts, 200)
    assert (result.iou[1].low, result.iou[1].high) == (0, 0)
    assert math.isnan(result.iou[2].low)
    assert result.to_dict(("a", "b", "c"))["iou"]["c"] == [None, None]


def test_one_image_and_none() -> None:
    _, counts = random_counts(1, 2, seed=3)
    only = bootstrap(counts, 20).miou
    assert only.low == only.value == only.high
    nothing = bootstrap(np.zeros((0, 3, 2), dtype=np.int64), 20)
    assert math.isnan(nothing.miou.value)
    assert math.isnan(nothing.miou.high)


def test_counts_stay_exact_where_float32_does_not() -> None:
    counts = np.array([[[2**24 + 1], [2**24 + 3], [2**24 + 3]]])
    assert scores_of(counts).iou[0, 0] == (2**24 + 1) / (2**24 + 5)


@pytest.mark.parametrize(("replicates", "level"), [(0, 0.95), (10, 0.0), (10, 95.0)])
def test_settings_that_make_no_sense_are_refused(replicates: int, level: float) -> None:
    with pytest.raises(ConfigError):
        bootstrap(random_counts(2, 2)[1], replicates, level)
