"""What is wrong with single images and masks, whatever the rest of the set is like."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from asymseg.classes import IGNORE, Classes
from asymseg.data.audit.findings import Finding, Severity, counted
from asymseg.data.audit.scan import MaskFacts, PairFacts, class_pixels, colour_name
from asymseg.data.pairing import listed

_SHOWN = 5
_PICTURE = 4096
"""An RGB mask of so many colours is no mask."""

_FEW_BETWEEN = 30
_BETWEEN_SHARE = 0.8
_BETWEEN_TRANSITIONS = 0.2
_BETWEEN_VALUES = 2
_SMEARED_VALUES = 8
_SMEARED_SHARE = 0.2
_MOSTLY_IGNORED = 0.95


def image_findings(pairs: Sequence[PairFacts]) -> list[Finding]:
    """Images that cannot be read, are turned, show nothing, or are of another kind than the rest."""
    findings = _problems([(facts, facts.pair.image, facts.image.problem) for facts in pairs], "unreadable-image")
    readable = [facts for facts in pairs if not facts.image.problem]
    findings += _grouped(
        "warning",
        "constant-image",
        [facts for facts in readable if facts.image.constant],
        lambda names: f"every pixel is the same in {counted(names, 'the image', 'images')}",
        "look whether they were written whole; remove what shows nothing",
        lambda facts: facts.pair.image,
    )
    findings += _turned(readable)
    kinds = Counter(facts.image.form for facts in readable)
    if len(kinds) > 1 and kinds:
        usual, _ = kinds.most_common(1)[0]
        odd = [facts for facts in readable if facts.image.form != usual]
        message = "images of several kinds: " + ", ".join(f"{count} {form}" for form, count in kinds.most_common())
        cure = "nothing to do, if every split has its share of each kind"
        findings.append(Finding("note", "mixed-images", message, cure, tuple(facts.pair.image for facts in odd)))
    return findings


def mask_findings(pairs: Sequence[PairFacts], classes: Classes | None) -> list[Finding]:
    """Masks that cannot be read, hold what no class has, are smeared, of the wrong size, or empty."""
    findings = _problems(
        [(facts, facts.pair.mask, facts.mask.problem) for facts in pairs if not facts.mask.lossy], "unreadable-mask"
    )
    findings += _grouped(
        "error",
        "lossy-mask",
        [facts for facts in pairs if facts.mask.lossy],
        lambda names: f"JPEG or lossy WebP, which change label values, in {counted(names, 'the mask', 'masks')}",
        "make them anew from their source and save them as PNG; converting the files does not bring the values back",
        _mask_path,
    )
    readable = [facts for facts in pairs if not facts.mask.problem]
    findings += _sizes(readable)
    pictures = [facts for facts in readable if facts.mask.colours and facts.mask.distinct > _PICTURE]
    findings += _grouped(
        "error",
        "picture-as-mask",
        pictures,
        lambda names: f"a picture of thousands of colours instead of labels in {counted(names, 'the mask', 'masks')}",
        "put the labels there",
        _mask_path,
    )
    labels = [facts for facts in readable if facts not in pictures] if pictures else readable
    smeared = [facts for facts in labels if is_smeared(facts.mask, classes)]
    findings += _grouped(
        "error",
        "smeared-mask",
        smeared,
        lambda names: (
            "values in between along the borders of regions, as interpolation or JPEG makes them, in "
            + counted(names, "the mask", "masks")
        ),
        "make them anew; resize masks with nearest neighbour alone, draw them without anti-aliasing, save them as PNG",
        _mask_path,
    )
    whole = [facts for facts in labels if facts not in smeared] if smeared else labels
    findings += _undeclared(whole, classes) + _kinds(whole)
    if classes is not None:
        findings += _ignored(whole, classes) + _palettes(whole, classes)
    return findings


def is_smeared(mask: MaskFacts, classes: Classes | None) -> bool:
    """Whether the values along borders come from interpolation or lossy compression and not from a label tool."""
    triples = mask.between + mask.outside
    interpolated = (
        mask.between >= _FEW_BETWEEN
        and mask.between_values >= _BETWEEN_VALUES
        and mask.between >= _BETWEEN_SHARE * triples
        and mask.between >= _BETWEEN_TRANSITIONS * mask.transitions
    )
    if interpolated or classes is None or (mask.colours and not classes.declared_palette):
        return interpolated
    known, unknown = class_pixels(mask, classes)
    pixels = sum(known.values()) + sum(unknown.values())
    return len(unknown) >= _SMEARED_VALUES and 0 < sum(unknown.values()) < _SMEARED_SHARE * pixels


def _problems(problems: Iterable[tuple[PairFacts, Path, str]], kind: str) -> list[Finding]:
    """One finding for each reason why files cannot be read."""
    reasons: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for facts, path, problem in problems:
        if problem:
            reason, _, cure = problem.removeprefix(f"{path}: ").rpartition("; ")
            reasons.setdefault((reason or cure, cure), []).append((facts.name, path))
    return [
        Finding(
            "error",
            kind,
            f"{counted([name for name, _ in files], kind.split('-')[1], kind.split('-')[1] + 's')}: {reason}",
            cure,
            tuple(path for _, path in files),
        )
        for (reason, cure), files in reasons.items()
    ]


def _turned(pairs: Sequence[PairFacts]) -> list[Finding]:
    """Images turned by an EXIF entry whose masks fit either way; where they fit one way, the sizes tell."""
    unclear = [facts for facts in pairs if facts.image.orientation != 1 and facts.mask.orientation == 1]
    fitting = [facts for facts in unclear if facts.mask.size == facts.image.size]
    doubtful = [facts for facts in fitting if facts.image.orientation < 5 or _is_square(facts)]
    return _grouped(
        "warning",
        "turned-image",
        doubtful,
        lambda names: (
            "an EXIF entry turns or mirrors, and the size cannot tell whether the mask was drawn on the "
            f"turned picture, {counted(names, 'the image', 'images')}"
        ),
        "look at the overlays; if a mask does not fit, save its image without the EXIF entry",
        lambda facts: facts.pair.image,
    )


def _sizes(pairs: Sequence[PairFacts]) -> list[Finding]:
    """Masks of another size than their images, by why that may be."""
    reasons: dict[tuple[str, str], list[PairFacts]] = {}
    for facts in pairs:
        if facts.image.size is not None and facts.mask.size is not None and facts.image.size != facts.mask.size:
            reasons.setdefault(_size_reason(facts.image.size, facts.mask.size, facts.image.orientation), []).append(
                facts
            )
    findings = []
    for (reason, cure), group in reasons.items():
        image, mask = group[0].image.size or (0, 0), group[0].mask.size or (0, 0)
        names = counted([facts.name for facts in group], "the mask", "masks")
        message = (
            f"{reason} in {names}: {mask[0]} x {mask[1]} pixels (height x width), the image {image[0]} x {image[1]}"
        )
        findings.append(Finding("error", "size", message, cure, tuple(facts.pair.mask for facts in group)))
    return findings


def _size_reason(image: tuple[int, int], mask: tuple[int, int], orientation: int) -> tuple[str, str]:
    if mask == (image[1], image[0]) and orientation >= 5:
        cure = "turn the masks as the EXIF entry says, or save the images without that entry"
        return "the image is turned by its EXIF entry and the mask is not", cure
    if mask == (image[1], image[0]):
        return "the mask lies on its side", "turn the masks by 90 degrees, the way the images are"
    if abs(image[0] * mask[1] - image[1] * mask[0]) <= max(*image, *mask):
        return "another size of the same shape", "resize the images to their masks, or the masks with nearest neighbour"
    return "another size", "make both the same size; look whether the mask belongs to the image"


def _undeclared(pairs: Sequence[PairFacts], classes: Classes | None) -> list[Finding]:
    """Values that no class has, over all masks; for ids and for colours."""
    findings = []
    for colours in (False, True):
        pixels: Counter[int] = Counter()
        masks: Counter[int] = Counter()
        files = []
        for facts in pairs:
            if facts.mask.colours != colours or (classes is None and not colours):
                continue
            unknown = facts.mask.values or {} if classes is None else class_pixels(facts.mask, classes)[1]
            if unknown:
                pixels.update(unknown)
                masks.update(unknown.keys())
                files.append(facts)
        if not files:
            continue
        tell = colour_name if colours else str
        found = [
            f"{tell(value)} ({count} pixels in {masks[value]} mask{'s' if masks[value] > 1 else ''})"
            for value, count in pixels.most_common()
        ]
        kind = "undeclared-colours" if colours else "undeclared-ids"
        names = counted([facts.name for facts in files], "the mask", "masks")
        message = f"{'colours' if colours else 'ids'} that no class has in {names}: {listed(found, _SHOWN)}"
        cure = _colour_cure(classes) if colours else _id_cure(sorted(pixels), classes)
        findings.append(Finding("error", kind, message, cure, tuple(facts.pair.mask for facts in files)))
    return findings


def _colour_cure(classes: Classes | None) -> str:
    if classes is None or not classes.declared_palette:
        return 'write classes.json with {"classes": [NAME, ...], "palette": [[R, G, B], ...]}, one colour per class'
    return 'add them to classes.json under "palette", or as "ignore_color" the one that does not count'


def _id_cure(values: list[int], classes: Classes | None) -> str:
    count = 0 if classes is None else len(classes)
    if classes is not None and classes.values is None:
        if values == [count]:
            return f'do the ids begin at 1? then map 1 to {count} in classes.json under "values", and 0 to null'
        step = values[0]
        if count > 1 and step > 1 and all(value % step == 0 and value // step < count for value in values):
            return f"they are multiples of {step}, as masks made to be looked at: divide by {step}, or map them in " + (
                'classes.json under "values"'
            )
    return 'map them in classes.json under "values", or set "ignore" to the one that does not count'


def _kinds(pairs: Sequence[PairFacts]) -> list[Finding]:
    coloured = [facts for facts in pairs if facts.mask.colours]
    if not coloured or len(coloured) == len(pairs):
        return []
    fewer = coloured if 2 * len(coloured) <= len(pairs) else [facts for facts in pairs if not facts.mask.colours]
    message = f"{len(coloured)} masks of RGB colours among {len(pairs) - len(coloured)} of ids"
    cure = "look whether they come from the same source, and save all as ids"
    return [Finding("warning", "mixed-masks", message, cure, tuple(facts.pair.mask for facts in fewer))]


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
    return _grouped(
        "warning",
        "all-ignored",
        empty,
        lambda names: f"every pixel is ignored in {counted(names, 'the mask', 'masks')}",
        "label them, or remove them: nothing is learnt from them",
        _mask_path,
    ) + _grouped(
        "note",
        "mostly-ignored",
        poor,
        lambda names: f"more than {_MOSTLY_IGNORED:.0%} ignored in {counted(names, 'the mask', 'masks')}",
        "nothing to do, if these are labelled coarsely on purpose",
        _mask_path,
    )


def _palettes(pairs: Sequence[PairFacts], classes: Classes) -> list[Finding]:
    """Palette PNGs whose own colours are those of other classes than their ids."""
    if not classes.declared_palette:
        return []
    owners = {colour: number for number, colour in enumerate(classes.palette)}
    if len(owners) < len(classes):
        return []
    table = classes.lookup(256)
    swapped: Counter[tuple[int, int]] = Counter()
    files = []
    for facts in pairs:
        clashes = [
            (value, owners[colour])
            for value, colour in (facts.mask.palette or {}).items()
            if 0 <= value < 256
            and 0 <= table[value] < len(classes)
            and owners.get(colour, table[value]) != table[value]
        ]
        if clashes:
            swapped.update(clashes)
            files.append(facts)
    shown = [
        f"id {value} ({classes.names[table[value]]}) has the colour of {classes.names[other]}"
        for (value, other), _ in swapped.most_common()
    ]
    return _grouped(
        "warning",
        "palette",
        files,
        lambda names: (
            f"the file's own palette contradicts classes.json in {counted(names, 'the mask', 'masks')}: "
            + listed(shown, _SHOWN)
        ),
        "look which is right; the ids count, and colours of palette files do not",
        _mask_path,
    )


def _grouped(
    severity: Severity,
    kind: str,
    pairs: Sequence[PairFacts],
    message: Callable[[list[str]], str],
    cure: str,
    path: Callable[[PairFacts], Path],
) -> list[Finding]:
    """One finding for all `pairs`, or none."""
    if not pairs:
        return []
    return [
        Finding(severity, kind, message([facts.name for facts in pairs]), cure, tuple(path(facts) for facts in pairs))
    ]


def _mask_path(facts: PairFacts) -> Path:
    return facts.pair.mask


def _is_square(facts: PairFacts) -> bool:
    return facts.image.size is not None and facts.image.size[0] == facts.image.size[1]
