"""Comparing: known differences are seen, noise is not, and only what belongs together is compared."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_networks import Reading
from PIL import Image

from asymseg.classes import Classes
from asymseg.cli import main
from asymseg.errors import ConfigError, DataError
from asymseg.evaluation.bootstrap import Interval
from asymseg.evaluation.compare import compare, compare_records
from asymseg.evaluation.comparison import Comparison
from asymseg.evaluation.comparison_page import render
from asymseg.evaluation.evaluate import evaluate
from asymseg.evaluation.metrics import scores
from asymseg.evaluation.records import Record
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor

CLASSES = Classes(("red", "green", "blue"))
INFO = ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3)


class HalfBlind(Reading):
    """Never says green where it is blind."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.blind = blind

    def head(self, low, high):
        logits = super().head(low, high)
        return logits * torch.tensor([1.0, 0.0, 1.0])[:, None, None] if self.blind else logits


@pytest.fixture
def data(tmp_path) -> Path:
    """Eight images that can be read off their colours, with a mistake in each."""
    rng = np.random.default_rng(0)
    for number in range(8):
        label = rng.integers(0, 3, (6, 8))
        seen = label.copy()
        seen[0, 0] = (seen[0, 0] + 1) % 3
        for kind, pixels in (("images", np.eye(3, dtype=np.uint8)[seen] * 255), ("masks", label.astype(np.uint8))):
            path = tmp_path / "data" / kind / "val" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "data" / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    return tmp_path / "data"


def record(matrices: np.ndarray, names: tuple[str, ...] | None = None) -> Record:
    counts = np.stack([np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]) for matrix in matrices])
    names = names or tuple(f"{number:03}" for number in range(len(matrices)))
    return Record(names, tuple(f"class {number}" for number in range(matrices.shape[1])), "test", counts)


def noisy(right: float, seed: int, images: int = 60) -> np.ndarray:
    """Confusion matrices of a model that gets a share `right` of each image's pixels, give or take."""
    rng = np.random.default_rng(seed)
    matrices = np.zeros((images, 2, 2), dtype=np.int64)
    for matrix in matrices:
        for number in range(2):
            correct = rng.binomial(200, np.clip(right + 0.1 * rng.standard_normal(), 0, 1))
            matrix[number] = [correct, 200 - correct] if number == 0 else [200 - correct, correct]
    return matrices


def test_the_numbers_are_those_of_both_matrices() -> None:
    a, b = noisy(0.7, 0), noisy(0.8, 1)
    result = compare_records(record(a), record(b), replicates=100)
    of_a, of_b = (scores(torch.from_numpy(matrices.sum(axis=0))) for matrices in (a, b))
    assert result.miou == pytest.approx((of_a.miou, of_b.miou), abs=1e-12)
    assert result.difference.value == pytest.approx(of_b.miou - of_a.miou, abs=1e-12)
    assert result.accuracy_difference.value == pytest.approx(of_b.pixel_accuracy - of_a.pixel_accuracy, abs=1e-12)
    for number in range(2):
        assert result.iou[number] == pytest.approx((of_a.iou[number], of_b.iou[number]), abs=1e-12)


def test_a_clear_difference_is_seen_and_noise_is_not() -> None:
    better = compare_records(record(noisy(0.7, 0)), record(noisy(0.8, 1)))
    assert (better.verdict, better.probability) == ("B is better", 1.0)
    assert better.apart() == ["class 0", "class 1"]
    worse = compare_records(record(noisy(0.8, 1)), record(noisy(0.7, 0)))
    assert (worse.verdict, worse.probability) == ("A is better", 0.0)
    assert (worse.difference.low, worse.difference.high) == pytest.approx(
        (-better.difference.high, -better.difference.low)
    )
    same = compare_records(record(noisy(0.7, 0)), record(noisy(0.7, 3)))
    assert same.verdict == "A and B cannot be told apart"
    assert 0.01 < same.probability < 0.99


def test_of_equal_models_few_seem_better() -> None:
    """The error rate that the level promises, on 40 pairs of equal models: 2 are expected."""
    pairs = [(record(noisy(0.7, 2 * seed)), record(noisy(0.7, 2 * seed + 1))) for seed in range(40)]
    verdicts = [compare_records(a, b, replicates=100).verdict for a, b in pairs]
    assert 1 <= sum("better" in verdict for verdict in verdicts) <= 6


def test_what_is_hard_for_both_drops_out() -> None:
    """B is better by one pixel in each image: paired it is plain, though images differ by far more."""
    rng = np.random.default_rng(0)
    correct = rng.integers(20, 180, 40)
    a = np.stack([[[right, 200 - right], [0, 200]] for right in correct])
    b = np.stack([[[right + 1, 199 - right], [0, 200]] for right in correct])
    result = compare_records(record(a), record(b))
    assert result.verdict == "B is better"
    alone = compare_records(record(a), record(b[rng.permutation(40)]))  # labels are alike, so this too is allowed
    assert alone.verdict == "A and B cannot be told apart"


def test_a_model_against_itself() -> None:
    result = compare_records(record(noisy(0.7, 0)), record(noisy(0.7, 0)), replicates=50)
    assert result.difference == Interval(0.0, 0.0, 0.0)
    assert (result.probability, result.verdict) == (0.5, "A and B cannot be told apart")
    assert result.most_different(5) == ([], [])


