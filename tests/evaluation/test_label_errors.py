"""Label errors: a model whose certainty is known pixel by pixel, and labels in which errors were planted."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_networks import Reading
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.errors import DataError
from asymseg.evaluation.label_errors import Suspect, find_label_errors
from asymseg.evaluation.suspects import OUTLINE, write_suspects
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor

CLASSES = Classes(("ground", "car <1>", "tree"), ((90, 90, 90), (0, 0, 142), (0, 128, 0)))
SHAPE = (60, 80)
SURE, UNSURE = 255, 30


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Reading(), ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3), "cpu")


def share(brightness: int) -> float:
    """The probability that the model gives a class of this brightness, the other two being black."""
    return math.exp(10 * brightness / 255) / (math.exp(10 * brightness / 255) + 2)


def scene() -> np.ndarray:
    """A car and two trees on the ground."""
    classes = np.zeros(SHAPE, dtype=np.uint8)
    classes[10:30, 10:30] = 1
    classes[10:40, 50:70] = 2
    classes[44:56, 20:32] = 2
    return classes


def put(data: Path, name: str, seen: np.ndarray, label: np.ndarray, sure: np.ndarray | int = SURE) -> None:
    """An image in which the model sees the classes `seen`, with the mask `label`."""
    pixels = np.eye(3)[seen] * np.broadcast_to(sure, seen.shape)[..., None]
    for kind, picture in (("images", pixels.astype(np.uint8)), ("masks", label)):
        path = data / kind / "train" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    (data / "classes.json").write_text(json.dumps(CLASSES.to_dict()))


def opened(data: Path) -> DataSet:
    put(data, "clean", scene(), scene())
    dataset = open_dataset(data)
    return DataSet(dataset.classes, {"train": tuple(sorted(dataset.splits["train"] + dataset.splits["val"], key=str))})


def find(predictor: Predictor, data: Path, **settings: int) -> tuple[Suspect, ...]:
    return find_label_errors(predictor, opened(data), "train", **settings)


def test_what_a_suspect_says(predictor, tmp_path):
    label = scene()
    label[10:30, 10:30] = 2  # the car is called a tree
    label[12, 12] = IGNORE
    put(tmp_path, "wrong", scene(), label)
    [suspect] = find(predictor, tmp_path)
    assert (suspect.image, suspect.box, suspect.area) == ("wrong", (10, 10, 30, 30), 399)
    assert (suspect.labelled, suspect.predicted) == ("tree", "car <1>")
    assert suspect.confidence == pytest.approx(share(SURE))
    assert suspect.doubt == pytest.approx((1 - share(SURE)) / 2)
    assert suspect.region.shape == (20, 20)
    assert suspect.region.sum() == 399
    assert not suspect.region[2, 2]


def test_the_score_by_hand(predictor, tmp_path):
    """A square of 20 by 20, wrong throughout: 18 by 18 lie inside; and the same where the model is less sure."""
    sure = np.full(SHAPE, SURE)
    for name, brightness in (("sure", SURE), ("less", 150)):
        label = scene()
        label[10:30, 10:30] = 2
        sure[10:30, 10:30] = brightness
        put(tmp_path, name, scene(), label, sure)
    best, second = find(predictor, tmp_path)
    assert (best.image, second.image) == ("sure", "less")
    rest = (1 - share(SURE)) / 2
    trees = 600 + 144  # pixels in each of three images; the square of another two is labelled so
    doubts = 800 * rest + 3 * trees * share(SURE) + 400 * ((1 - share(150)) / 2 - rest)
    trust = math.sqrt(share(SURE) * doubts / (800 + 3 * trees))
    for suspect, brightness in ((best, SURE), (second, 150)):
        right, wrong = share(brightness), (1 - share(brightness)) / 2
        expected = 18 * math.log(max(wrong, 1e-4)) ** 2 * (right - wrong) * trust
        assert suspect.score == pytest.approx(expected, rel=1e-4)


class Lopsided(Reading):
    """Takes the left half of what it sees for the darker."""

    def head(self, low, high):
        half = high.shape[3] // 2
        return torch.cat([high[..., :half] * 4, high[..., half:] * 10], dim=3)


def test_an_image_is_seen_mirrored_too(tmp_path):
    label = scene()
    label[10:30, 10:30] = 2
    put(tmp_path, "wrong", scene(), label)
    lopsided = Predictor(Lopsided(), ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3), "cpu")
    [suspect] = find(lopsided, tmp_path)
    halves = [math.exp(much) / (math.exp(much) + 2) for much in (4, 10)]
    assert suspect.confidence == pytest.approx(sum(halves) / 2)


def test_a_wrong_region_is_one_suspect_whatever_its_parts_are_called(predictor, tmp_path):
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[10:30, 10:50] = 1
    seen = np.zeros(SHAPE, dtype=np.uint8)
    seen[10:30, 10:25] = 2
    put(tmp_path, "parts", seen, label)
    [suspect] = find(predictor, tmp_path)
    assert (suspect.box, suspect.area, suspect.predicted) == ((10, 10, 30, 50), 800, "ground")
    seen[10:30, 10:25] = 1  # three eighths are right: the rest is a suspect by itself
    put(tmp_path, "parts", seen, label)
    [suspect] = find(predictor, tmp_path)
    assert suspect.box == (10, 25, 30, 50)


def test_errors_of_each_kind_come_before_the_models_mistakes(predictor, tmp_path):
    swapped, erased, drawn, unsure, ragged = (scene() for _ in range(5))
    swapped[10:40, 50:70] = 1
    erased[10:30, 10:30] = 0
    drawn[42:54, 50:66] = 1
    put(tmp_path, "swapped", scene(), swapped)
    put(tmp_path, "erased", scene(), erased)
    put(tmp_path, "drawn", scene(), drawn)
    seen, sure = scene(), np.full(SHAPE, SURE)
    seen[10:30, 10:30], sure[10:30, 10:30] = 2, UNSURE
    put(tmp_path, "unsure", seen, unsure, sure)
    seen = scene()
    seen[10:24, 30:50] = 1  # the car's edge runs into the ground as far as the tree
    put(tmp_path, "ragged", seen, ragged)
    found = find(predictor, tmp_path)
    assert {suspect.image for suspect in found[:3]} == {"swapped", "erased", "drawn"}
    assert {suspect.image for suspect in found[3:]} == {"unsure", "ragged"}


def test_a_seam_is_no_error(predictor, tmp_path):
    seen = np.roll(scene(), 1, axis=1)
    put(tmp_path, "shifted", seen, scene())
    assert find(predictor, tmp_path) == ()
    label = scene()
    label[:, 40:43] = 1  # three pixels wide: with a depth of 1 its middle column is inside
    put(tmp_path, "line", scene(), label)
    assert [suspect.image for suspect in find(predictor, tmp_path)] == ["line"]
    assert find_label_errors(predictor, opened(tmp_path), "train", seam=0.02) == ()


def test_ignored_pixels_are_no_errors(predictor, tmp_path):
    label = scene()
    label[label != 0] = IGNORE
    put(tmp_path, "ignored", scene(), label)
    put(tmp_path, "all", scene(), np.full(SHAPE, IGNORE, dtype=np.uint8))
    assert find(predictor, tmp_path) == ()


def test_a_class_that_the_model_is_bad_at_counts_less(predictor, tmp_path):
    """The same error with a car and with a tree, where the model is sure of cars and knows few trees."""
    for name, value, rows, columns in (("car", 1, (10, 30), (10, 30)), ("tree", 2, (10, 30), (50, 70))):
        seen = np.zeros(SHAPE, dtype=np.uint8)
        label = seen.copy()
        seen[rows[0] : rows[1], columns[0] : columns[1]] = value
        put(tmp_path, name, seen, label)
    for number in range(3):
        put(tmp_path, f"poor {number}", np.where(scene() == 2, 0, scene()).astype(np.uint8), scene())
    scores = {suspect.image: suspect.score for suspect in find(predictor, tmp_path)}
    assert scores["car"] > 1.2 * scores["tree"]


@pytest.mark.parametrize("workers", [0, 3])
def test_the_best_are_kept_however_many_there_are(predictor, tmp_path, workers):
    for size in range(4, 20):
        label = scene()
        label[40 : 40 + size, 40 : 40 + size] = 1
        put(tmp_path, f"size {size:02}", scene(), label)
    told: list[tuple[int, int]] = []
    dataset = opened(tmp_path)
    everything = find_label_errors(predictor, dataset, "train")
    few = find_label_errors(
        predictor, dataset, "train", most=3, workers=workers, progress=lambda done, total: told.append((done, total))
    )
    assert [suspect.image for suspect in few] == ["size 19", "size 18", "size 17"]
    assert few == everything[:3]
    assert len(everything) == 16
    assert told == [(done, 17) for done in range(1, 18)]


def test_suspects_that_are_alike_in_all_but_their_place(predictor, tmp_path):
    """Two equal errors in one image have one score."""
    label = scene()
    label[45:53, 40:48] = label[45:53, 60:68] = 1
    put(tmp_path, "twins", scene(), label)
    one, other = find(predictor, tmp_path)
    assert one.score == other.score
    assert (one.box, other.box) == ((45, 40, 53, 48), (45, 60, 53, 68))
    assert find(predictor, tmp_path, most=1)[0].box == one.box


def test_classes_may_be_spelt_otherwise(predictor, tmp_path):
    label = scene()
    label[10:30, 10:30] = 2
    put(tmp_path, "wrong", scene(), label)
    dataset = opened(tmp_path)
    spelt = DataSet(Classes(("Ground", "CAR <1>", "tree"), CLASSES.palette), dataset.splits)
    [suspect] = find_label_errors(predictor, spelt, "train")
    assert suspect.predicted == "CAR <1>"


def test_faults_are_named(predictor, tmp_path):
    dataset = opened(tmp_path)
    with pytest.raises(DataError, match="no split 'test' with masks here; there is train"):
        find_label_errors(predictor, dataset, "test")
    other = DataSet(Classes(("a", "b", "c")), dataset.splits)
    with pytest.raises(DataError, match=r"the model's classes are ground, car <1>, tree; the data's are a, b, c"):
        find_label_errors(predictor, other, "train")


@pytest.fixture
def written(predictor, tmp_path) -> tuple[tuple[Suspect, ...], Predictor, DataSet, Path]:
    label = scene()
    label[10:30, 10:30] = 2
    label[42:54, 50:66] = 1
    label[:, :2] = IGNORE
    put(tmp_path / "data", "wrong & odd", scene(), label)
    dataset = opened(tmp_path / "data")
    return find_label_errors(predictor, dataset, "train"), predictor, dataset, tmp_path / "out"


def test_json_and_page(written):
    suspects, predictor, dataset, out = written
    page = write_suspects(out, suspects, predictor, dataset, "train")
    content = json.loads((out / "label_errors.json").read_text())
    assert content["split"] == "train"
    assert [entry["rank"] for entry in content["suspects"]] == [1, 2]
    first = content["suspects"][0]
    assert first["box"] == [10, 10, 30, 30]
    assert (first["image"], first["labelled"], first["predicted"]) == ("wrong & odd", "tree", "car <1>")
    text = page.read_text()
    assert "wrong &amp; odd" in text
    assert "car &lt;1&gt;" in text
    assert "car <1>" not in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(addresses) == 6
    assert all(address.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for address in addresses)
    assert not re.search(r"<script|<link|@import|https?://|url\(", text)
    assert write_suspects(out, suspects, predictor, dataset, "train").read_text() == text


def test_pictures_show_the_region_in_label_and_prediction(written):
    suspects, predictor, dataset, out = written
    text = write_suspects(out, suspects, predictor, dataset, "train", shown=1).read_text()
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
        for data in re.findall(r"base64,([^\"]*)", text)
    ]
    assert len(pictures) == 3
    # the crop reaches 24 pixels beyond the box on all sides where the image does: rows 0..53, columns 0..53, 5 times
    assert {picture.shape for picture in pictures} == {(270, 270, 3)}
    _, label, prediction = pictures
    np.testing.assert_array_equal(label[100, 100], CLASSES.palette[2])
    np.testing.assert_array_equal(prediction[100, 100], CLASSES.palette[1])
    for picture in pictures:
        assert np.abs(picture[49, 100] - OUTLINE).max() < 60  # JPEG
    np.testing.assert_array_equal(label[49, 100], OUTLINE)
    np.testing.assert_array_equal(label[50, 50], CLASSES.palette[2])  # the line lies outside
    assert label[20, 5].min() >= 150  # ignored


def test_page_without_pictures_and_without_suspects(written):
    suspects, predictor, dataset, out = written
    text = write_suspects(out, suspects, predictor, dataset, "train", pictures=False).read_text()
    assert "<img" not in text
    assert "wrong &amp; odd" in text
    text = write_suspects(out, (), predictor, dataset, "train").read_text()
    assert "Nothing to look at" in text
    assert json.loads((out / "label_errors.json").read_text())["suspects"] == []


def test_scores_are_plain_numbers(written):
    suspects, *_ = written
    assert all(type(suspect.score) is float and type(suspect.area) is int for suspect in suspects)
    assert not any(isinstance(part, torch.Tensor) for suspect in suspects for part in vars(suspect).values())
