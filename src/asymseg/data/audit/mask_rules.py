"""What is wrong with the values in single masks."""

from collections import Counter
from collections.abc import Sequence

from asymseg.classes import IGNORE, Classes
from asymseg.data.audit.findings import Finding, Severity, of_masks, the_masks
from asymseg.data.audit.image_rules import reason_and_cure
from asymseg.data.audit.scan import MaskFacts, PairFacts, class_pixels, colour_name
from asymseg.data.pairing import listed

_SHOWN = 5
_PICTURE = 4096
"""An RGB mask of so many colours is no mask."""

_FEW_BETWEEN = 30
_BETWEEN_SHARE = 0.8
"""Of the pixels with two different neighbours those that lie between them; in hand-made masks they are a minority."""

_BETWEEN_TRANSITIONS = 0.2
_BETWEEN_VALUES = 2
"""One value in between may be a class that marks borders."""

_SMEARED_VALUES = 8
_SMEARED_SHARE = 0.01
_MOSTLY_IGNORED = 0.95


def mask_findings(pairs: Sequence[PairFacts], classes: Classes | None) -> list[Finding]:
    """Masks that cannot be read, hold what no class has, are smeared, or empty. Each is accused of one thing alone."""
    findings = _problems(pairs)
    readable = [facts for facts in pairs if not facts.mask.problem]
    pictures = [facts for facts in readable if facts.mask.colours and facts.mask.distinct > _PICTURE]
    if pictures:
        message = f"a picture of thousands of colours instead of labels in {the_masks(pictures)}"
        findings.append(of_masks("error", "picture-as-mask", message, "put the labels there", pictures))
    labels = [facts for facts in readable if not (facts.mask.colours and facts.mask.distinct > _PICTURE)]
    judged = [(facts, is_smeared(facts.mask, classes)) for facts in labels]
    findings += _smeared([facts for facts, guilty in judged if guilty], classes)
    whole = [facts for facts, guilty in judged if not guilty]
    findings += _undeclared(whole, classes, colours=False) + _undeclared(whole, classes, colours=True) + _kinds(whole)
    if classes is not None:
        findings += _ignored(whole, classes) + _palettes(whole, classes)
    return findings


def is_smeared(mask: MaskFacts, classes: Classes | None) -> bool:
    """Whether the values along borders come from interpolation or lossy compression and not from a label tool."""
    interpolated = (
        mask.between >= _FEW_BETWEEN
        and mask.between_values >= _BETWEEN_VALUES
        and mask.between >= _BETWEEN_SHARE * (mask.between + mask.outside)
        and mask.between >= _BETWEEN_TRANSITIONS * mask.transitions
    )
    if interpolated or classes is None or (mask.colours and not classes.declared_palette):
        return interpolated
    known, unknown = class_pixels(mask, classes)
    pixels = sum(known.values()) + sum(unknown.values())
    rare = [count for count in unknown.values() if count < _SMEARED_SHARE * pixels]
    # Regions have more pixels inside than along their borders; what compression leaves is hardly any inside.
    return len(rare) >= _SMEARED_VALUES and sum(rare) <= mask.transitions


def _smeared(pairs: Sequence[PairFacts], classes: Classes | None) -> list[Finding]:
    """An error where values appear that no class has; where all are declared, training would not even refuse them."""
    refused = [facts for facts in pairs if classes is not None and class_pixels(facts.mask, classes)[1]]
    doubtful = [facts for facts in pairs if classes is None or not class_pixels(facts.mask, classes)[1]]
    groups: tuple[tuple[Severity, list[PairFacts]], ...] = (("error", refused), ("warning", doubtful))
    cure = "make them anew; resize masks with nearest neighbour, draw them without anti-aliasing, save them as PNG"
    return [
        of_masks(
            severity,
            "smeared-mask",
            f"values in between along the borders, as interpolation or JPEG makes them, in {the_masks(group)}",
            cure,
            group,
        )
        for severity, group in groups
        if group
    ]


def _problems(pairs: Sequence[PairFacts]) -> list[Finding]:
    """Masks that cannot be read, by reason; lossy ones apart."""
    findings = []
    lossy = [facts for facts in pairs if facts.mask.lossy]
    if lossy:
        message = f"JPEG or lossy WebP, which change label values, in {the_masks(lossy)}"
        cure = (
            "make them anew from their source and save them as PNG; converting the files does not bring the values back"
        )
        findings.append(of_masks("error", "lossy-mask", message, cure, lossy))
    reasons: dict[tuple[str, str], list[PairFacts]] = {}
    for facts in pairs:
        if facts.mask.problem and not facts.mask.lossy:
            reasons.setdefault(reason_and_cure(facts.mask.problem, str(facts.pair.mask)), []).append(facts)
    return findings + [
        of_masks("error", "unreadable-mask", f"{the_masks(group)}: {reason}", cure, group)
        for (reason, cure), group in reasons.items()
    ]


