"""The audit before a training run: what would stop it is raised, and what would spoil it is told."""

from collections.abc import Sequence
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
    tolerated: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labelled pixels per image and class of each split, and warnings, after a look at every pixel of them.

    Raises one DataError for all files that training could not use: what is wrong with the first, in the words of
    `read_pair`, and the names of a few others; and one where the training masks hold one of two classes and ignore
    the rest. In `tolerated` splits such files are among the warnings and are left out of the counts, as long as there
    are others.
    """
    part = DataSet(dataset.classes, {split: dataset.splits[split] for split in splits})
    scanned = scan(list_dataset(part), channels, workers, None)
    refused = [facts for facts in scanned if _is_refused(facts, dataset.classes)]
    usable = tuple(facts for facts in scanned if not _is_refused(facts, dataset.classes))
    left = {split: tuple(facts.pair for facts in usable if facts.split == split) for split in splits}
    fatal = [facts for facts in refused if facts.split not in tolerated or not left[facts.split]]
    if faults := _faults(fatal, dataset.classes, channels):
        raise one_refusal(faults)
    skipped = [f"skipped: {error}" for _, error in _faults(refused, dataset.classes, channels)]
    part, scanned = DataSet(dataset.classes, left), usable
    found = count_classes(scanned, dataset.classes)
    counts = {split: found[split].pixels for split in splits}
    of_classes = class_findings(found, dataset.classes, were_inferred(dataset.classes))
    for finding in of_classes:
        if finding.kind == "one-class" and finding.severity == "error":
            raise DataError(_line(finding))
    findings = [
        *image_findings(scanned),
        *mask_findings(scanned, dataset.classes),
        *of_classes,
        *copy_findings(scanned),
    ]
    return counts, [*skipped, *count_warnings(counts, part)] + [
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


def _faults(refused: Sequence[PairFacts], classes: Classes, channels: int) -> list[tuple[Path, DataError]]:
    """The files of these pairs that reading stumbles over, and what it raises."""
    faults: list[tuple[Path, DataError]] = []
    for facts in refused:
        try:
            read_pair(facts.pair, classes, channels)
        except DataError as error:
            named_image = str(error).startswith(f"{facts.pair.image}: ")
            faults.append((facts.pair.image if named_image else facts.pair.mask, error))
    return faults
