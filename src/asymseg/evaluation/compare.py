"""Is B better than A? Both on the same images, and the difference on sets of images drawn again and again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from asymseg.data.dataset import DataSet
from asymseg.data.loader import read_pair
from asymseg.errors import DataError
from asymseg.evaluation.bootstrap import (
    LEVEL,
    REPLICATES,
    SEED,
    Interval,
    interval,
    need_sensible,
    resampled,
    scores_of,
)
from asymseg.evaluation.comparison import Comparison
from asymseg.evaluation.comparison_page import Difference, write_comparison
from asymseg.evaluation.evaluate import open_split
from asymseg.evaluation.measure import Evaluation, measure
from asymseg.evaluation.metrics import mean_known, ratio
from asymseg.evaluation.pictures import pictures_of_both
from asymseg.evaluation.records import METRICS, Record, read_record
from asymseg.prediction.device import Device
from asymseg.prediction.loading import load
from asymseg.prediction.onnx.on_torch import on_torch
from asymseg.prediction.onnx.runtime import OnnxPredictor
from asymseg.prediction.overlay import as_picture
from asymseg.prediction.predict import Predictor

Side = str | Path | Predictor

GALLERY = 5
"""Images shown where B gains most, and where it loses most."""

_SHOWN = 3


def compare(
    a: Side,
    b: Side,
    data: str | Path | DataSet | None = None,
    split: str = "val",
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = SEED,
    out: str | Path | None = None,
    gallery: bool = True,
    device: Device = "auto",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Whether B is better than A on a split of a data set: see `compare_records`.

    Args:
        a: A predictor, what `load` takes, or the folder of an evaluation, which is then not repeated.
        b: Likewise.
        data: A data set or its folder; not needed for two evaluations.
        split: Which part: train, val or test; for two evaluations it is theirs.
        images: Folder of images, in place of `data`.
        masks: Folder of masks for `images`.
        level: Of the intervals.
        replicates: Sets of images that are drawn.
        seed: Of the draws.
        out: Folder for `compare.json` and the page `compare.html`.
        gallery: Whether the page shows the images that differ most; that needs two models, not their evaluations.
        device: Where the networks run, if they are to be loaded.
        workers: Threads that decode images ahead.
        progress: Called with (images done, images in all), for one model after the other.

    Raises:
        DataError: Data or evaluations that cannot be used, or that do not belong together.
        CheckpointError: A model that cannot be loaded.
        ConfigError: A level or a number of replicates that makes no sense.
    """
    need_sensible(replicates, level)
    sides = [_open(side, device) for side in (a, b)]
    dataset: DataSet | None = None
    records = []
    for side in sides:
        if isinstance(side, Predictor):
            dataset, pairs = open_split(side.info, data, split, images, masks)
            measured = measure(side, pairs, dataset, workers, progress)
            records.append(as_record(measured, dataset.classes.names, split))
        else:
            records.append(side)
    result = compare_records(records[0], records[1], level, replicates, seed)
    if out is not None:
        write_comparison(Path(out), result, _shown(result, sides, dataset) if gallery else ([], []))
    return result


def _open(side: Side, device: Device) -> Predictor | Record:
    if isinstance(side, Predictor | OnnxPredictor):
        return on_torch(side)
    return read_record(Path(side)) if is_evaluation(side) else on_torch(load(side, device))


def _shown(
    result: Comparison, sides: Sequence[Predictor | Record], dataset: DataSet | None
) -> tuple[list[Difference], list[Difference]]:
    """The images where B gains most and where it loses most, predicted once more by both."""
    a, b = sides
    if dataset is None or not isinstance(a, Predictor) or not isinstance(b, Predictor):
        return [], []
    pairs = {pair.name: pair for pair in dataset.splits[result.split]}

    def difference(name: str, miou_a: float, miou_b: float) -> Difference:
        image, truth = read_pair(pairs[name], dataset.classes, len(a.info.mean))
        mask_a, mask_b = (side.class_map(image).cpu().numpy() for side in (a, b))
        pictures = pictures_of_both(as_picture(image.numpy()), truth.numpy(), mask_a, mask_b, dataset.classes)
        return Difference(name, miou_a, miou_b, pictures)

    gains, losses = result.most_different(GALLERY)
    return [difference(*entry) for entry in gains], [difference(*entry) for entry in losses]