def test_the_order_of_the_images_does_not_matter() -> None:
    a, b = record(noisy(0.7, 0)), record(noisy(0.8, 1))
    turned = Record(b.names[::-1], b.classes, b.split, b.counts[::-1])
    assert compare_records(a, turned, replicates=50) == compare_records(a, b, replicates=50)


def test_images_where_they_differ_most() -> None:
    shares = {"lost": (0.9, 0.5), "won": (0.5, 0.9), "little": (0.5, 0.55), "same": (0.7, 0.7)}
    sides = []
    for side in (0, 1):
        correct = [round(200 * pair[side]) for pair in shares.values()]
        sides.append(record(np.array([[[right, 200 - right], [0, 0]] for right in correct]), tuple(shares)))
    result = compare_records(*sides, replicates=20)
    gains, losses = result.most_different(5)
    assert [name for name, _, _ in gains] == ["won", "little"]
    assert [name for name, _, _ in losses] == ["lost"]
    assert losses[0][1:] == pytest.approx((0.9, 0.5))


def test_two_models_on_data(data, tmp_path):
    a, b = Predictor(HalfBlind(blind=True), INFO, "cpu"), Predictor(HalfBlind(), INFO, "cpu")
    told: list[tuple[int, int]] = []
    result = compare(a, b, data, replicates=100, out=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert result.verdict == "B is better"
    assert result.miou[1] == pytest.approx(evaluate(b, data).scores.miou)
    assert told == [*[(done, 8) for done in range(1, 9)] * 2]
    content = json.loads((tmp_path / "compare.json").read_text())
    assert content["verdict"] == "B is better"
    assert content["classes"]["green"]["a"] == 0
    assert content["per_image_miou"]["3"] == [pytest.approx(value) for value in result.images[3][1:]]
    page = (tmp_path / "compare.html").read_text()
    assert page.count("data:image/png;base64,") == 5 * 5
    assert "B is better" in page
    assert "http" not in page


def test_two_evaluations_without_looking_again(data, tmp_path):
    predictors = Predictor(HalfBlind(blind=True), INFO, "cpu"), Predictor(HalfBlind(), INFO, "cpu")
    for name, predictor in zip("ab", predictors, strict=True):
        evaluate(predictor, data, out=tmp_path / name, replicates=0, calibration=False, gallery=False)
    fresh = compare(*predictors, data, replicates=100)
    assert compare(tmp_path / "a", str(tmp_path / "b"), replicates=100, out=tmp_path / "c") == fresh
    assert compare(tmp_path / "a", predictors[1], data, replicates=100) == fresh
    page = (tmp_path / "c" / "compare.html").read_text()
    assert "data:image" not in page
    assert "Images that differ most" in page


def test_the_command_says_it_in_one_line(data, tmp_path, capsys):
    for name, blind in (("a", True), ("b", False)):
        predictor = Predictor(HalfBlind(blind), INFO, "cpu")
        evaluate(predictor, data, out=tmp_path / name, replicates=0, calibration=False, gallery=False)
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c"), "--replicates", "100"])
    said = capsys.readouterr().err
    assert "val, 8 images: mIoU of A 0." in said
    assert "B above A in 100.0 % of replicates: B is better; see " in said
    assert "images are few for a verdict" in said
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"compare.json", "compare.html"}


def test_what_does_not_belong_together_is_refused() -> None:
    a = record(noisy(0.7, 0, images=5))
    other = noisy(0.7, 1, images=6)
    with pytest.raises(DataError, match="only B was measured on 005; measure both on the same images"):
        compare_records(a, record(other))
    with pytest.raises(DataError, match="only A was measured on 000, 001, 002 and 2 others"):
        compare_records(a, record(other, tuple("abcdef")))
    with pytest.raises(DataError, match="only models of the same classes"):
        compare_records(a, Record(a.names, ("x", "y"), a.split, a.counts))
    counts = a.counts.copy()
    counts[3, 1, 0] += 1
    with pytest.raises(DataError, match="different labels: 003 has other pixels"):
        compare_records(a, Record(a.names, a.classes, a.split, counts))


def test_levels_that_make_no_sense_are_refused() -> None:
    a = record(noisy(0.7, 0, images=5))
    with pytest.raises(ConfigError, match="level = 95 must lie between 0 and 1"):
        compare_records(a, a, level=95.0)


@pytest.mark.parametrize("settings", [{"level": 95.0}, {"replicates": 0}])
def test_such_settings_are_refused_before_a_model_is_run(data, settings) -> None:
    predictor = Predictor(HalfBlind(), INFO, "cpu")
    told: list[tuple[int, int]] = []
    with pytest.raises(ConfigError):
        compare(predictor, predictor, data, **settings, progress=lambda done, total: told.append((done, total)))
    with pytest.raises(ConfigError, match="replicates = -1: a bootstrap needs at least 1"):
        evaluate(predictor, data, replicates=-1, progress=lambda done, total: told.append((done, total)))
    assert told == []


def test_a_class_that_occurs_nowhere_and_nothing_labelled(tmp_path) -> None:
    matrices = np.zeros((3, 3, 3), dtype=np.int64)
    matrices[0, 0, 0] = 5
    result = compare_records(record(matrices), record(matrices), replicates=20)
    assert math.isnan(result.iou_differences[2].value)
    assert math.isnan(result.images[1][1])
    assert "absent" in render(result)
    json.dumps(result.to_dict(), allow_nan=False)
    empty = compare_records(record(matrices[1:]), record(matrices[1:]), replicates=20)
    assert isinstance(empty, Comparison)
    assert empty.verdict == "A and B cannot be told apart"
    assert "nan" not in render(empty)
