"""`metrics.json`: every number of an evaluation, and the counts of each image from which it can be compared later."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from asymseg.atomic import atomic_file
from asymseg.classes import Classes
from asymseg.errors import DataError
from asymseg.evaluation.boundary import boundary_scores
from asymseg.evaluation.calibration import calibration_scores
from asymseg.evaluation.measure import Evaluation
from asymseg.evaluation.metrics import category_scores, json_number, mean_known
from asymseg.model.seeing import Seeing

METRICS = "metrics.json"


@dataclass(frozen=True)
class Record:
    """What an evaluation left behind of each image."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    split: str
    counts: Int64[np.ndarray, "images 3 classes"]
    """Of each image, by class: pixels correct, labelled and predicted."""


def metrics(result: Evaluation, classes: Classes, split: str, seeing: Seeing) -> dict[str, Any]:
    """The content of `metrics.json`."""
    names = classes.names
    content = {
        "split": split,
        "images": len(result.images),
        "seen": str(seeing),
        **_seen(seeing),
        **result.scores.to_dict(names),
    }
    if result.intervals is not None:
        content["intervals"] = result.intervals.to_dict(names)
    if classes.categories:
        content["categories"] = categories(result, classes)
    if result.boundary is not None:
        content["boundary"] = boundary_scores(result.boundary).to_dict(names)
    if result.calibration is not None:
        content["calibration"] = calibration_scores(result.calibration).to_dict(names)
    content["confusion_matrix"] = result.matrix.tolist()
    content["per_image_miou"] = {name: json_number(miou) for name, miou in result.images}
    if result.counts is not None:
        images = zip(result.images, result.counts, strict=True)
        content["per_image_counts"] = {name: _sparse(counts) for (name, _), counts in images}
    return content


def _seen(seeing: Seeing) -> dict[str, Any]:
    """The settings of `Seeing` that have an effect."""
    settings = {**asdict(seeing), "stride": seeing.steps}
    if seeing.mode == "whole":
        settings = {name: value for name, value in settings.items() if name not in ("window", "stride", "weighting")}
    return settings


def categories(result: Evaluation, classes: Classes) -> dict[str, Any]:
    """IoU of each category and its mean."""
    known = category_scores(result.matrix, classes.categories)
    return {
        "miou": json_number(mean_known(np.array(list(known.values())))),
        "iou": {name: json_number(iou) for name, iou in known.items()},
    }


def read_record(folder: Path) -> Record:
    """The counts of an evaluation's folder. Raises DataError that names the file and the fault."""
    path = folder / METRICS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); asymseg evaluate --out writes it") from None
    if not isinstance(content, dict) or not isinstance(content.get("per_image_counts"), dict):
        raise DataError(f"{path}: has no counts of each image; measure the model again with asymseg evaluate --out")
    try:
        names, images = tuple(content["classes"]), content["per_image_counts"]
        counts = [_dense(entry, len(names)) for entry in images.values()]
        stacked = np.stack(counts) if counts else np.zeros((0, 3, len(names)), dtype=np.int64)
        return Record(tuple(images), names, str(content["split"]), stacked)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: damaged ({error!r}); measure the model again") from None


def _sparse(counts: Int64[np.ndarray, "3 classes"]) -> dict[str, list[int]]:
    """The classes that an image or its prediction has, with their counts."""
    present = np.flatnonzero(counts.any(axis=0))
    rows = dict(zip(("correct", "labelled", "predicted"), counts[:, present].tolist(), strict=True))
    return {"classes": present.tolist(), **rows}


def _dense(entry: dict[str, Sequence[int]], classes: int) -> Int64[np.ndarray, "3 classes"]:
    counts = np.zeros((3, classes), dtype=np.int64)
    counts[:, entry["classes"]] = [entry["correct"], entry["labelled"], entry["predicted"]]
    return counts


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all; nan is refused, since JSON has none. A list of numbers takes one line."""
    text = json.dumps(content, indent=1, allow_nan=False)
    text = re.sub(r"\[\n([-+.\deE,\s]+)\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
