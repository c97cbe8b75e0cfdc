"""Our numbers against those of the packages that papers are judged by, on data of Cityscapes' layout made up here."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from asymseg.classes import IGNORE, Classes
from asymseg.evaluation.evaluate import Evaluation, evaluate
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor

TOLERANCE = 1e-9

# Of Cityscapes' labels: raw id, name, category, in the order of the train ids.
LABELS = (
    (7, "road", "flat"),
    (8, "sidewalk", "flat"),
    (11, "building", "construction"),
    (12, "wall", "construction"),
    (13, "fence", "construction"),
    (17, "pole", "object"),
    (19, "traffic light", "object"),
    (20, "traffic sign", "object"),
    (21, "vegetation", "nature"),
    (22, "terrain", "nature"),
    (23, "sky", "sky"),
    (24, "person", "human"),
    (25, "rider", "human"),
    (26, "car", "vehicle"),
    (27, "truck", "vehicle"),
    (28, "bus", "vehicle"),
    (31, "train", "vehicle"),
    (32, "motorcycle", "vehicle"),
    (33, "bicycle", "vehicle"),
)
RAW = np.array([raw for raw, _, _ in LABELS])
VOID = (0, 1, 3, 4, 5, 9, 10, 14, 29, 30)
ABSENT = 16
"""The class train: in no label and never predicted."""

CLASSES = Classes(
    tuple(name for _, name, _ in LABELS),
    ignore=0,
    values={**dict.fromkeys(VOID, IGNORE), **{raw: number for number, (raw, _, _) in enumerate(LABELS)}},
    categories=tuple(category for _, _, category in LABELS),
)


class Bytes(nn.Module):
    channels = (3, 3)

    def forward(self, images):
        return images, images


class Reading(ANNNet):
    """Says the class that the red byte of a pixel names, more or less surely as the green one says."""

    def __init__(self) -> None:
        super().__init__(19, Bytes(), fusion="none", context="none", context_channels=4, aux_channels=0)

    def head(self, low, high):
        named = (255 * high[:, :1]).round() == torch.arange(19)[:, None, None]
        return named * (2 + 8 * high[:, 1:2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, masks of raw ids, and predictions of raw ids as they are handed in, of different sizes."""
    root = tmp_path_factory.mktemp("city")
    rng = np.random.default_rng(0)
    present = np.array([number for number in range(19) if number != ABSENT])
    for number in range(4):
        size = tuple(rng.integers(20, 50, 2))
        truth = rng.choice(present, size)
        guess = np.where(rng.random(size) < 0.6, truth, rng.choice(present, size))
        raw = np.where(rng.random(size) < 0.2, rng.choice(VOID, size), RAW[truth])
        image = np.stack([guess, rng.integers(0, 256, size), np.zeros(size)], axis=2)
        name = f"town_{number:06}_000019"
        for path, pixels in (
            (root / "images" / "val" / f"{name}.png", image),
            (root / "masks" / "val" / f"{name}.png", raw),
            (root / "handed_in" / f"{name}.png", RAW[guess]),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    return root


@pytest.fixture(scope="module")
def ours(folder: Path) -> Evaluation:
    predictor = Predictor(Reading(), ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3), "cpu")
    return evaluate(predictor, folder, out=folder / "out")


@pytest.fixture
def judge() -> Iterator[ModuleType]:
    """The evaluation of cityscapesscripts, told to be quiet and to leave instances out."""
    module = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    before = vars(module.args).copy()
    module.args.evalInstLevelScore, module.args.JSONOutput, module.args.quiet = False, False, True
    yield module
    vars(module.args).update(before)


def test_equal_to_cityscapesscripts(folder: Path, ours: Evaluation, judge: ModuleType) -> None:
    names = sorted(path.name for path in (folder / "masks" / "val").iterdir())
    predictions, labels = ([str(folder / place / name) for name in names] for place in ("handed_in", "masks/val"))
    theirs = judge.evaluateImgLists(predictions, labels, judge.args)
    matrix = np.array(theirs["confMatrix"], dtype=np.int64)
    assert ours.matrix.tolist() == matrix[np.ix_(RAW, RAW)].tolist()
    for number, name in enumerate(CLASSES.names):
        assert ours.scores.iou[number] == pytest.approx(theirs["classScores"][name], abs=TOLERANCE, nan_ok=True)
    assert np.isnan(ours.scores.iou[ABSENT])
    assert ours.scores.miou == pytest.approx(theirs["averageScoreClasses"], abs=TOLERANCE)
    categories = json.loads((folder / "out" / "metrics.json").read_text())["categories"]
    assert categories["miou"] == pytest.approx(theirs["averageScoreCategories"], abs=TOLERANCE)
    assert len(categories["iou"]) == 7
    for name, iou in categories["iou"].items():
        assert iou == pytest.approx(theirs["categoryScores"][name], abs=TOLERANCE)


