"""Which files belong together, when some have no counterpart: what `open_dataset` refuses is told and left out here."""

from dataclasses import dataclass
from pathlib import Path

from asymseg.classes import Classes, unread_keys
from asymseg.data.audit.findings import Finding, counted
from asymseg.data.dataset import SPLITS, DataSet, hold_out
from asymseg.data.decoding import IMAGE_SUFFIXES
from asymseg.data.pairing import FolderFiles, Pair, is_data, listed, naming_hint, search
from asymseg.errors import DataError

_SHOWN = 5
_LAYOUT = "expected DATA/images/train/NAME.jpg with DATA/masks/train/NAME.png, and likewise val and test"


@dataclass(frozen=True)
class Listing:
    """The pairs of each split, the declared classes, and what is wrong with the names and folders."""

    where: Path
    """The folder of masks, for messages."""
    classes: Classes | None
    splits: dict[str, tuple[Pair, ...]]
    findings: tuple[Finding, ...]


def list_dataset(dataset: DataSet) -> Listing:
    """What a data set that could be opened consists of."""
    first = next((pair for pairs in dataset.splits.values() for pair in pairs), None)
    if first is None:
        raise DataError("a data set without images; there is nothing to check")
    notes = (Finding("note", "reading", note, "nothing to do, if that is what you want") for note in dataset.notes)
    return Listing(first.mask.parent, dataset.classes, dataset.splits, tuple(notes))


def list_folders(root: Path | None, images: Path | None, masks: Path | None, holdout: float) -> Listing:
    """The pairs below `root`, or below `images` and `masks`, as `open_dataset` finds them.

    Raises DataError only where there is nothing to look at.
    """
    if (root is None) == (images is None and masks is None):
        raise DataError("give either one data folder, or a folder of images and one of masks")
    if root is not None:
        images, masks = root / "images", root / "masks"
    if images is None or masks is None:
        raise DataError("a folder of images and one of masks go together; give both")
    for folder in (*([root] if root is not None else []), images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}; {_LAYOUT}")
    findings: list[Finding] = []
    classes = _declared_classes([*([root] if root is not None else []), masks.parent, masks], findings)
    splits = {
        split: pairs
        for split, place, counterpart in _split_folders(images, masks, findings)
        if (pairs := _pair(search(place), search(counterpart), place, counterpart, findings))
    }
    if not splits and not findings:
        raise DataError(f"{images}: no images; use {', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}")
    if "train" in splits and "val" not in splits:
        splits, note = hold_out(splits, holdout)
        findings.append(Finding("note", "held-out", note, "make images/val and masks/val to choose them yourself"))
    return Listing(masks, classes, splits, tuple(findings))


def _declared_classes(places: list[Path], findings: list[Finding]) -> Classes | None:
    path = next((place / "classes.json" for place in places if (place / "classes.json").is_file()), None)
    if path is None:
        return None
    try:
        classes = Classes.from_file(path)
        for note in unread_keys(path):
            message, _, cure = note.partition("; ")
            findings.append(Finding("note", "unread-key", message, f"nothing to do, if that is for others; {cure}"))
        return classes
    except DataError as error:
        message, _, cure = str(error).partition("; ")
        findings.append(Finding("error", "class-list", message, cure or "docs/data.md shows the form", (path,)))
        return None


def _split_folders(images: Path, masks: Path, findings: list[Finding]) -> list[tuple[str, Path, Path]]:
    """Split, folder of images and folder of masks of each part that has both."""
    present = [split for split in SPLITS if (images / split).is_dir()]
    if not present:
        return [("train", images, masks)]
    beside = [entry.name for entry in sorted(images.iterdir()) if is_data(entry.name) and entry.name not in present]
    if beside:
        message = f"{images}: {listed(beside, _SHOWN)} beside {', '.join(present)} is not read"
        findings.append(Finding("note", "left-out", message, "move it into one of them, or away"))
    for split in SPLITS:
        if (masks / split).is_dir() and split not in present:
            message = f"{masks / split}: masks without a folder {images / split}"
            findings.append(Finding("error", "missing-image", message, f"put their images into {images / split}"))
    folders = []
    for split in present:
        if (masks / split).is_dir():
            folders.append((split, images / split, masks / split))
        elif split == "test":
            message = f"{images / split}: left out, for there are no masks {masks / split}"
            findings.append(Finding("note", "left-out", message, "nothing to do, if the test labels are not public"))
        else:
            message = f"{masks / split}: no such folder"
            findings.append(Finding("error", "missing-mask", message, f"put the masks of {images / split} there"))
    return folders


def _pair(
    found_images: FolderFiles, found_masks: FolderFiles, images: Path, masks: Path, findings: list[Finding]
) -> tuple[Pair, ...]:
    """The pairs of one part; what has no counterpart becomes a finding."""
    for found in (found_images, found_masks):
        for one, other in found.clashes:
            message = f"{one}: has the same name as {other}, which is not looked at"
            findings.append(Finding("error", "same-name", message, "keep one of them, or rename it", (one, other)))
    pictures, labels = found_images.files, found_masks.files
    lonely = [name for name in pictures if name not in labels]
    surplus = [name for name in labels if name not in pictures]
    if lonely:
        message = f"{masks}: no mask for {counted(lonely, 'the image', f'of {len(pictures)} images')}"
        hints = [_other_spelling(lonely, surplus), _other_suffix(found_masks)]
        cure = (naming_hint(list(pictures), labels) if labels else "") or "; ".join(filter(None, hints))
        cure = cure or "add them, or remove the images"
        findings.append(Finding("error", "missing-mask", message, cure, tuple(pictures[name] for name in lonely)))
    if surplus:
        message = f"{images}: no image for {counted(surplus, 'the mask', f'of {len(labels)} masks')}"
        cure = _other_suffix(found_images) or "add them, or remove the masks"
        findings.append(Finding("error", "missing-image", message, cure, tuple(labels[name] for name in surplus)))
    return tuple(Pair(name, path, labels[name]) for name, path in pictures.items() if name in labels)


def _other_spelling(lonely: list[str], surplus: list[str]) -> str:
    """What to rename where names differ by capitals alone."""
    spelt = {name.casefold(): name for name in surplus}
    same = [(name, spelt[name.casefold()]) for name in lonely if name.casefold() in spelt]
    return f"names differ by capitals alone, as in {same[0][0]} and {same[0][1]}: spell them alike" if same else ""


def _other_suffix(found: FolderFiles) -> str:
    """What to convert where a folder holds files that are no images to us."""
    if not found.strange:
        return ""
    return f"the folder holds {listed(list(found.strange), _SHOWN)}, which is not read: save as PNG, or add them"
