"""What is wrong with single images, and with masks that do not fit theirs."""

from collections import Counter
from collections.abc import Sequence

from asymseg.data.audit.findings import Finding, of_images, of_masks, the_images, the_masks
from asymseg.data.audit.scan import PairFacts


def image_findings(pairs: Sequence[PairFacts]) -> list[Finding]:
    """Images that cannot be read, are turned, show nothing, or are of another kind than the rest."""
    findings = [
        of_images("error", "unreadable-image", f"{the_images(group)}: {reason}", cure, group)
        for (reason, cure), group in _by_reason(pairs).items()
    ]
    readable = [facts for facts in pairs if not facts.image.problem]
    constant = [facts for facts in readable if facts.image.constant]
    if constant:
        message = f"every pixel is the same in {the_images(constant)}"
        cure = "look whether they were written whole; remove what shows nothing"
        findings.append(of_images("warning", "constant-image", message, cure, constant))
    doubtful = [facts for facts in readable if _may_be_turned(facts)]
    if doubtful:
        message = (
            f"an EXIF entry turns or mirrors {the_images(doubtful)}; the size cannot tell whether the mask is turned"
        )
        cure = "look at the overlays; if a mask does not fit, save its image without the EXIF entry"
        findings.append(of_images("warning", "turned-image", message, cure, doubtful))
    kinds = Counter(facts.image.form for facts in readable)
    if len(kinds) > 1:
        (usual, _), *_ = kinds.most_common(1)
        odd = [facts for facts in readable if facts.image.form != usual]
        message = "images of several kinds: " + ", ".join(f"{count} {form}" for form, count in kinds.most_common())
        cure = "nothing to do, if every split has its share of each kind"
        findings.append(of_images("note", "mixed-images", message, cure, odd))
    return findings


def size_findings(pairs: Sequence[PairFacts]) -> list[Finding]:
    """Masks of another size than their images, by why that may be."""
    reasons: dict[tuple[str, str], list[PairFacts]] = {}
    for facts in pairs:
        image, mask = facts.image.size, facts.mask.size
        if image is not None and mask is not None and image != mask:
            reasons.setdefault(_size_reason(image, mask, facts.image.orientation), []).append(facts)
    findings = []
    for (reason, cure), group in reasons.items():
        image, mask = group[0].image.size or (0, 0), group[0].mask.size or (0, 0)
        sizes = f"{mask[0]} x {mask[1]} pixels (height x width), the image {image[0]} x {image[1]}"
        message = f"{the_masks(group)}: {reason}, {sizes}"
        findings.append(of_masks("error", "size", message, cure, group))
    return findings


def reason_and_cure(problem: str, path: str) -> tuple[str, str]:
    """The two halves of the message of a DataError, without the file's name."""
    reason, _, cure = problem.removeprefix(f"{path}: ").rpartition("; ")
    return (reason, cure) if reason else (cure, "look at the file")


def _by_reason(pairs: Sequence[PairFacts]) -> dict[tuple[str, str], list[PairFacts]]:
    reasons: dict[tuple[str, str], list[PairFacts]] = {}
    for facts in pairs:
        if facts.image.problem:
            reasons.setdefault(reason_and_cure(facts.image.problem, str(facts.pair.image)), []).append(facts)
    return reasons


def _may_be_turned(facts: PairFacts) -> bool:
    """Whether an image is turned by EXIF, its mask is not, and the sizes fit either way. Else the sizes tell."""
    image, mask = facts.image, facts.mask
    if image.orientation == 1 or mask.orientation != 1 or image.size is None or image.size != mask.size:
        return False
    return image.orientation < 5 or image.size[0] == image.size[1]


def _size_reason(image: tuple[int, int], mask: tuple[int, int], orientation: int) -> tuple[str, str]:
    if mask == (image[1], image[0]) and orientation >= 5:
        cure = "turn the masks as the EXIF entry says, or save the images without that entry"
        return "not turned as the EXIF entry of the image says", cure
    if mask == (image[1], image[0]):
        return "on its side", "turn the masks by 90 degrees, the way the images are"
    if abs(image[0] * mask[1] - image[1] * mask[0]) <= max(*image, *mask):
        return (
            "of another size but the same shape",
            "resize the images to their masks, or the masks with nearest neighbour",
        )
    return "of another size", "make both the same size; look whether the mask belongs to the image"
