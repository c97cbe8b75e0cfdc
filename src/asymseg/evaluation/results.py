"""What an evaluation leaves on disk: `metrics.json` and the page `report.html`."""

import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asymseg.data.dataset import DataSet
from asymseg.data.loader import read_pair
from asymseg.evaluation.boundary import boundary_scores
from asymseg.evaluation.calibration import calibration_scores
from asymseg.evaluation.measure import Evaluation
from asymseg.evaluation.metrics import category_scores
from asymseg.evaluation.records import METRICS, metrics, write_json
from asymseg.evaluation.report import Example, Report, confusions, write_report
from asymseg.prediction.overlay import as_picture
from asymseg.prediction.predict import Predictor

GALLERY = 6
"""Worst and best images shown in a report, each."""

CONFUSED = 4
"""Confusions that are shown in a picture."""


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
    write_json(folder / METRICS, metrics(result, dataset.classes, split, predictor.info.seeing))
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
    ranked = sorted((entry for entry in result.images if not np.isnan(entry[1])), key=lambda entry: entry[1])
    shown = min(GALLERY, (len(ranked) + 1) // 2) if gallery else 0
    pairs = {pair.name: pair for pair in dataset.splits[split]}

    def example(name: str, miou: float) -> Example:
        image, truth = read_pair(pairs[name], dataset.classes, len(predictor.info.mean))
        prediction = predictor.class_map(image).cpu().numpy()
        return Example(name, miou, as_picture(image.numpy()), truth.numpy(), prediction)

    def confused() -> list[tuple[int, int, Example]]:
        if result.confused_in is None or not gallery:
            return []
        cells = [(label, called) for label, called, _, _ in confusions(result.matrix.numpy())[:CONFUSED]]
        return [(label, called, example(*result.images[result.confused_in[label, called]])) for label, called in cells]

    classes = dataset.classes
    return Report(
        title=f"Segmentation of the {split} images",
        subtitle=(
            f"network: {_network_in_words(predictor.network)}",
            f"parameters: {predictor.parameters:,}",
            f"images: {len(result.images)}, at their own size",
            f"seen at: {predictor.info.seeing}",
            f"hardware: {hardware(predictor.device)}",
            f"date: {date.today().isoformat()}",
        ),
        classes=classes,
        matrix=result.matrix,
        scores=result.scores,
        history=history,
        worst=[example(*entry) for entry in ranked[:shown]],
        best=[example(*entry) for entry in ranked[::-1][: min(shown, len(ranked) - shown)]],
        notes=dataset.notes,
        intervals=result.intervals,
        boundary=None if result.boundary is None else boundary_scores(result.boundary),
        calibration=None if result.calibration is None else calibration_scores(result.calibration),
        categories=category_scores(result.matrix, classes.categories) if classes.categories else {},
        confused=confused(),
    )


def _network_in_words(network: nn.Module) -> str:
    settings = getattr(network, "settings", None)
    if settings is None:
        return type(network).__name__  # a module of the user's
    return (
        f"{settings['backbone'] or 'own backbone'}, fusion {settings['fusion']}, context {settings['context']}, "
        f"output stride {settings['output_stride']}"
    )


def hardware(device: torch.device) -> str:
    """What a number was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
