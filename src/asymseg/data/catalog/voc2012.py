"""PASCAL VOC 2012: background and 20 objects; with SBD (Hariharan et al., ICCV 2011) 10,582 training images."""

from dataclasses import replace
from pathlib import Path

from asymseg.data.catalog.folders import files_by_stem, need_files, not_there, optional_folder, read_list
from asymseg.data.catalog.mat_files import MatLabels
from asymseg.data.pairing import DataSet, Origin, Pair, Unlabelled
from asymseg.model.foreign.known_classes import VOC2012 as CLASSES

ORIGIN = Origin(
    name="voc2012",
    protocol="mean IoU over 21 classes, background among them, on the 1,449 val images at their own size; 255, the "
    "border of objects, counts nowhere",
    source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012: VOCtrainval_11-May-2012.tar",
    licence="images from Flickr, under Flickr's terms of use",
)
AUG = replace(
    ORIGIN,
    name="voc2012-aug",
    source=f"{ORIGIN.source}; http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours: "
    "benchmark.tgz",
)

_EXPECTED = (
    "VOCdevkit/VOC2012 with JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val}.txt"
)
_EXPECTED_SBD = (
    "SBD beside it, benchmark_RELEASE/dataset with cls/*.mat, train.txt and val.txt; or its converted form, "
    "SegmentationClassAug/*.png in VOC2012"
)
_SBD = ("benchmark_RELEASE/dataset", "benchmark/dataset", "SBD/dataset", "sbd/dataset", "sbd", "SBD", "dataset")


def open_voc2012(root: Path) -> DataSet:
    """train (1,464), val (1,449) and, where its images are there, test without labels."""
    place = _devkit(root)
    images, masks = _files(place)
    splits = {
        split: tuple(Pair(name, images[name], masks[name]) for name in _names(place, split, images, masks))
        for split in ("train", "val")
    }
    if not (place / "ImageSets/Segmentation/test.txt").is_file():
        return DataSet(CLASSES, splits, (), ORIGIN)
    test = tuple(
        Unlabelled(name, images[name])
        for name in read_list(place / "ImageSets/Segmentation/test.txt")
        if name in images
    )
    return DataSet(CLASSES, splits, (), ORIGIN, {"test": test} if test else {})


def open_trainaug(root: Path) -> DataSet:
    """val as it is; train is trainaug: VOC's own masks, and SBD's of all its other images but those of val.

    SBD's own parts overlap with VOC's val, so that taken as they are they would leak.
    """
    plain = open_voc2012(root)
    place = _devkit(root)
    images, _ = _files(place)
    taken = {pair.name for pairs in plain.splits.values() for pair in pairs}
    places = (place, place.parent, place.parent.parent)
    sbd = next((found for base in places if (found := _sbd_below(base)) is not None), None)
    if sbd is not None:
        masks, labels, how = files_by_stem(sbd / "cls", ".mat"), MatLabels("GTcls", "Segmentation"), "SBD's .mat files"
        listed = {name for part in ("train.txt", "val.txt") for name in read_list(sbd / part)}
        images = {**files_by_stem(sbd / "img", ".jpg"), **images}
    else:
        converted = optional_folder(place, ["SegmentationClassAug"])
        if converted is None:
            raise not_there(root, _EXPECTED_SBD)
        masks, labels, how = files_by_stem(converted, ".png"), None, f"the converted masks in {converted.name}"
        listed = set(masks)
    extra = sorted(listed - taken)
    need_files(masks, extra, sbd or place, "mask of SBD")
    need_files(images, extra, place / "JPEGImages", "JPEG")
    train = (*plain.splits["train"], *(Pair(name, images[name], masks[name], labels=labels) for name in extra))
    leaks = len(listed & {pair.name for pair in plain.splits["val"]})
    notes = (
        f"train: trainaug, {len(plain.splits['train'])} of VOC and {len(extra)} more from {how}",
        *([f"train: {leaks} images of VOC's val left out, which SBD has among its own"] if leaks else []),
    )
    return DataSet(CLASSES, {**plain.splits, "train": train}, notes, AUG, plain.unlabelled)


def _devkit(root: Path) -> Path:
    for place in (
        root,
        root / "VOC2012",
        root / "VOCdevkit/VOC2012",
        root / "VOCtrainval_11-May-2012/VOCdevkit/VOC2012",
    ):
        if (place / "SegmentationClass").is_dir() and (place / "JPEGImages").is_dir():
            return place
    raise not_there(root, _EXPECTED)


def _sbd_below(base: Path) -> Path | None:
    return next((base / name for name in _SBD if (base / name / "cls").is_dir()), None)


def _files(place: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    return files_by_stem(place / "JPEGImages", ".jpg"), files_by_stem(place / "SegmentationClass", ".png")


def _names(place: Path, split: str, images: dict[str, Path], masks: dict[str, Path]) -> tuple[str, ...]:
    names = read_list(place / "ImageSets/Segmentation" / f"{split}.txt")
    need_files(images, names, place / "JPEGImages", "JPEG")
    need_files(masks, names, place / "SegmentationClass", "PNG")
    return names