def pixels(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, prediction and confidence of every pixel that counts, read by other means than ours."""
    table = np.full(256, IGNORE)
    table[RAW] = np.arange(19)
    found = []
    for path in sorted((folder / "masks" / "val").iterdir()):
        image = np.asarray(Image.open(folder / "images" / "val" / path.name))
        logit = np.exp(2 + 8 * (image[..., 1] / 255))
        found.append((table[np.asarray(Image.open(path))], image[..., 0], logit / (logit + 18)))
    label, guess, sure = (np.concatenate([entry[part].ravel() for entry in found]) for part in range(3))
    counted = label != IGNORE
    return label[counted], guess[counted].astype(np.int64), sure[counted]


def test_equal_to_scikit_learn(folder: Path, ours: Evaluation) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    label, guess, _ = pixels(folder)
    present = [number for number in range(19) if number != ABSENT]
    assert ours.matrix.tolist() == sklearn.confusion_matrix(label, guess, labels=range(19)).tolist()

    def known(values: tuple[float, ...]) -> list[float]:
        return [values[number] for number in present]

    exactly = {"abs": TOLERANCE}
    assert known(ours.scores.iou) == pytest.approx(
        sklearn.jaccard_score(label, guess, labels=present, average=None).tolist(), **exactly
    )
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(label, guess, labels=present)
    assert known(ours.scores.precision) == pytest.approx(precision.tolist(), **exactly)
    assert known(ours.scores.accuracy) == pytest.approx(recall.tolist(), **exactly)
    assert known(ours.scores.f1) == pytest.approx(f1.tolist(), **exactly)
    assert known(ours.scores.support) == support.tolist()
    assert ours.scores.miou == pytest.approx(sklearn.jaccard_score(label, guess, average="macro"), **exactly)
    assert ours.scores.micro_iou == pytest.approx(sklearn.jaccard_score(label, guess, average="micro"), **exactly)
    assert ours.scores.fwiou == pytest.approx(sklearn.jaccard_score(label, guess, average="weighted"), **exactly)
    assert ours.scores.pixel_accuracy == pytest.approx(sklearn.accuracy_score(label, guess), **exactly)
    assert ours.scores.mean_accuracy == pytest.approx(sklearn.balanced_accuracy_score(label, guess), **exactly)
    assert ours.scores.mean_f1 == pytest.approx(sklearn.f1_score(label, guess, average="macro"), **exactly)


def test_equal_to_torchmetrics(folder: Path, ours: Evaluation) -> None:
    """Its ratios are float32, and so agree to that alone; they are taken here from its own counts, in float64."""
    classification = pytest.importorskip("torchmetrics.functional.classification")
    label, guess, sure = (torch.from_numpy(values) for values in pixels(folder))
    matrix = classification.multiclass_confusion_matrix(guess, label, 19)
    assert torch.equal(ours.matrix, matrix)
    right, wrong, _, missed, support = classification.multiclass_stat_scores(guess, label, 19, average=None).T.double()
    iou = right / (right + wrong + missed)
    assert ours.scores.iou == pytest.approx(iou.tolist(), abs=TOLERANCE, nan_ok=True)
    assert ours.scores.miou == pytest.approx(iou.nanmean().item(), abs=TOLERANCE)
    assert ours.scores.f1 == pytest.approx(
        (2 * right / (2 * right + wrong + missed)).tolist(), abs=TOLERANCE, nan_ok=True
    )
    assert ours.scores.accuracy == pytest.approx((right / support).tolist(), abs=TOLERANCE, nan_ok=True)
    macro = classification.multiclass_jaccard_index(guess, label, 19, average="macro")
    assert ours.scores.miou == pytest.approx(macro.item(), abs=1e-6)
    content = json.loads((folder / "out" / "metrics.json").read_text())
    shares = torch.full((len(label), 19), 0.0, dtype=torch.float64)
    shares += ((1 - sure) / 18)[:, None]
    shares[torch.arange(len(label)), guess] = sure
    theirs = classification.multiclass_calibration_error(shares, label, 19, 15)
    assert content["calibration"]["ece"] == pytest.approx(theirs.item(), abs=1e-5)
