"""Images and masks that occur more than once: the same pixels, or the same picture saved anew, resized or mirrored."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from asymseg.data.audit.findings import Finding, Severity, of_images, of_masks
from asymseg.data.audit.scan import PairFacts
from asymseg.data.pairing import listed

DIFFERENCE = 1.6
"""Root mean square of the grey levels by which two thumbnails of one picture differ at most.

JPEG of low quality and other sizes stay below. So do some neighbouring frames of a camera that stands still, which no
limit tells from a picture saved anew: within a split such copies are only noted.
"""

_OF_CONTRAST = 0.1
"""The same as a share of the thumbnail's own standard deviation: pictures of hardly any contrast are not all alike."""

_LARGEST = 12
"""Grey levels by which any one part of the thumbnails may differ."""

_SHOWN = 4
_MOST_LINKS = 100_000


def copy_findings(pairs: Sequence[PairFacts], near: bool = True) -> list[Finding]:
    """Images that occur more than once, masks that do with different images, and masks that contradict each other."""
    readable = [facts for facts in pairs if facts.image.digest and not facts.image.constant]
    exact = _same(readable, lambda facts: facts.image.digest)
    findings = _told(exact, "duplicate", "the same pixels", "warning", "warning")
    findings += _contradictions(exact)
    links: list[tuple[int, int]] = []
    if near:
        first = [group[0] for group in _same(readable, lambda facts: facts.image.digest, alone=True)]
        thumbnails = [facts.image.thumbnail for facts in first if facts.image.thumbnail is not None]
        links = near_copies(np.stack(thumbnails)) if thumbnails else []
        close = [[first[number] for number in group] for group in _joined(len(first), links)]
        words = "the same picture but for resizing, mirroring or compression, or frames of a film"
        findings += _told(close, "near-duplicate", words, "warning", "note")
    else:
        close = []
    return findings + _repeated_masks(pairs, exact + close)


def near_copies(thumbnails: UInt8[np.ndarray, "n h w"]) -> list[tuple[int, int]]:
    """Pairs of numbers, the smaller first, of thumbnails that show the same picture, as it is or mirrored.

    Mean, contrast and rows' means stay the same when a picture is mirrored, and differ by no more than the pictures do.
    Sorted by the first and compared by the others, few are left to be compared as a whole.
    """
    pictures = thumbnails.astype(np.float32)
    rows = pictures.mean(axis=2)  # n h
    means = rows.mean(axis=1)
    contrasts = pictures.std(axis=(1, 2))
    limits = np.minimum(DIFFERENCE, _OF_CONTRAST * contrasts)
    order = np.argsort(means, kind="stable")
    sorted_means, sorted_contrasts = means[order], contrasts[order]
    links = []
    for place, number in enumerate(order.tolist()):
        end = int(np.searchsorted(sorted_means, sorted_means[place] + limits[number], side="right"))
        limit = limits[number]
        near = np.flatnonzero(np.abs(sorted_contrasts[place + 1 : end] - contrasts[number]) <= limit)
        candidates = order[place + 1 + near]
        candidates = candidates[np.square(rows[candidates] - rows[number]).mean(axis=1) <= limit**2]
        if len(candidates) == 0:
            continue
        nearer = np.minimum(limits[candidates], limit)
        alike = candidates[_alike(pictures[candidates], pictures[number], nearer)]
        links += [(min(number, other), max(number, other)) for other in alike.tolist()]
        if len(links) > _MOST_LINKS:  # a film of a wall: what is known by now says it
            break
    return sorted(links)


def _alike(
    others: Float[np.ndarray, "n h w"], picture: Float[np.ndarray, "h w"], limits: Float[np.ndarray, " n"]
) -> np.ndarray:
    """Which of the others show the picture or its mirror image."""
    found = np.zeros(len(others), dtype=bool)
    for version in (picture, picture[:, ::-1]):
        apart = np.abs(others - version)
        mean_square = np.square(apart).mean(axis=(1, 2))
        found |= (mean_square <= limits**2) & (apart.max(axis=(1, 2), initial=0) <= _LARGEST)
    return found


def _same(pairs: Iterable[PairFacts], key: Callable[[PairFacts], bytes], alone: bool = False) -> list[list[PairFacts]]:
    """Groups of different files with the same key; with `alone` also those of one."""
    groups: dict[bytes, list[PairFacts]] = {}
    for facts in pairs:
        groups.setdefault(key(facts), []).append(facts)
    return [group for group in groups.values() if alone or len({facts.pair for facts in group}) > 1]


def _joined(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """What hangs together by the links, as groups of at least two."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    linked = set()
    for one, other in links:
        parent[root(other)] = root(one)
        linked |= {one, other}
    groups: dict[int, list[int]] = {}
    for number in sorted(linked):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())


def _told(
    groups: Sequence[Sequence[PairFacts]], kind: str, words: str, across: Severity, within: Severity
) -> list[Finding]:
    """One finding for groups that lie in several splits, and one for those within one."""
    findings = []
    for severity, several in ((across, True), (within, False)):
        chosen = [group for group in groups if (len({facts.split for facts in group}) > 1) == several]
        if not chosen:
            continue
        shown = listed([" = ".join(facts.name for facts in group[:3]) for group in chosen], _SHOWN)
        count = sum(len(group) for group in chosen)
        place = "across splits" if several else "within a split"
        groups_of = f" in {len(chosen)} groups" if len(chosen) > 1 else ""
        message = f"{count} images{groups_of} {place} are {words}: {shown}"
        cure = "keep them in one split: scores on pictures that were learnt by heart are untrue"
        if not several:
            cure = "keep one of each" if kind == "duplicate" else "nothing to do, if they are frames of one film"
        members = [facts for group in chosen for facts in group]
        findings.append(of_images(severity, f"{kind}-{'across' if several else 'within'}", message, cure, members))
    return findings


def _contradictions(exact: Sequence[Sequence[PairFacts]]) -> list[Finding]:
    """The same image with different labels."""
    groups = [group for group in exact if len({facts.mask.digest for facts in group if not facts.mask.problem}) > 1]
    if not groups:
        return []
    shown = listed([" and ".join(facts.name for facts in group[:3]) for group in groups], _SHOWN)
    members = [facts for group in groups for facts in group]
    cure = "look which labels are right, and remove the others"
    return [of_masks("error", "contradiction", f"one image, different labels: {shown}", cure, members)]


def _repeated_masks(pairs: Sequence[PairFacts], alike: Sequence[Sequence[PairFacts]]) -> list[Finding]:
    """The same labels, of more than one value, for images that are not alike."""
    group_of = {facts.pair: number for number, group in enumerate(alike) for facts in group}
    labelled = [facts for facts in pairs if facts.mask.digest and facts.mask.distinct > 1 and facts.image.digest]
    groups = []
    for group in _same(labelled, lambda facts: facts.mask.digest):
        pictures = {group_of.get(facts.pair, facts.image.digest) for facts in group}
        if len(pictures) > 1:
            groups.append(group)
    if not groups:
        return []
    shown = listed([" = ".join(facts.name for facts in group[:3]) for group in groups], _SHOWN)
    members = [facts for group in groups for facts in group]
    cure = "look at the overlays: a mask was copied to another image"
    return [of_masks("warning", "repeated-mask", f"different images, the same labels: {shown}", cure, members)]
