"""Scores: hand-computed cases, conventions, and agreement with torchmetrics and scikit-learn."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from asymseg.classes import IGNORE
from asymseg.errors import DataError
from asymseg.evaluation.metrics import Absent, category_scores, confusion_matrix, scores


def random_maps(seed: int, num_classes: int, shape: tuple[int, ...] = (2, 17, 23)) -> tuple[Tensor, Tensor]:
    """A prediction that is right on about half of the pixels, and a label with about a fifth of its pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(num_classes, shape, generator=generator)
    guess = torch.randint(num_classes, shape, generator=generator)
    prediction = torch.where(torch.rand(shape, generator=generator) < 0.5, label, guess)
    label[torch.rand(shape, generator=generator) < 0.2] = IGNORE
    return prediction, label


def test_rows_are_labels_and_columns_predictions() -> None:
    label = torch.tensor([[0, 0, 1], [1, 2, IGNORE]], dtype=torch.uint8)
    prediction = torch.tensor([[0, 1, 1], [2, 2, 0]], dtype=torch.uint8)
    matrix = confusion_matrix(prediction, label, 3)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_scores_by_hand() -> None:
    result = scores(torch.tensor([[4, 1, 0], [2, 6, 0], [0, 3, 4]]))
    # labelled 5, 8, 7; predicted 6, 10, 4; correct 4, 6, 4; unions 7, 12, 7
    assert result.iou == pytest.approx((4 / 7, 6 / 12, 4 / 7))
    assert result.accuracy == pytest.approx((4 / 5, 6 / 8, 4 / 7))
    assert result.precision == pytest.approx((4 / 6, 6 / 10, 4 / 4))
    assert result.f1 == pytest.approx((8 / 11, 12 / 18, 8 / 11))
    assert result.support == (5, 8, 7)
    assert result.classes_present == 3
    assert result.miou == pytest.approx((4 / 7 + 1 / 2 + 4 / 7) / 3)
    assert result.micro_iou == pytest.approx(14 / 26)
    assert result.pixel_accuracy == pytest.approx(14 / 20)
    assert result.mean_accuracy == pytest.approx((4 / 5 + 3 / 4 + 4 / 7) / 3)
    assert result.mean_f1 == pytest.approx((8 / 11 + 2 / 3 + 8 / 11) / 3)
    assert result.fwiou == pytest.approx((5 * 4 / 7 + 8 * 1 / 2 + 7 * 4 / 7) / 20)


@pytest.mark.parametrize(("absent", "miou"), [("nan", 1.25 / 2), ("zero", 1.25 / 3), ("one", 2.25 / 3)])
def test_class_that_occurs_nowhere(absent: Absent, miou: float) -> None:
    result = scores(torch.tensor([[3, 0, 0], [1, 1, 0], [0, 0, 0]]), absent)
    assert result.iou[:2] == (0.75, 0.5)
    assert result.miou == pytest.approx(miou)
    assert result.classes_present == 2
    assert math.isnan(result.accuracy[2])
    assert math.isnan(result.precision[2])
    # an average weighted by labelled pixels does not see the convention
    assert result.fwiou == pytest.approx((3 * 0.75 + 2 * 0.5) / 5)
    assert result.mean_accuracy == pytest.approx((1 + 0.5) / 2)


def test_class_predicted_but_never_labelled_counts_as_zero() -> None:
    result = scores(torch.tensor([[3, 1], [0, 0]]))
    assert result.iou == (0.75, 0.0)
    assert result.miou == 0.375
    assert math.isnan(result.accuracy[1])
    assert result.mean_accuracy == 0.75
    assert result.classes_present == 2


def test_confusion_within_a_category_is_no_mistake() -> None:
    matrix = torch.tensor([[4, 1, 0, 0], [2, 6, 3, 0], [0, 1, 5, 0], [0, 0, 0, 0]])
    result = category_scores(matrix, ("vehicle", "vehicle", "sky", "void"))
    # vehicles: 13 right of 16 labelled and 14 predicted; sky: 5 of 6 and 8
    assert result == {
        "vehicle": pytest.approx(13 / 17),
        "sky": pytest.approx(5 / 9),
        "void": pytest.approx(math.nan, nan_ok=True),
    }
    apart = category_scores(matrix, ("a", "b", "c", "d"))
    assert list(apart.values())[:3] == pytest.approx(scores(matrix).iou[:3])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_classes", [1, 2, 7, 21])
def test_agrees_with_torchmetrics(num_classes: int, seed: int) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    prediction, label = random_maps(seed, num_classes)
    matrix = confusion_matrix(prediction, label, num_classes)
    if num_classes == 1:  # torchmetrics wants two
        assert matrix.item() == (label != IGNORE).sum()
        return
    settings = {"num_classes": num_classes, "ignore_index": IGNORE}
    theirs = classification.multiclass_confusion_matrix(prediction, label, **settings)
    assert torch.equal(matrix, theirs)
    ours = scores(matrix)
    for average, value in {"macro": ours.miou, "micro": ours.micro_iou, "weighted": ours.fwiou}.items():
        assert value == pytest.approx(
            classification.multiclass_jaccard_index(prediction, label, average=average, **settings).item(), abs=1e-6
        )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_classes", [2, 7, 21, 255])
