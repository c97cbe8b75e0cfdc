"""The audit before a training run: what would stop it is raised, and what would spoil it is told."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from asymseg.classes import Classes
from asymseg.data.audit.audit import scan
from asymseg.data.audit.class_rules import class_findings, count_classes, were_inferred
from asymseg.data.audit.copies import copy_findings
from asymseg.data.audit.findings import Finding, most_serious_first
from asymseg.data.audit.image_rules import image_findings
from asymseg.data.audit.listing import list_dataset
from asymseg.data.audit.mask_rules import mask_findings
from asymseg.data.audit.scan import PairFacts, class_pixels
from asymseg.data.dataset import DataSet, count_warnings, one_refusal
from asymseg.data.reading import read_pair
from asymseg.errors import DataError

_COUNTED = ("all-ignored", "absent-class", "missing-class")
"""Kinds that `count_warnings` tells for each split."""


def quick_check(
    dataset: DataSet,
    splits: Sequence[str],
    channels: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labelled pixels per image and class of each split, and warnings, after a look at every pixel of them.

    Raises one DataError for all files that training could not use: what is wrong with the first, in the words of
    `read_pair`, and the names of a few others.
    """
    part = DataSet(dataset.classes, {split: dataset.splits[split] for split in splits})
    scanned = scan(list_dataset(part), channels, workers, progress)
    _refuse([facts for facts in scanned if _is_refused(facts, dataset.classes)], dataset.classes, channels)
    found = count_classes(scanned, dataset.classes)
    counts = {split: found[split].pixels for split in splits}
    findings = [
        *image_findings(scanned),
        *mask_findings(scanned, dataset.classes),
        *class_findings(found, dataset.classes, were_inferred(dataset.classes)),
        *copy_findings(scanned),
    ]
    return counts, count_warnings(counts, part) + [
        _line(finding)
        for finding in most_serious_first(findings)
        if finding.severity != "note" and finding.kind not in _COUNTED
    ]


def _line(finding: Finding) -> str:
    return f"{finding.message}; {finding.cure}"


def _is_refused(facts: PairFacts, classes: Classes) -> bool:
    """Whether training could not read the pair."""
    if facts.image.problem or facts.mask.problem or facts.image.size != facts.mask.size:
        return True
    return bool(class_pixels(facts.mask, classes)[1])


def _refuse(refused: Sequence[PairFacts], classes: Classes, channels: int) -> None:
    """Raise what reading these pairs raises."""
    faults: list[tuple[Path, DataError]] = []
    for facts in refused:
        try:
            read_pair(facts.pair, classes, channels)
        except DataError as error:
            named_image = str(error).startswith(f"{facts.pair.image}: ")
            faults.append((facts.pair.image if named_image else facts.pair.mask, error))
    if faults:
        raise one_refusal(faults)
