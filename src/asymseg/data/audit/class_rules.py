"""What the counts of all masks together say about the classes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from asymseg.classes import IGNORE, Classes
from asymseg.data.audit.findings import Finding, of_masks
from asymseg.data.audit.scan import PairFacts, class_pixels
from asymseg.data.pairing import listed

_SHOWN = 8
_STRAY_MASKS = 0.05
_STRAY_PIXELS = 0.005
_RARE = 1e-4


@dataclass(frozen=True)
class SplitCounts:
    """Pixels of each class and ignored pixels in each readable mask of a split."""

    pairs: tuple[PairFacts, ...]
    pixels: Int64[np.ndarray, "masks classes"]
    ignored: Int64[np.ndarray, " masks"]


def count_classes(pairs: tuple[PairFacts, ...], classes: Classes) -> dict[str, SplitCounts]:
    """The counts of each split. Pixels that no class has are in none of them."""
    grouped: dict[str, list[PairFacts]] = {}
    for facts in pairs:
        if not facts.mask.problem:
            grouped.setdefault(facts.split, []).append(facts)
    counts = {}
    for split, group in grouped.items():
        pixels, ignored = np.zeros((len(group), len(classes)), dtype=np.int64), np.zeros(len(group), dtype=np.int64)
        for row, facts in enumerate(group):
            for number, count in class_pixels(facts.mask, classes)[0].items():
                if number == IGNORE:
                    ignored[row] = count
                else:
                    pixels[row, number] = count
        counts[split] = SplitCounts(tuple(group), pixels, ignored)
    return counts


def class_findings(counts: Mapping[str, SplitCounts], classes: Classes, inferred: bool) -> list[Finding]:
    """Classes that are nowhere, not in every split, hardly anywhere, or perhaps none at all."""
    if not counts:
        return []
    totals = {split: part.pixels.sum(axis=0) for split, part in counts.items()}
    everywhere = np.sum(list(totals.values()), axis=0)
    stray = stray_classes(counts) if inferred else {}
    findings = []
    alone = _one_class(counts["train"], classes) if "train" in counts else None
    nowhere = [classes.names[number] for number in np.flatnonzero(everywhere == 0)]
    if alone is not None:
        findings.append(alone)
    elif nowhere:
        message = f"no pixel of {listed(nowhere, _SHOWN)} in any mask"
        cure = "take them out of classes.json, or look whether their ids there are right"
        findings.append(Finding("warning", "absent-class", message, cure))
    for split, total in totals.items():
        absent = np.flatnonzero((total == 0) & (everywhere > 0)).tolist()
        missing = [classes.names[number] for number in absent if number not in stray]
        if missing:
            effect = "cannot be learnt" if split == "train" else "get no score"
            message = f"{split}: no pixel of {listed(missing, _SHOWN)}, which other parts have; there they {effect}"
            cure = f"move images with {'it' if len(missing) == 1 else 'them'} to {split}"
            findings.append(Finding("warning", "missing-class", message, cure))
    raws = raw_ids(classes)
    for number, guilty in stray.items():
        raw, count = raws[number], int(everywhere[number])
        where = listed([facts.name for facts in guilty], 3)
        message = f"id {raw} became a class for {count} pixels in {where}; it looks like a slip of the label tool"
        cure = f'mend the masks, or write classes.json: with "values": {{"{raw}": null}} these pixels do not count'
        findings.append(of_masks("warning", "stray-id", message, cure, guilty))
    known = [number for number in range(len(classes)) if number not in stray]
    return findings + _scarce(counts, classes, known)


def _one_class(train: SplitCounts, classes: Classes) -> Finding | None:
    """Training masks of one class alone: a network could not but be right, and would have learnt nothing."""
    present = np.flatnonzero(train.pixels.sum(axis=0)).tolist()
    if len(present) != 1:
        return None
    one = classes.names[present[0]]
    message = f"train: every labelled pixel is {one}, so nothing can be learnt"
    if len(classes) != 2 or not train.ignored.any():
        cure = "look whether the masks are right, and classes.json gives the ids that stand in them"
        return Finding("warning", "one-class", message, cure)
    other = classes.names[1 - present[0]]
    values = f'"values": {{"{raw_ids(classes)[present[0]]}": "{one}", "{classes.ignore}": "{other}"}}'
    cure = f"{classes.ignore} counts nowhere; if it means {other}, say so in classes.json: {values}"
    return Finding("error", "one-class", message, cure)


def stray_classes(counts: Mapping[str, SplitCounts]) -> dict[int, list[PairFacts]]:
    """Classes of few pixels in few masks, with these: where classes were inferred, they are hardly meant."""
    pixels = np.concatenate([part.pixels for part in counts.values()])
    pairs = [facts for part in counts.values() for facts in part.pairs]
    labelled = pixels.sum(axis=1)
    found = {}
    for number in range(pixels.shape[1]):
        rows = np.flatnonzero(pixels[:, number])
        few_masks = 0 < len(rows) <= max(1, _STRAY_MASKS * len(pixels)) and len(rows) < len(pixels)
        if few_masks and pixels[:, number].sum() < _STRAY_PIXELS * labelled[rows].sum():
            found[number] = [pairs[row] for row in rows]
    return found


def were_inferred(classes: Classes) -> bool:
    """Whether nobody has named the classes: they bear the names that `classes_from_ids` gives."""
    return not classes.declared_palette and classes.names == tuple(f"class {raw}" for raw in raw_ids(classes))


def raw_ids(classes: Classes) -> list[int]:
    """An id on disk for each class; the smallest, where several mean it."""
    if classes.values is None:
        return list(range(len(classes)))
    found: dict[int, int] = {}
    for raw, number in sorted(classes.values.items(), reverse=True):
        found[number] = raw
    return [found.get(number, -1) for number in range(len(classes))]


def _scarce(counts: Mapping[str, SplitCounts], classes: Classes, known: list[int]) -> list[Finding]:
    """Of the `known` classes those in a single image, and those of hardly any pixel."""
    pixels = np.concatenate([part.pixels for part in counts.values()])
    pairs = [facts for part in counts.values() for facts in part.pairs]
    seen_in = (pixels > 0).sum(axis=0)
    once = {n: pairs[int(np.flatnonzero(pixels[:, n])[0])] for n in known if seen_in[n] == 1 and len(pixels) > 1}
    findings = []
    if once:
        shown = listed([f"{classes.names[number]} in {facts.name}" for number, facts in once.items()], _SHOWN)
        message, cure = f"classes that one image alone has: {shown}", "label more of them, for training and validation"
        unique = list({facts.name: facts for facts in once.values()}.values())
        findings.append(of_masks("note", "class-in-one-image", message, cure, unique))
    share = pixels.sum(axis=0) / max(1, int(pixels.sum()))
    rare = [number for number in known if 0 < share[number] < _RARE and number not in once]
    if rare:
        shown = listed([f"{classes.names[number]} ({100 * share[number]:.2g} %)" for number in rare], _SHOWN)
        cure = "train with --train.class_weights median_frequency, or join them with others"
        findings.append(Finding("note", "rare-class", f"classes of hardly any labelled pixel: {shown}", cure))
    return findings
