"""What a model says of each image, counted: sums over a set, and three whole numbers of each image and class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from asymseg.data.dataset import DataSet, Pair
from asymseg.data.loader import read_pair
from asymseg.data.prefetching import prefetched
from asymseg.evaluation.bootstrap import Intervals, image_counts
from asymseg.evaluation.boundary import BoundaryCounts, count_boundary
from asymseg.evaluation.calibration import CalibrationCounts, count_calibration
from asymseg.evaluation.metrics import Scores, confusion_matrix, scores
from asymseg.prediction.predict import Predictor


@dataclass(frozen=True)
class Evaluation:
    """A measured model: the whole set's matrix and scores, and the mIoU of each image over the classes it has."""

    matrix: torch.Tensor
    scores: Scores
    images: tuple[tuple[str, float], ...]
    counts: Int64[np.ndarray, "images 3 classes"] | None = None
    """Of each image, by class: pixels correct, labelled and predicted; see `bootstrap`."""
    boundary: BoundaryCounts | None = None
    calibration: CalibrationCounts | None = None
    confused_in: Int64[np.ndarray, "classes classes"] | None = None
    """The number of the image that has the most pixels of each cell of the matrix; -1 where no image has any."""
    intervals: Intervals | None = None


def measure(
    predictor: Predictor,
    pairs: Sequence[Pair],
    dataset: DataSet,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    boundary: bool = False,
    calibration: bool = False,
    write: Callable[[str, torch.Tensor], None] | None = None,
) -> Evaluation:
    """The scores of a predictor on these images; `write` is given the name and the class ids of each.

    Memory hardly grows with their number: sums over all of them are kept, and three whole numbers of each image and
    class.
    """
    classes = len(dataset.classes)
    total, counts, images = torch.zeros(classes, classes, dtype=torch.int64), [], []
    most, confused_in = np.zeros((classes, classes), dtype=np.int64), np.full((classes, classes), -1)
    rims: BoundaryCounts | None = None
    confidences: CalibrationCounts | None = None
    channels = len(predictor.info.mean)
    decoded = prefetched(pairs, lambda pair: read_pair(pair, dataset.classes, channels), workers)
    for done, (pair, (image, label)) in enumerate(zip(pairs, decoded, strict=True), start=1):
        if calibration:
            prediction, confidence = (answer.cpu() for answer in predictor.class_map_and_confidence(image))
            sums = count_calibration(prediction, confidence, label, classes)
            confidences = sums if confidences is None else confidences + sums
        else:
            prediction = predictor.class_map(image).cpu()
        if write is not None:
            write(pair.name, prediction)
        if boundary:
            rim = count_boundary(prediction, label, classes)
            rims = rim if rims is None else rims + rim
        matrix = confusion_matrix(prediction, label, classes)
        total += matrix
        counts.append(image_counts(matrix.numpy()))
        more = matrix.numpy() > most
        most[more], confused_in[more] = matrix.numpy()[more], done - 1
        images.append((pair.name, image_miou(matrix)))
        if progress is not None:
            progress(done, len(pairs))
    stacked = np.stack(counts) if counts else np.zeros((0, 3, classes), dtype=np.int64)
    return Evaluation(total, scores(total), tuple(images), stacked, rims, confidences, confused_in)


def image_miou(matrix: torch.Tensor) -> float:
    """Mean IoU over the classes that one image's label has; nan where nothing is labelled."""
    counts = matrix.double()
    correct, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    present = labelled > 0
    return float((correct / (labelled + predicted - correct))[present].mean())