def test_agrees_with_scikit_learn(num_classes: int, seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, label = random_maps(seed, num_classes, shape=(31, 37))
    counted = label != IGNORE
    truth, guess = label[counted].numpy(), prediction[counted].numpy()
    ids = np.arange(num_classes)
    matrix = confusion_matrix(prediction, label, num_classes)
    np.testing.assert_array_equal(matrix.numpy(), sklearn.confusion_matrix(truth, guess, labels=ids))
    ours = scores(matrix, "zero")
    assert ours.pixel_accuracy == pytest.approx(sklearn.accuracy_score(truth, guess), abs=1e-12)
    assert ours.micro_iou == pytest.approx(sklearn.jaccard_score(truth, guess, labels=ids, average="micro"), abs=1e-12)
    for values, theirs, fill in (
        (ours.iou, sklearn.jaccard_score, 0),
        (ours.f1, sklearn.f1_score, 0),
        (ours.accuracy, sklearn.recall_score, np.nan),
        (ours.precision, sklearn.precision_score, np.nan),
    ):
        expected = theirs(truth, guess, labels=ids, average=None, zero_division=fill)
        np.testing.assert_allclose(values, expected, atol=1e-12)


def test_matrices_of_images_add_up() -> None:
    prediction, label = random_maps(0, 5, shape=(4, 9, 11))
    parts = [confusion_matrix(prediction[number], label[number], 5) for number in range(4)]
    assert torch.equal(sum(parts, torch.zeros(5, 5, dtype=torch.int64)), confusion_matrix(prediction, label, 5))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_types_agree(dtype: torch.dtype) -> None:
    prediction, label = random_maps(1, 200)
    assert torch.equal(
        confusion_matrix(prediction.to(dtype), label.to(dtype), 200), confusion_matrix(prediction, label, 200)
    )


def test_exact_where_float32_counts_stop() -> None:
    side = 4473  # side ** 2 is odd and above 2 ** 24, so float32 cannot hold it
    pixels = torch.ones(1, 1, dtype=torch.uint8).expand(side, side)
    assert confusion_matrix(pixels, pixels, 2).tolist() == [[0, 0], [0, side**2]]


@pytest.mark.parametrize("stray", [3, 254, 256, -1])
def test_label_outside_the_classes(stray: int) -> None:
    label = torch.tensor([[0, 1], [2, stray]])
    with pytest.raises(DataError, match=rf"holds the id {stray}, but the classes are 0 to 2 .*\"values\""):
        confusion_matrix(torch.zeros_like(label), label, 3)


@pytest.mark.parametrize("stray", [3, IGNORE, -1])
def test_prediction_outside_the_classes(stray: int) -> None:
    prediction = torch.tensor([[0, 1], [2, stray]])
    with pytest.raises(ValueError, match=f"a prediction holds the id {stray}"):
        confusion_matrix(prediction, torch.zeros_like(prediction), 3)


def test_prediction_on_an_ignored_pixel_is_not_looked_at() -> None:
    matrix = confusion_matrix(torch.tensor([1, 200]), torch.tensor([1, IGNORE]), 2)
    assert matrix.tolist() == [[0, 0], [0, 1]]


def test_shapes_must_be_equal() -> None:
    # jaxtyping reports it first, as a TypeError, where its checks are switched on
    with pytest.raises((ValueError, TypeError)):
        confusion_matrix(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64), 2)


@pytest.mark.parametrize("count", [0, 256])
def test_number_of_classes_has_limits(count: int) -> None:
    with pytest.raises(ValueError, match="num_classes must be from 1 to 255"):
        confusion_matrix(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64), count)


@pytest.mark.parametrize("shape", [(2, 3), (0, 3)])
def test_nothing_to_count(shape: tuple[int, int]) -> None:
    label = torch.full(shape, IGNORE, dtype=torch.uint8)
    matrix = confusion_matrix(torch.zeros_like(label), label, 2)
    assert matrix.tolist() == [[0, 0], [0, 0]]
    result = scores(matrix)
    means = (result.miou, result.micro_iou, result.fwiou, result.pixel_accuracy, result.mean_accuracy, result.mean_f1)
    assert all(math.isnan(value) for value in means)
    assert result.classes_present == 0
    assert scores(matrix, "zero").miou == 0.0
    assert scores(matrix, "one").miou == 1.0


def test_dictionary_is_strict_json() -> None:
    result = scores(torch.tensor([[3, 0, 0], [1, 1, 0], [0, 0, 0]]))
    content = json.loads(json.dumps(result.to_dict(("sky", "road", "snow")), allow_nan=False))
    assert content["miou"] == content["macro_iou"] == 0.625
    assert content["micro_iou"] == pytest.approx(4 / 6)
    assert content["classes"]["road"] == {
        "iou": 0.5,
        "accuracy": 0.5,
        "precision": 1.0,
        "f1": pytest.approx(2 / 3),
        "pixels": 2,
    }
    assert content["classes"]["snow"]["iou"] is None
    assert (content["classes_present"], content["num_classes"], content["pixels"]) == (2, 3, 5)
    assert content["absent"] == "nan"
    with pytest.raises(ValueError, match="2 names for the scores of 3 classes"):
        result.to_dict(("sky", "road"))


def test_unknown_convention() -> None:
    with pytest.raises((ValueError, TypeError)):
        scores(torch.eye(2, dtype=torch.int64), "half")  # type: ignore[arg-type]
