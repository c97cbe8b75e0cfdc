"""Likely label errors: regions where a model is sure of another class than the label says, most suspicious first."""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from asymseg.classes import IGNORE
from asymseg.data.dataset import DataSet
from asymseg.data.loader import read_pair
from asymseg.data.prefetching import prefetched
from asymseg.evaluation.evaluate import open_split
from asymseg.evaluation.regions import connected_regions, inner
from asymseg.prediction.predict import Predictor

LEAST = 1e-4
"""Probabilities below this count as this: how near to nothing they are says little."""

MOST = 0.8
"""Share of a region of the label that must be contradicted for it to be one suspect, whatever its parts are called."""


@dataclass(frozen=True)
class Suspect:
    """A region of one image whose label a model contradicts."""

    image: str
    """The pair's name."""
    box: tuple[int, int, int, int]
    """Top, left, bottom and right in pixels; the last two lie outside."""
    area: int
    labelled: str
    predicted: str
    """The class that is predicted at most of its pixels."""
    confidence: float
    """Mean probability of what is predicted, over the region."""
    doubt: float
    """Mean probability of the labelled class over the region."""
    score: float
    """What the suspects are ranked by; means nothing by itself."""
    region: Bool[np.ndarray, "h w"] = field(compare=False, repr=False)
    """Which pixels of the box."""


def find_label_errors(
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    *,
    most: int = 200,
    seam: float = 0.005,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Suspect, ...]:
    r"""The `most` likely label errors of a split, best first. Memory does not grow with the number of images.

    The model sees each image mirrored too: it rarely makes one mistake twice, while an error of the label stays one.

    A suspect is a connected region of one labelled and one predicted class, or a region of the label that is
    contradicted nearly throughout. With $p$ the probabilities over its pixels, $l$ and $q$ its labelled and predicted
    class, it is ranked by

    $$ \sqrt{core \cdot whole} \; \overline{-\ln p_l}^2 \; \overline{p_q - p_l} \; \sqrt{t_l t_q} $$

    - core: how many of its pixels lie deeper inside than `seam`;
    - whole: its share of the labelled or of the predicted region that it is part of, whichever is more: errors are
      whole things, a model's mistakes are ragged parts;
    - $t_c$: the mean of $p_c$ over all pixels labelled $c$, the self-confidence that confident learning takes for its
      thresholds (Northcutt, Jiang and Chuang, JAIR 2021), so that classes that the model is bad at do not flood the
      list.

    Args:
        predictor: A model of the data's classes. It may have been trained on these labels, errors and all, as long as
            it has not learnt them by heart.
        dataset: The data.
        split: Which part: train, val or test.
        most: How many are kept.
        seam: How far from its edge a region is not judged, as a share of the image's diagonal: models and annotators
            draw edges differently.
        workers: Threads that decode images ahead.
        progress: Called with (images done, images in all).

    Raises:
        DataError: Data that cannot be used, or of other classes than the model's.
    """
    dataset, pairs = open_split(predictor.info, dataset, split)
    predictor = predictor.seeing(flip=True)
    classes, names = dataset.classes, dataset.classes.names
    best: defaultdict[tuple[str, str], list[tuple[float, int, Suspect]]] = defaultdict(list)
    totals, counts = np.zeros(len(classes)), np.zeros(len(classes))
    channels, seen = len(predictor.info.mean), 0
    decoded = prefetched(pairs, lambda pair: read_pair(pair, classes, channels), workers)
    for done, (pair, (image, label)) in enumerate(zip(pairs, decoded, strict=True), start=1):
        view = _seen(predictor, image, label)
        known = view.label != IGNORE
        totals += np.bincount(view.label[known], view.doubt[known], len(classes))
        counts += np.bincount(view.label[known], minlength=len(classes))
        for suspect in _suspects(view, pair.name, names, seam):
            kept = best[suspect.labelled, suspect.predicted]
            seen += 1
            entry = (suspect.score, -seen, suspect)  # no two are equal up to the suspects, which have no order
            if len(kept) < most:
                heapq.heappush(kept, entry)
            elif entry > kept[0]:
                heapq.heapreplace(kept, entry)
        if progress is not None:
            progress(done, len(pairs))
    trust = dict(zip(names, np.sqrt(totals / np.maximum(counts, 1)).tolist(), strict=True))
    found = [
        replace(suspect, score=suspect.score * trust[suspect.labelled] * trust[suspect.predicted])
        for kept in best.values()
        for _, _, suspect in kept
    ]
    return tuple(sorted(found, key=lambda suspect: (-suspect.score, suspect.image, suspect.box))[:most])


