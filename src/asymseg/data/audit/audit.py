"""The audit itself: every file is read once, and all that is wrong is told at once, not only the first of it."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asymseg.classes import Classes
from asymseg.data.audit.class_rules import SplitCounts, class_findings, count_classes, raw_ids, were_inferred
from asymseg.data.audit.copies import copy_findings
from asymseg.data.audit.findings import SEVERITIES, Finding, Severity, most_serious_first
from asymseg.data.audit.image_rules import image_findings, size_findings
from asymseg.data.audit.listing import Listing, list_dataset, list_folders
from asymseg.data.audit.mask_rules import mask_findings
from asymseg.data.audit.scan import PairFacts, colour_name, scan_pair
from asymseg.data.catalog.opening import open_known
from asymseg.data.dataset import DataSet, classes_from_ids, median_frequency_weights
from asymseg.data.pairing import Pair
from asymseg.data.prefetching import prefetched
from asymseg.errors import DataError

_SHOWN_VALUES = 64
_SHOWN_SIZES = 16


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds."""

    pairs: tuple[Pair, ...]
    class_pixels: tuple[int, ...]
    """Of each class; empty where no mask could be counted, as are those below."""
    class_masks: tuple[int, ...]
    """Masks in which each class occurs."""
    ignored: int
    """Pixels."""

    @property
    def ignored_share(self) -> float:
        """Of all pixels with a declared value."""
        return self.ignored / max(1, self.ignored + sum(self.class_pixels))


@dataclass(frozen=True)
class Audit:
    """What `audit` found."""

    where: str
    classes: Classes | None
    """None where they are neither declared nor to be inferred."""
    inferred: bool
    """Whether the classes follow from the ids in the masks, for want of a classes.json."""
    splits: dict[str, SplitSummary]
    values: tuple[tuple[str, int, int], ...]
    """Raw id or colour, pixels, and masks with it, most pixels first: what stands in the files."""
    sizes: tuple[tuple[tuple[int, int], int], ...]
    """Height and width, and how many images have them, most first."""
    mean: tuple[float, ...]
    """Of the training images, per channel on the 0..1 scale; over all pixels."""
    std: tuple[float, ...]
    weights: tuple[float, ...]
    """By median frequency, as training computes them; none where the training masks hold no label."""
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings of a severity there are."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The form of the JSON file."""
        names = self.classes.names if self.classes is not None else ()
        return {
            "data": self.where,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
            "classes": None if self.classes is None else self.classes.to_dict(),
            "inferred": self.inferred,
            "splits": {
                split: {
                    "images": len(part.pairs),
                    "pixels": dict(zip(names, part.class_pixels, strict=False)),
                    "masks": dict(zip(names, part.class_masks, strict=False)),
                    "ignored": part.ignored,
                    "ignored_share": part.ignored_share,
                }
                for split, part in self.splits.items()
            },
            "values": [{"value": value, "pixels": pixels, "masks": masks} for value, pixels, masks in self.values],
            "sizes": [{"height": size[0], "width": size[1], "images": count} for size, count in self.sizes],
            "mean": list(self.mean),
            "std": list(self.std),
            "class_weights": dict(zip(names, self.weights, strict=False)),
        }