def _undeclared(pairs: Sequence[PairFacts], classes: Classes | None, colours: bool) -> list[Finding]:
    """Values that no class has, over all masks of ids or of colours. Without classes, every id will be one."""
    pixels: Counter[int] = Counter()
    masks: Counter[int] = Counter()
    guilty = []
    for facts in pairs:
        if facts.mask.colours != colours or (classes is None and not colours):
            continue
        unknown = facts.mask.values or {} if classes is None else class_pixels(facts.mask, classes)[1]
        if unknown:
            pixels.update(unknown)
            masks.update(unknown.keys())
            guilty.append(facts)
    if not guilty:
        return []
    found = [
        f"{colour_name(value) if colours else value} ({count} pixels in {masks[value]} mask{'s'[: masks[value] - 1]})"
        for value, count in pixels.most_common()
    ]
    kind = "colours" if colours else "ids"
    message = f"{kind} that no class has in {the_masks(guilty)}: {listed(found, _SHOWN)}"
    cure = _colour_cure(classes) if colours else _id_cure(sorted(pixels), guilty, classes)
    return [of_masks("error", f"undeclared-{kind}", message, cure, guilty)]


def _colour_cure(classes: Classes | None) -> str:
    if classes is None or not classes.declared_palette:
        return 'write classes.json with {"classes": [NAME, ...], "palette": [[R, G, B], ...]}, one colour per class'
    return 'add them to classes.json under "palette", or as "ignore_color" the one that does not count'


def _id_cure(values: list[int], guilty: Sequence[PairFacts], classes: Classes | None) -> str:
    """What to do, with a guess at why the ids are what they are."""
    count = 0 if classes is None else len(classes)
    if classes is not None and classes.values is None:
        if values == [count]:
            return f'if the ids begin at 1, map 1 to {count} in classes.json under "values", and 0 to null'
        present = {value for facts in guilty for value in facts.mask.values or {}} - {0, classes.ignore} | {*values}
        step = min(present)
        if count > 1 and step > 1 and all(value % step == 0 and value // step < count for value in present):
            return f"they are multiples of {step}, as in masks made to be looked at: divide by {step}"
    return 'map them in classes.json under "values", or set "ignore" to the one that does not count'


def _kinds(pairs: Sequence[PairFacts]) -> list[Finding]:
    coloured = [facts for facts in pairs if facts.mask.colours]
    if not coloured or len(coloured) == len(pairs):
        return []
    fewer = coloured if 2 * len(coloured) <= len(pairs) else [facts for facts in pairs if not facts.mask.colours]
    message = f"{len(coloured)} masks of RGB colours among {len(pairs) - len(coloured)} of ids"
    cure = "look whether they come from the same source, and save all as ids"
    return [of_masks("warning", "mixed-masks", message, cure, fewer)]


def _ignored(pairs: Sequence[PairFacts], classes: Classes) -> list[Finding]:
    """Masks without or with hardly any label."""
    empty, poor = [], []
    for facts in pairs:
        known, unknown = class_pixels(facts.mask, classes)
        ignored, pixels = known.get(IGNORE, 0), sum(known.values()) + sum(unknown.values())
        if ignored == pixels:
            empty.append(facts)
        elif ignored > _MOSTLY_IGNORED * pixels:
            poor.append(facts)
    findings = []
    if empty:
        message = f"every pixel is ignored in {the_masks(empty)}"
        cure = "label them, or remove them: nothing is learnt from them"
        findings.append(of_masks("warning", "all-ignored", message, cure, empty))
    if poor:
        message = f"more than {_MOSTLY_IGNORED:.0%} ignored in {the_masks(poor)}"
        cure = "nothing to do, if these are labelled coarsely on purpose"
        findings.append(of_masks("note", "mostly-ignored", message, cure, poor))
    return findings


def _palettes(pairs: Sequence[PairFacts], classes: Classes) -> list[Finding]:
    """Palette PNGs whose own colours are those of other classes than their ids."""
    owners = {colour: number for number, colour in enumerate(classes.palette)}
    if not classes.declared_palette or len(owners) < len(classes):
        return []
    table = classes.lookup(256)
    swapped: Counter[tuple[int, int]] = Counter()
    guilty = []
    for facts in pairs:
        clashes = [
            (value, owners[colour])
            for value, colour in (facts.mask.palette or {}).items()
            if 0 <= table[value] < len(classes) and owners.get(colour, table[value]) != table[value]
        ]
        if clashes:
            swapped.update(clashes)
            guilty.append(facts)
    if not guilty:
        return []
    shown = [
        f"id {value} ({classes.names[table[value]]}) has the colour of {classes.names[other]}"
        for (value, other), _ in swapped.most_common()
    ]
    message = f"the file's own palette contradicts classes.json in {the_masks(guilty)}: {listed(shown, _SHOWN)}"
    cure = "look which is right; ids count, and the colours of palette files do not"
    return [of_masks("warning", "palette", message, cure, guilty)]