@dataclass(frozen=True)
class _View:
    """One image's label and what the model says of it."""

    label: UInt8[np.ndarray, "h w"]
    predicted: UInt8[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"]
    doubt: Float[np.ndarray, "h w"]


def _seen(predictor: Predictor, image: Tensor, label: UInt8[Tensor, "h w"]) -> _View:
    shares = predictor.probabilities(image)
    confidence, predicted = shares.max(dim=0)
    wanted = label.to(shares.device).long().clamp(max=shares.shape[0] - 1)[None]  # 1 h w
    doubt = shares.gather(0, wanted)[0]
    return _View(label.numpy(), predicted.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy(), doubt.cpu().numpy())


def _suspects(view: _View, image: str, names: tuple[str, ...], seam: float) -> Iterator[Suspect]:
    """The regions of one image that are called another class, and are more than a seam."""
    wrong = (view.label != view.predicted) & (view.label != IGNORE)
    if not wrong.any():
        return
    labels = connected_regions(view.label)
    # A region of the label that is contradicted nearly throughout is one error, whatever the model takes its parts for.
    mostly = (np.bincount(labels[wrong], minlength=int(labels.max()) + 1) > MOST * np.bincount(labels.ravel()))[labels]
    called = np.where(mostly, IGNORE, view.predicted.astype(np.int64))
    regions = connected_regions(np.where(wrong, view.label * np.int64(256) + called, -1))
    depth = max(1, round(seam * math.hypot(*view.label.shape)))
    core = np.bincount(regions[inner(regions, depth) & wrong], minlength=int(regions.max()) + 1)
    sizes = [_sizes(part).ravel() for part in (labels, connected_regions(view.predicted))]
    parts = [part.ravel() for part in (view.label, view.predicted, view.confidence, view.doubt)]
    for number, pixels in _pixels(regions, np.flatnonzero(core)):
        labelled, predicted, confidence, doubt = (part[pixels] for part in parts)
        # An error is a whole thing: a region of the label that is nothing of the kind, or one that the label has not.
        whole = min(1.0, max(len(pixels) / size[pixels[0]] for size in sizes))
        sure = float(confidence.mean()), float(doubt.mean())
        surprise = float(-np.log(np.maximum(doubt, LEAST)).mean())
        box, region = _cut_out(pixels, view.label.shape[1])
        yield Suspect(
            image=image,
            box=box,
            area=len(pixels),
            labelled=names[labelled[0]],
            predicted=names[np.bincount(predicted).argmax()],
            confidence=sure[0],
            doubt=sure[1],
            score=math.sqrt(core[number] * whole) * surprise**2 * (sure[0] - sure[1]),
            region=region,
        )


def _pixels(
    regions: Int64[np.ndarray, "h w"], numbers: Int64[np.ndarray, " n"]
) -> Iterator[tuple[int, Int64[np.ndarray, " p"]]]:
    """The places of the pixels of these regions, row by row, in the flattened image."""
    flat = regions.ravel()
    wanted = np.flatnonzero(np.isin(flat, numbers))
    wanted = wanted[np.argsort(flat[wanted], kind="stable")]
    ends = np.searchsorted(flat[wanted], numbers, side="right")
    yield from zip(numbers.tolist(), np.split(wanted, ends[:-1]), strict=True) if len(numbers) else ()


def _cut_out(pixels: Int64[np.ndarray, " p"], width: int) -> tuple[tuple[int, int, int, int], Bool[np.ndarray, "h w"]]:
    """The box of some pixels, and which pixels of the box they are."""
    rows, columns = np.divmod(pixels, width)
    top, left = int(rows.min()), int(columns.min())
    bottom, right = int(rows.max()) + 1, int(columns.max()) + 1
    region = np.zeros((bottom - top, right - left), dtype=bool)
    region[rows - top, columns - left] = True
    return (top, left, bottom, right), region


def _sizes(regions: Int64[np.ndarray, "h w"]) -> Int64[np.ndarray, "h w"]:
    """How many pixels each pixel's region has."""
    sizes: np.ndarray = np.bincount(regions.ravel())[regions]
    return sizes