def audit(
    data: str | Path | DataSet | None = None,
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    channels: int = 3,
    holdout: float = 0.1,
    near: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Read every pixel of a data set and say what is wrong with it.

    Args:
        data: A data set, its folder, or a known one such as `cityscapes:PATH`.
        images: Folder of images, in place of `data`.
        masks: Folder of masks for `images`.
        channels: Of the images that the network will take.
        holdout: Share of the training images that becomes a val split where there is none, as in training.
        near: Whether near duplicates are looked for, beside exact ones.
        workers: Threads that read; by default one for each core, at most 16.
        progress: Called with (pairs read, pairs in all).

    Raises:
        DataError: Where there is nothing to look at; all other faults are findings.
    """
    listing = _list(data, images, masks, holdout)
    where = str(data) if isinstance(data, str | Path) else str(listing.where)
    return judge(where, listing, scan(listing, channels, workers, progress), near)


def judge(where: str, listing: Listing, scanned: tuple[PairFacts, ...], near: bool = True) -> Audit:
    """What follows from what the files hold."""
    classes, findings = listing.classes, list(listing.findings)
    inferred = classes is not None and were_inferred(classes)
    declared_wrongly = any(finding.kind == "class-list" for finding in findings)
    if classes is None and not declared_wrongly:
        classes, finding = _infer(scanned, listing.where)
        inferred = classes is not None
        findings += finding
    findings += image_findings(scanned) + size_findings(scanned) + mask_findings(scanned, classes)
    counts = count_classes(scanned, classes) if classes is not None else {}
    if classes is not None:
        findings += class_findings(counts, classes, inferred)
    findings += copy_findings(scanned, near)
    mean, std = _normalisation([facts for facts in scanned if facts.split == "train"])
    return Audit(
        where,
        classes,
        inferred,
        {split: _summary(pairs, counts.get(split)) for split, pairs in listing.splits.items()},
        _values(scanned),
        tuple(Counter(facts.image.size for facts in scanned if facts.image.size).most_common(_SHOWN_SIZES)),
        mean,
        std,
        _weights(counts),
        most_serious_first(findings),
    )


def _list(
    data: str | Path | DataSet | None, images: str | Path | None, masks: str | Path | None, holdout: float
) -> Listing:
    if isinstance(data, DataSet):
        return list_dataset(data)
    known = None if data is None else open_known(str(data), holdout)
    if known is not None:
        return _list(known, None, None, holdout)
    root, images, masks = (None if place is None else Path(place) for place in (data, images, masks))
    return list_folders(root, images, masks, holdout)


def scan(
    listing: Listing, channels: int, workers: int | None, progress: Callable[[int, int], None] | None
) -> tuple[PairFacts, ...]:
    """What every pair of files holds, in their order; `workers` threads read."""
    items = [(split, pair) for split, pairs in listing.splits.items() for pair in pairs]
    threads = min(16, os.cpu_count() or 1) if workers is None else max(1, workers)
    scanned = []
    for facts in prefetched(items, lambda item: scan_pair(item[0], item[1], channels, listing.classes), threads):
        scanned.append(facts)
        if progress is not None:
            progress(len(scanned), len(items))
    return tuple(scanned)


def _infer(scanned: Sequence[PairFacts], where: Path) -> tuple[Classes | None, list[Finding]]:
    """Classes from the ids that occur, and what is to be said of it."""
    found = {value for facts in scanned if not facts.mask.colours for value in facts.mask.values or {}}
    if not found:
        return None, []  # nothing but colours or unreadable masks, which other findings tell
    try:
        classes, note = classes_from_ids(found, where)
    except DataError as error:
        message, _, cure = str(error).rpartition("; ")
        return None, [Finding("error", "class-list", message or cure, cure)]
    listed = ", ".join(f"{raw} {name!r}" for raw, name in zip(raw_ids(classes), classes.names, strict=True))
    return classes, [
        Finding("note", "inferred-classes", f"{note}: {listed}", "write classes.json to name them and to fix their ids")
    ]


def _summary(pairs: tuple[Pair, ...], counts: SplitCounts | None) -> SplitSummary:
    if counts is None:
        return SplitSummary(pairs, (), (), 0)
    pixels, masks = counts.pixels.sum(axis=0), (counts.pixels > 0).sum(axis=0)
    return SplitSummary(pairs, tuple(pixels.tolist()), tuple(masks.tolist()), int(counts.ignored.sum()))


def _values(scanned: Sequence[PairFacts]) -> tuple[tuple[str, int, int], ...]:
    pixels: Counter[tuple[bool, int]] = Counter()
    masks: Counter[tuple[bool, int]] = Counter()
    for facts in scanned:
        for value, count in (facts.mask.values or {}).items():
            pixels[facts.mask.colours, value] += count
            masks[facts.mask.colours, value] += 1
    return tuple(
        (colour_name(value) if colours else str(value), count, masks[colours, value])
        for (colours, value), count in pixels.most_common(_SHOWN_VALUES)
    )


def _normalisation(training: Sequence[PairFacts]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over all pixels of all images."""
    seen = [facts.image for facts in training if facts.image.size is not None]
    if not seen:
        return (), ()
    count = sum(image.size[0] * image.size[1] for image in seen if image.size is not None)
    mean = np.sum([image.sums for image in seen], axis=0) / count
    variance = np.sum([image.squares for image in seen], axis=0) / count - mean**2
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(variance, 0)).tolist())


def _weights(counts: Mapping[str, SplitCounts]) -> tuple[float, ...]:
    training = counts.get("train")
    if training is None or not training.pixels.any():
        return ()
    return median_frequency_weights(training.pixels)