def is_evaluation(source: str | Path) -> bool:
    """Whether a folder holds the results of an evaluation and no model: a run's folder stands for its best model."""
    folder = Path(source)
    return (folder / METRICS).is_file() and not (folder / "config.json").exists() and not (folder / "best").exists()


def as_record(result: Evaluation, classes: Sequence[str], split: str) -> Record:
    """What `metrics.json` would say of each image."""
    assert result.counts is not None
    return Record(tuple(name for name, _ in result.images), tuple(classes), split, result.counts)


def compare_records(
    a: Record, b: Record, level: float = LEVEL, replicates: int = REPLICATES, seed: int = SEED
) -> Comparison:
    """The difference of two models, with the interval that the choice of images gives it.

    A paired bootstrap: each replicate draws as many images as there are, with replacement, and measures both models on
    the same draw, so that what makes an image hard for both drops out of the difference. Raises DataError where images,
    labels or classes are not the same.
    """
    a, b = _in_order(a), _in_order(b)
    _need_same(a, b)
    totals = scores_of(np.stack([a.counts.sum(axis=0), b.counts.sum(axis=0)]))
    drawn_a, drawn_b = resampled(a.counts, replicates, seed), resampled(b.counts, replicates, seed)

    def span(measured: np.ndarray, one: np.ndarray, other: np.ndarray) -> Interval:
        return interval(float(measured[1] - measured[0]), other - one, level)

    above = np.sign(drawn_b.miou - drawn_a.miou)
    per_image = [_image_mious(record.counts) for record in (a, b)]
    return Comparison(
        classes=a.classes,
        split=a.split,
        miou=_two(totals.miou),
        difference=span(totals.miou, drawn_a.miou, drawn_b.miou),
        probability=mean_known((1 + above) / 2),
        pixel_accuracy=_two(totals.pixel_accuracy),
        accuracy_difference=span(totals.pixel_accuracy, drawn_a.pixel_accuracy, drawn_b.pixel_accuracy),
        iou=tuple(_two(totals.iou[:, number]) for number in range(len(a.classes))),
        iou_differences=tuple(
            span(totals.iou[:, number], drawn_a.iou[:, number], drawn_b.iou[:, number])
            for number in range(len(a.classes))
        ),
        images=tuple(zip(a.names, *(mious.tolist() for mious in per_image), strict=True)),
        level=level,
        replicates=replicates,
        seed=seed,
    )


def _in_order(record: Record) -> Record:
    order = sorted(range(len(record.names)), key=lambda number: record.names[number])
    names = tuple(record.names[number] for number in order)
    return Record(names, record.classes, record.split, record.counts[order])


def _need_same(a: Record, b: Record) -> None:
    """The same classes, images and labels on both sides, or DataError."""
    if a.classes != b.classes:
        raise DataError(
            f"A's classes are {', '.join(a.classes)}; B's are {', '.join(b.classes)}: only models of the same classes "
            "can be compared"
        )
    for one, other, name in ((a, b, "A"), (b, a, "B")):
        lonely = sorted(set(one.names) - set(other.names))
        if lonely:
            shown = ", ".join(lonely[:_SHOWN]) + (f" and {len(lonely) - _SHOWN} others" if len(lonely) > _SHOWN else "")
            raise DataError(f"only {name} was measured on {shown}; measure both on the same images")
    differing = np.flatnonzero((a.counts[:, 1] != b.counts[:, 1]).any(axis=1))
    if len(differing):
        raise DataError(
            f"A and B were measured against different labels: {a.names[differing[0]]} has other pixels of a class; "
            "measure both on the same masks"
        )


def _two(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _image_mious(counts: np.ndarray) -> np.ndarray:
    """mIoU of each image over the classes that its label has; nan where nothing is labelled."""
    correct, labelled, predicted = (counts[:, number].astype(np.float64) for number in range(3))
    present = labelled > 0
    iou = np.where(present, ratio(correct, labelled + predicted - correct, 0.0), 0.0)
    return ratio(iou.sum(axis=1), present.sum(axis=1), np.nan)
