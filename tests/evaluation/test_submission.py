"""Submissions: the benchmark's own scripts read them, and give the score that we give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from catalog_miniatures import ade20k, cityscapes
from PIL import Image
from torch import nn

from asymseg.cli import main
from asymseg.data.catalog import ade20k as ade20k_catalog
from asymseg.data.catalog import cityscapes as cityscapes_catalog
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.errors import DataError
from asymseg.evaluation.evaluate import evaluate
from asymseg.evaluation.metrics import category_scores
from asymseg.evaluation.submission import submission_writer, submit
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor


class Grey(nn.Module):
    channels = (3, 3)

    def forward(self, images):
        return images, images


class Reading(ANNNet):
    """Says that a pixel of grey k has the class k."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, Grey(), fusion="none", context="none", context_channels=4, aux_channels=0)

    def head(self, low, high):
        classes = torch.arange(self.settings["num_classes"]).view(1, -1, 1, 1)
        return -(255 * high[:, :1] - classes).square()


def predictor(dataset: DataSet) -> Predictor:
    info = ModelInfo(dataset.classes, (0.0,) * 3, (1.0,) * 3)
    return Predictor(Reading(len(dataset.classes)), info, "cpu", fold=False)


def draw(path: Path, classes: np.ndarray) -> None:
    """An image that is read as these classes."""
    Image.fromarray(np.repeat(classes.astype(np.uint8)[..., None], 3, axis=2)).save(path)


@pytest.fixture
def streets(tmp_path) -> DataSet:
    """Cityscapes with labels of all ids, and images that are read as classes that are often wrong."""
    dataset = open_dataset(f"cityscapes:{cityscapes(tmp_path / 'data', count=3)}")
    rng = np.random.default_rng(0)
    for pair in (*dataset.splits["val"], *dataset.unlabelled["test"]):
        shape = (40, 60)
        label = rng.integers(0, 34, shape).repeat(2, axis=1)
        right = np.maximum(cityscapes_catalog.CLASSES.lookup(34)[label] % 255, 0)
        wrong = rng.integers(0, 19, right.shape)
        draw(pair.image, np.where(rng.random(right.shape) < 0.7, right, wrong))
        if hasattr(pair, "mask"):
            Image.fromarray(label.astype(np.uint8)).save(pair.mask)
    return dataset


def test_cityscapes_own_evaluation_gives_the_same_score(streets, tmp_path, monkeypatch):
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official  # noqa: N813

    result = evaluate(predictor(streets), streets, "val", submission=tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 3

    args = official.args
    for name, value in (("evalInstLevelScore", False), ("JSONOutput", False), ("quiet", True), ("evalLabels", [])):
        monkeypatch.setattr(args, name, value)
    monkeypatch.setattr(args, "predictionPath", str(tmp_path / "out"))
    monkeypatch.setattr(args, "predictionWalk", None)
    truths = [str(pair.mask) for pair in streets.splits["val"]]
    predictions = [official.getPrediction(args, truth) for truth in truths]
    theirs = official.evaluateImgLists(predictions, truths, args)
    assert 0.3 < result.scores.miou < 0.9
    assert result.scores.miou == pytest.approx(theirs["averageScoreClasses"], rel=0, abs=1e-9)
    for name, iou in zip(streets.classes.names, result.scores.iou, strict=True):
        assert float(iou) == pytest.approx(theirs["classScores"][name], rel=0, abs=1e-9)
    for name, iou in category_scores(result.matrix, streets.classes.categories).items():
        assert iou == pytest.approx(theirs["categoryScores"][name], rel=0, abs=1e-9)


def test_files_of_cityscapes(streets, tmp_path):
    told: list[tuple[int, int]] = []
    count = submit(predictor(streets), streets, "test", tmp_path / "out", 0, lambda *now: told.append(now))
    assert count == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"berlin_{number:06d}_000019_leftImg8bit.png" for number in range(3)]
    for image, path in zip(streets.unlabelled["test"], files, strict=True):
        with Image.open(path) as written, Image.open(image.image) as drawn:
            assert written.mode == "L"
            assert (np.asarray(written) == np.array(cityscapes_catalog.IDS)[np.asarray(drawn)[..., 0]]).all()


def test_files_of_ade20k(tmp_path):
    """Class k is k + 1 there."""
    dataset = open_dataset(f"ade20k:{ade20k(tmp_path / 'data')}")
    write = submission_writer(dataset, "val", tmp_path / "out")
    write("ADE_val_00000001", torch.tensor([[0, 1, 149]], dtype=torch.uint8))
    with Image.open(tmp_path / "out" / "ADE_val_00000001.png") as written:
        assert (written.mode, np.asarray(written).tolist()) == ("L", [[1, 2, 150]])
    assert submit(predictor(dataset), dataset, "test", tmp_path / "test", 0) == 1
    assert [path.name for path in (tmp_path / "test").iterdir()] == ["ADE_test_00000001.png"]
    # Read as labels, a submission is what was predicted.
    table = ade20k_catalog.CLASSES.lookup(256)
    assert table[[1, 2, 150]].tolist() == [0, 1, 149]


def test_what_cannot_be_submitted(streets, tmp_path):
    plain = DataSet(streets.classes, streets.splits)
    with pytest.raises(DataError, match="no form of submission is known for this data"):
        evaluate(predictor(streets), plain, "val", submission=tmp_path / "out")
    with pytest.raises(DataError, match="no images without labels in the split 'val'"):
        submit(predictor(streets), streets, "val", tmp_path / "out")
    other = open_dataset(f"ade20k:{ade20k(tmp_path / 'ade')}")
    with pytest.raises(DataError, match="the model's classes are not those of the data set"):
        submit(predictor(other), streets, "test", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "berlin_000000_000019_old.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds other PNGs, such as berlin_000000_000019_old\.png"):
        submit(predictor(streets), streets, "test", tmp_path / "out")
    (tmp_path / "older" / "berlin").mkdir(parents=True)
    (tmp_path / "older" / "berlin" / "berlin_000000_000019_leftImg8bit.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds other PNGs, such as berlin/berlin_000000_000019_leftImg8bit\.png"):
        submit(predictor(streets), streets, "test", tmp_path / "older")


def test_from_the_command_line(streets, tmp_path, capsys):
    network = ANNNet(19, "resnet10t", pretrained=False, fusion="none", context="none", context_channels=4)
    save_model(tmp_path / "model", network, ModelInfo(streets.classes, (0.5,) * 3, (0.5,) * 3))
    data = f"cityscapes:{tmp_path / 'data'}"
    main(["evaluate", str(tmp_path / "model"), data, "--submission", str(tmp_path / "val"), "--no-gallery"])
    assert "val: mIoU" in capsys.readouterr().err
    assert len(list((tmp_path / "val").iterdir())) == 3
    main(["evaluate", str(tmp_path / "model"), data, "--split", "test", "--submission", str(tmp_path / "test")])
    assert "wrote 3 predictions" in capsys.readouterr().err
    assert len(list((tmp_path / "test").iterdir())) == 3
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "model"), data, "--split", "test"])
    message = capsys.readouterr().err
    assert "no split 'test' with masks here; there is train, val" in message
    assert "--submission" in message
