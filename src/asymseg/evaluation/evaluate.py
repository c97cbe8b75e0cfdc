"""Measure a model: every labelled image at its own size, one confusion matrix over all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asymseg.data.dataset import DataSet, Pair, open_dataset
from asymseg.data.pairing import listed
from asymseg.errors import DataError
from asymseg.evaluation.bootstrap import REPLICATES, bootstrap, need_sensible
from asymseg.evaluation.measure import Evaluation as Evaluation
from asymseg.evaluation.measure import image_miou as image_miou
from asymseg.evaluation.measure import measure as measure
from asymseg.evaluation.records import write_json as write_json
from asymseg.evaluation.results import write_results
from asymseg.evaluation.submission import submission_writer
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Average, Mode, Weighting
from asymseg.prediction.device import Device, Precision
from asymseg.prediction.loading import load
from asymseg.prediction.onnx.on_torch import on_torch
from asymseg.prediction.onnx.runtime import OnnxPredictor
from asymseg.prediction.predict import Predictor

_SHOWN = 12


def evaluate(
    model: str | Path | Predictor | OnnxPredictor,
    data: str | Path | DataSet | None = None,
    split: str = "val",
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    mode: Mode | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    weighting: Weighting | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    average: Average | None = None,
    boundary: bool = True,
    calibration: bool = True,
    replicates: int = REPLICATES,
    out: str | Path | None = None,
    submission: str | Path | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    gallery: bool = True,
    device: Device = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    fold: bool = True,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model on a split of a data set; with `out`, also write `metrics.json` and `report.html` there.

    Args:
        model: A predictor, or what `load` takes.
        data: A data set or its folder. Its class names must be the model's, in the same order; a folder without
            classes.json is read with the model's classes.
        split: Which part: train, val or test.
        images: Folder of images, in place of `data`.
        masks: Folder of masks for `images`.
        mode: Whether the network sees an image whole or by windows; this and the six below are those of
            `asymseg.model.seeing.Seeing`, and by default the model's own.
        window: Height and width of the windows.
        stride: From one window to the next.
        weighting: Whether windows count alike or less towards their border.
        scales: Sizes at which the network sees an image.
        flip: Whether it also sees them mirrored.
        average: What is averaged over windows, scales and flips.
        boundary: Whether boundary IoU is measured.
        calibration: Whether the confidences are measured as well: calibration error, risk against coverage.
        replicates: Sets of images that are drawn for the intervals; 0 for none.
        out: Folder for the results.
        submission: Folder for the predictions as the data set's server takes them; see `submission`.
        history: Lines of the training log, whose curves the report shows.
        gallery: Whether the report shows images; without, it can be passed on where the data may not.
        device: Where the network runs, if `model` is a folder.
        precision: In what arithmetic, likewise.
        compile: Whether it is compiled, likewise.
        fold: Whether its evaluation form is used, likewise.
        workers: Threads that decode images ahead.
        progress: Called with (images done, images in all).

    Raises:
        DataError: Data that cannot be used, or of other classes than the model's.
        CheckpointError: A model that cannot be loaded.
        ConfigError: Settings of the views or the intervals that make no sense.
    """
    if replicates:
        need_sensible(replicates)
    if isinstance(model, str | Path):
        model = load(model, device, precision=precision, compile=compile, fold=fold)
    predictor = on_torch(model)
    dataset, pairs = open_split(predictor.info, data, split, images, masks)
    predictor = predictor.seeing(
        mode=mode,
        window=window,
        stride=stride,
        weighting=weighting,
        scales=None if scales is None else tuple(scales),
        flip=flip,
        average=average,
    )
    write = None if submission is None else submission_writer(dataset, split, Path(submission))
    result = measure(
        predictor, pairs, dataset, workers, progress, boundary=boundary, calibration=calibration, write=write
    )
    if replicates and result.counts is not None:
        result = replace(result, intervals=bootstrap(result.counts, replicates))
    if out is not None:
        write_results(Path(out), result, predictor, dataset, split, history, gallery)
    return result


def open_split(
    info: ModelInfo,
    data: str | Path | DataSet | None,
    split: str,
    images: str | Path | None = None,
    masks: str | Path | None = None,
) -> tuple[DataSet, tuple[Pair, ...]]:
    """The data and those of its pairs that a model is to be measured on. Raises DataError where they do not fit it."""
    if isinstance(data, DataSet):
        dataset = data
    else:
        root = None if data is None else Path(data)
        dataset = open_dataset(root, images=images, masks=masks, holdout=info.holdout, classes=info.classes)
    pairs = dataset.splits.get(split)
    if not pairs:
        cure = "; write its predictions by --submission" if split in dataset.unlabelled else ""
        raise DataError(f"no split {split!r} with masks here; there is {', '.join(dataset.splits)}{cure}")
    if not dataset.classes.same_names(info.classes):
        ours, theirs = list(info.classes.names), list(dataset.classes.names)
        raise DataError(
            f"the model's classes are {listed(ours, _SHOWN)}; the data's are {listed(theirs, _SHOWN)}"
            f"{_only('the model', ours, theirs)}{_only('the data', theirs, ours)}: measure a model on the "
            "classes it was trained for, in their order"
        )
    return dataset, pairs


def _only(who: str, names: list[str], others: list[str]) -> str:
    surplus = [name for name in names if name not in others]
    return f"; {who} alone has {listed(surplus, _SHOWN)}" if surplus else ""
