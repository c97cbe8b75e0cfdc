"""Measuring: a network whose mistakes are known, images of many sizes, and a matrix that was counted by hand."""

import json
import math
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_networks import Reading
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.dataset import DataSet, Pair, open_dataset
from asymseg.errors import ConfigError, DataError
from asymseg.evaluation.evaluate import Evaluation, evaluate, image_miou, measure, write_json
from asymseg.evaluation.metrics import confusion_matrix
from asymseg.evaluation.records import read_record
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing
from asymseg.prediction.predict import Predictor

CLASSES = Classes(("red", "green", "blue"))
INFO = ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3)


class Remembering(Reading):
    """Remembers the sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def head(self, low, high):
        self.sizes.append(tuple(high.shape[2:]))
        return super().head(low, high)


def put(data: Path, name: str, prediction: np.ndarray, label: np.ndarray, split: str = "val") -> None:
    """An image that is read as `prediction`, with the mask `label`."""
    for kind, pixels in (("images", np.eye(3, dtype=np.uint8)[prediction] * 255), ("masks", label.astype(np.uint8))):
        path = data / kind / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path) -> Path:
    """Three images: one with mistakes, one of another size and without any, one that is ignored throughout."""
    folder = tmp_path / "data"
    put(folder, "a", np.array([[0, 0, 1], [1, 2, 0]]), np.array([[0, 1, 1], [1, 2, 255]]))
    put(folder, "b", np.array([[0], [0], [0], [1]]), np.array([[0], [0], [0], [1]]))
    put(folder, "c", np.zeros((2, 2), dtype=int), np.full((2, 2), 255))
    (folder / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    return folder


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Remembering(), INFO, "cpu")


MATRIX = [[4, 0, 0], [1, 3, 0], [0, 0, 1]]
MIOU = (4 / 5 + 3 / 4 + 1) / 3


@pytest.mark.parametrize("workers", [0, 3])
def test_matrix_and_scores_by_hand(predictor, data, workers):
    told: list[tuple[int, int]] = []
    result = evaluate(predictor, data, workers=workers, progress=lambda done, total: told.append((done, total)))
    assert result.matrix.tolist() == MATRIX
    assert result.matrix.dtype == torch.int64
    assert result.scores.miou == pytest.approx(MIOU)
    assert result.scores.pixel_accuracy == pytest.approx(8 / 9)
    assert [name for name, _ in result.images] == ["a", "b", "c"]
    assert [miou for _, miou in result.images][:2] == pytest.approx([(1 / 2 + 2 / 3 + 1) / 3, 1])
    assert math.isnan(result.images[2][1])
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert predictor.network.sizes == [(2, 3), (4, 1), (2, 2)]  # each image at its own size


def test_labels_are_compared_at_their_own_resolution(predictor, tmp_path):
    """One labelled pixel of many counts as one pixel, whatever the size the network saw."""
    label = np.full((30, 50), 255)
    label[29, 49] = 2
    prediction = np.zeros((30, 50), dtype=int)
    prediction[20:, 40:] = 2
    put(tmp_path, "a", prediction, label)
    put(tmp_path, "b", np.zeros((1, 1), dtype=int), np.zeros((1, 1)))
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    result = evaluate(predictor, tmp_path, scales=(0.5,))
    assert predictor.network.sizes == [(15, 25), (1, 1)]
    assert result.matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_results_are_written(predictor, data, tmp_path):
    history = [{"kind": "train", "step": step, "loss": 1 / step, "learning_rate": 0.1} for step in (1, 2, 3)]
    evaluate(predictor, data, flip=True, out=tmp_path / "out", history=history)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "report.html"]
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["split"] == "val"
    assert content["images"] == 3
    assert content["scales"] == [1.0]
    assert content["flip"] is True
    assert content["confusion_matrix"] == MATRIX
    assert content["miou"] == pytest.approx(MIOU)
    assert content["per_image_miou"] == {"a": pytest.approx(13 / 18), "b": 1.0, "c": None}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in ("Segmentation of the val images", "also mirrored", "own backbone", "red", "Training loss"):
        assert text in page


def test_every_measure_is_written_and_can_be_left_out(predictor, data, tmp_path):
    result = evaluate(predictor, data, out=tmp_path / "all", replicates=50)
    content = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert content["intervals"]["miou"] == [result.intervals.miou.low, result.intervals.miou.high]
    assert content["intervals"]["replicates"] == 50
    assert content["boundary"]["classes"]["red"]["boundary_iou"] == pytest.approx(4 / 5)  # all pixels are rim here
    assert content["boundary"]["mean_interior_iou"] is None
    # the logits are 10 and 0 twice: the confidence is the same everywhere, and 8 of 9 pixels are right
    sure = math.exp(10) / (math.exp(10) + 2)
    assert content["calibration"]["ece"] == pytest.approx(sure - 8 / 9, abs=1e-6)
    assert content["calibration"]["risk_at_coverage"]["0.5"] == pytest.approx(1 / 9)
    assert (content["mode"], content["average"]) == ("whole", "probabilities")
    evaluate(
        predictor,
        data,
        mode="slide",
        window=(2, 2),
        boundary=False,
        calibration=False,
        replicates=0,
        out=tmp_path / "few",
    )
    content = json.loads((tmp_path / "few" / "metrics.json").read_text())
    assert not {"intervals", "boundary", "calibration"} & set(content)
    assert (content["mode"], content["window"], content["confusion_matrix"]) == ("slide", [2, 2], MATRIX)


def test_a_module_of_the_users_own_is_reported_on(data, tmp_path):
    class Mine(torch.nn.Module):
        def forward(self, images):
            return images

    evaluate(Predictor(Mine(), INFO, "cpu"), data, out=tmp_path / "out", gallery=False, replicates=0)
    assert "Mine" in (tmp_path / "out" / "report.html").read_text()


def test_the_counts_of_each_image_read_back(predictor, data, tmp_path):
    result = evaluate(predictor, data, out=tmp_path)
    record = read_record(tmp_path)
    assert (record.names, record.classes, record.split) == (("a", "b", "c"), CLASSES.names, "val")
    np.testing.assert_array_equal(record.counts, result.counts)
    assert record.counts.sum(axis=0).tolist() == [[4, 3, 1], [4, 4, 1], [5, 3, 1]]
    assert record.counts[2].sum() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "has no counts of each image"),
        ('{"per_image_counts": {}, "classes": {"a": 1}}', "damaged"),
        ('{"per_image_counts": {"a": 1}, "classes": {"a": 1}, "split": "val"}', "damaged"),
        ('{"per_image_counts": {"a": {"classes": [7], "correct": [1], "labelled": [1], "predicted": [1]}}, '
         '"classes": {"a": 1}, "split": "val"}', "damaged"),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)


def test_categories_are_measured_where_the_classes_have_them(predictor, data, tmp_path):
    (data / "classes.json").write_text(json.dumps({**CLASSES.to_dict(), "categories": ["warm", "cold", "cold"]}))
    evaluate(predictor, data, out=tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["categories"]["iou"] == {"warm": pytest.approx(4 / 5), "cold": pytest.approx(4 / 5)}
    assert "Categories" in (tmp_path / "report.html").read_text()


def test_the_image_of_a_confusion_is_the_one_with_most_of_it(predictor, tmp_path):
    for name, wrong in (("a", 1), ("b", 3), ("c", 2)):
        prediction = np.zeros((1, 10), dtype=int)
        prediction[0, :wrong] = 2
        put(tmp_path / "data", name, prediction, np.zeros((1, 10)))
    (tmp_path / "data" / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    result = evaluate(predictor, tmp_path / "data", out=tmp_path)
    assert result.confused_in.tolist() == [[0, -1, 1], [-1, -1, -1], [-1, -1, -1]]
    page = (tmp_path / "report.html").read_text()
    assert "red called blue</strong><span>b</span>" in page


def test_nothing_labelled_is_no_number_and_valid_json(predictor, tmp_path):
    put(tmp_path / "data", "c", np.zeros((2, 2), dtype=int), np.full((2, 2), 255))
    (tmp_path / "data" / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    result = evaluate(predictor, tmp_path / "data", out=tmp_path / "out")
    assert math.isnan(result.scores.miou)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert content["miou"] is None


def test_scales_and_flip_reach_the_network_and_default_to_the_models(data):
    mirrored = Predictor(Remembering(), replace(INFO, seeing=Seeing(scales=(1.0, 2.0), flip=True)), "cpu")
    evaluate(mirrored, data)
    assert mirrored.network.sizes[:4] == [(2, 3), (2, 3), (4, 6), (4, 6)]
    mirrored.network.sizes.clear()
    evaluate(mirrored, data, scales=(3.0,), flip=False)
    assert mirrored.network.sizes == [(6, 9), (12, 3), (6, 6)]
    assert mirrored.info.seeing.scales == (1.0, 2.0)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)])
def test_scales_that_make_no_sense_are_refused(predictor, data, scales):
    with pytest.raises(ConfigError, match="scales must be numbers above 0"):
        evaluate(predictor, data, scales=scales)


def test_other_classes_are_refused(predictor, data):
    (data / "classes.json").write_text(json.dumps({"classes": ["red", "blue", "green"]}))
    order = r"the model's classes are red, green, blue; the data's are red, blue, green: .*, in their order"
    with pytest.raises(DataError, match=order):
        evaluate(predictor, data)
    (data / "classes.json").write_text(json.dumps({"classes": ["red", "green", *map(str, range(200))]}))
    with pytest.raises(
        DataError, match=r"; the model alone has blue; the data alone has 0, 1, .* and \d+ others?: "
    ) as error:
        evaluate(predictor, data)
    assert len(str(error.value)) < 400


def test_an_unknown_split_is_refused(predictor, data):
    with pytest.raises(DataError, match="no split 'test' with masks here; there is val"):
        evaluate(predictor, data, "test")


def test_folders_may_be_named_in_words(predictor, data, tmp_path):
    (data / "classes.json").rename(data / "masks" / "classes.json")
    named = {"images": str(data / "images"), "masks": str(data / "masks")}
    assert evaluate(predictor, **named, out=str(tmp_path / "results")).matrix.tolist() == MATRIX
    assert (tmp_path / "results" / "metrics.json").is_file()


def test_another_split_is_measured(predictor, data):
    put(data, "z", np.array([[2, 2]]), np.array([[2, 0]]), split="test")
    result = evaluate(predictor, data, "test")
    assert result.matrix.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_a_broken_image_is_named(predictor, data):
    (data / "images" / "val" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val/b\.png"):
        evaluate(predictor, data)


def test_image_miou_by_hand():
    matrix = torch.tensor([[2, 1, 1], [0, 0, 0], [0, 0, 3]])
    assert image_miou(matrix) == pytest.approx((2 / 4 + 3 / 4) / 2)  # class 1 has no label here
    assert math.isnan(image_miou(torch.zeros(3, 3, dtype=torch.int64)))


def test_the_sum_of_parts_is_the_whole(predictor, data):
    dataset = open_dataset(data)
    pairs = dataset.splits["val"]
    parts = [measure(predictor, pairs[start::2], dataset, 0) for start in (0, 1)]
    assert all(isinstance(part, Evaluation) for part in parts)
    assert (parts[0].matrix + parts[1].matrix).tolist() == MATRIX
    assert measure(predictor, (), dataset, 0).matrix.sum() == 0


def test_no_image_or_mask_is_kept(predictor, data):
    """While image n is judged, those before n - 1 are gone: memory does not grow with the number of images."""
    dataset = open_dataset(data)
    many = DataSet(dataset.classes, {"val": dataset.splits["val"] * 8})
    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    original = predictor.class_map

    def watched(image):
        prediction = original(image)
        seen.extend((weakref.ref(image), weakref.ref(prediction)))
        alive.append(sum(reference() is not None for reference in seen))
        return prediction

    predictor.class_map = watched
    measure(predictor, many.splits["val"], many, workers=2)
    assert len(alive) == 24
    assert max(alive) <= 4


def test_memory_does_not_grow_with_the_number_of_images(predictor, tmp_path, no_shape_checks):
    """Images and masks are arrays of NumPy when they are read, which tracemalloc counts; one pair has 66 kB."""
    labels = np.random.default_rng(0).integers(0, 3, (128, 128))
    put(tmp_path, "a", labels, labels)
    pair = Pair("a", tmp_path / "images/val/a.png", tmp_path / "masks/val/a.png")

    def peak(count: int) -> int:
        pairs = tuple(replace(pair, name=str(number)) for number in range(count))
        tracemalloc.start()
        evaluate(predictor, DataSet(CLASSES, {"val": pairs}), boundary=False, replicates=0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # what is loaded with the first
    assert peak(60) - peak(25) < 600_000  # of 2,300,000


def test_agrees_with_counting_all_at_once(predictor, tmp_path):
    rng = np.random.default_rng(0)
    predictions, labels = [], []
    for number in range(6):
        size = tuple(rng.integers(1, 20, 2))
        predictions.append(rng.integers(0, 3, size))
        labels.append(rng.choice([0, 1, 2, 255], size))
        put(tmp_path, f"{number}", predictions[-1], labels[-1])
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    flat = [torch.from_numpy(np.concatenate([mask.ravel() for mask in masks])) for masks in (predictions, labels)]
    assert torch.equal(evaluate(predictor, tmp_path).matrix, confusion_matrix(*flat, 3))


def test_json_without_nan_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"miou": math.nan})
    assert list(tmp_path.iterdir()) == []
