"""Measure a model: every labelled image at its own size, one confusion matrix over all of them."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from asymseg.atomic import atomic_file
from asymseg.data.dataset import DataSet, Pair, open_dataset
from asymseg.data.loader import prefetched, read_pair
from asymseg.errors import DataError
from asymseg.evaluation.metrics import Scores, confusion_matrix, scores
from asymseg.evaluation.report import Example, Report, write_report
from asymseg.model.seeing import Average, Mode, Weighting
from asymseg.prediction.execution import Device, Precision
from asymseg.prediction.overlay import as_picture
from asymseg.prediction.predict import Predictor, load

GALLERY = 6
"""Worst and best images shown in a report, each."""


@dataclass(frozen=True)
class Evaluation:
    """A measured model: the whole set's matrix and scores, and the mIoU of each image over the classes it has."""

    matrix: torch.Tensor
    scores: Scores
    images: tuple[tuple[str, float], ...]


def evaluate(
    model: str | Path | Predictor,
    data: str | Path | DataSet | None = None,
    split: str = "val",
    *,
    images: Path | None = None,
    masks: Path | None = None,
    mode: Mode | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    weighting: Weighting | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    average: Average | None = None,
    out: Path | None = None,
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
        model: A predictor, a model folder or a run's folder.
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
        out: Folder for the results.
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
    """
    predictor = (
        model if isinstance(model, Predictor) else load(model, device, precision=precision, compile=compile, fold=fold)
    )
    info = predictor.info
    if isinstance(data, DataSet):
        dataset = data
    else:
        root = None if data is None else Path(data)
        dataset = open_dataset(root, images=images, masks=masks, holdout=info.holdout, classes=info.classes)
    pairs = dataset.splits.get(split)
    if not pairs:
        raise DataError(f"no split {split!r} with masks here; there is {', '.join(dataset.splits)}")
    if not dataset.classes.same_names(info.classes):
        raise DataError(
            f"the model's classes are {', '.join(info.classes.names)}; "
            f"the data's are {', '.join(dataset.classes.names)}: measure a model on the classes it was trained for"
        )
    predictor = predictor.seeing(
        mode=mode,
        window=window,
        stride=stride,
        weighting=weighting,
        scales=None if scales is None else tuple(scales),
        flip=flip,
        average=average,
    )
    result = measure(predictor, pairs, dataset, workers, progress)
    if out is not None:
        write_results(Path(out), result, predictor, dataset, split, history, gallery)
    return result


def measure(
    predictor: Predictor,
    pairs: Sequence[Pair],
    dataset: DataSet,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """The scores of a predictor on these images. Memory does not grow with their number: one matrix is kept."""
    classes = dataset.classes
    total = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    images = []
    channels = len(predictor.info.mean)
    decoded = prefetched(pairs, lambda pair: read_pair(pair, classes, channels), workers)
    for done, (pair, (image, label)) in enumerate(zip(pairs, decoded, strict=True), start=1):
        prediction = predictor.class_map(image).cpu()
        matrix = confusion_matrix(prediction, label, len(classes))
        total += matrix
        images.append((pair.name, image_miou(matrix)))
        if progress is not None:
            progress(done, len(pairs))
    return Evaluation(total, scores(total), tuple(images))


def image_miou(matrix: torch.Tensor) -> float:
    """Mean IoU over the classes that one image's label has; nan where nothing is labelled."""
    counts = matrix.double()
    correct, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    present = labelled > 0
    return float((correct / (labelled + predicted - correct))[present].mean())


def write_results(
    folder: Path,
    result: Evaluation,
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    history: Sequence[Mapping[str, Any]] = (),
    gallery: bool = True,
) -> None:
    """Write `metrics.json` and the page `report.html` of an evaluation."""
    content = {
        "split": split,
        "images": len(result.images),
        **asdict(predictor.info.seeing),
        **result.scores.to_dict(dataset.classes.names),
        "confusion_matrix": result.matrix.tolist(),
        "per_image_miou": {name: None if np.isnan(miou) else miou for name, miou in result.images},
    }
    write_json(folder / "metrics.json", content)
    write_report(folder / "report.html", make_report(result, predictor, dataset, split, history, gallery))


def make_report(
    result: Evaluation,
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    history: Sequence[Mapping[str, Any]],
    gallery: bool,
) -> Report:
    """The page's content; the images it shows are predicted once more."""
    settings = cast(Any, predictor.network).settings
    ranked = sorted((entry for entry in result.images if not np.isnan(entry[1])), key=lambda entry: entry[1])
    shown = min(GALLERY, (len(ranked) + 1) // 2) if gallery else 0
    pairs = {pair.name: pair for pair in dataset.splits[split]}

    def example(entry: tuple[str, float]) -> Example:
        name, miou = entry
        image, truth = read_pair(pairs[name], dataset.classes, len(predictor.info.mean))
        prediction = predictor.class_map(image).cpu().numpy()
        return Example(name, miou, as_picture(image), truth.numpy(), prediction)

    return Report(
        title=f"Segmentation of the {split} images",
        subtitle=(
            f"network: {settings['backbone'] or 'own backbone'}, fusion {settings['fusion']}, context "
            f"{settings['context']}, output stride {settings['output_stride']}",
            f"parameters: {predictor.parameters:,}",
            f"images: {len(result.images)}, at their own size",
            f"seen at: {predictor.info.seeing}",
            f"hardware: {hardware(predictor.device)}",
            f"date: {date.today().isoformat()}",
        ),
        classes=dataset.classes,
        matrix=result.matrix,
        scores=result.scores,
        history=history,
        worst=[example(entry) for entry in ranked[:shown]],
        best=[example(entry) for entry in ranked[::-1][: min(shown, len(ranked) - shown)]],
        notes=dataset.notes,
    )


def hardware(device: torch.device) -> str:
    """What a number was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all; nan is refused, since JSON has none."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
