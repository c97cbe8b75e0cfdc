"""Made-up miniatures of known data sets, in the layouts they are downloaded in."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32


def picture(path: Path, seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """An image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def stripes(values: Sequence[int], size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Raw ids in stripes from left to right, as many columns of each as fit."""
    columns = np.asarray(values)[np.arange(size[1]) * len(values) // size[1]]
    return np.broadcast_to(columns, size).copy()


def labels(path: Path, ids: np.ndarray, palette: bool = False) -> None:
    """A PNG of ids, perhaps as indices of a palette as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)


def cityscapes(root: Path, ids: Sequence[int] = tuple(range(34)), count: int = 2) -> Path:
    """Fine labels of train, val and, unfilled, test."""
    for split, city in (("train", "aachen"), ("val", "munster"), ("test", "berlin")):
        for number in range(count):
            stem = f"{city}_{number:06d}_000019"
            picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", number)
            mask = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
            labels(mask, np.full((HEIGHT, WIDTH), 3) if split == "test" else stripes(np.roll(ids, number)))
            for other in ("color", "instanceIds", "labelTrainIds"):
                labels(mask.with_name(f"{stem}_gtFine_{other}.png"), np.zeros((2, 2)))
            mask.with_name(f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def cityscapes_coarse(root: Path) -> Path:
    """Coarse labels of train, train_extra with its black image, and val."""
    for split, stem in (
        ("train", "aachen_000000_000019"),
        ("train_extra", "augsburg_000000_000000"),
        ("train_extra", "troisdorf_000000_000073"),
        ("val", "munster_000000_000019"),
    ):
        city = stem.partition("_")[0]
        picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", 1)
        labels(root / "gtCoarse" / split / city / f"{stem}_gtCoarse_labelIds.png", stripes((0, 7)))
    return root


def ade20k(root: Path, count: int = 2) -> Path:
    """Images of several sizes, one of them grey; ids from 0 to 150; test images without labels."""
    base = root / "ADEChallengeData2016"
    for part, name in (("training", "train"), ("validation", "val")):
        for number in range(1, count + 1):
            size = (HEIGHT, WIDTH + 8 * number)
            stem = f"ADE_{name}_{number:08d}"
            picture(base / "images" / part / f"{stem}.jpg", number, size)
            labels(base / "annotations" / part / f"{stem}.png", stripes((0, 1, number, 150), size))
    Image.new("L", (WIDTH + 8, HEIGHT), 99).save(base / "images/training/ADE_train_00000001.jpg")
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n")
    picture(root / "release_test" / "testing" / "ADE_test_00000001.jpg", 5)
    return root


def voc2012(root: Path) -> Path:
    """The devkit, and SBD beside it, whose lists hold images of VOC's train and val, too."""
    place = root / "VOCdevkit" / "VOC2012"
    own = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
    for number, stem in enumerate([*own["train"], *own["val"], "2008_000002", "2008_000003"]):
        picture(place / "JPEGImages" / f"{stem}.jpg", number)
    for split, stems in own.items():
        for stem in stems:
            labels(place / "SegmentationClass" / f"{stem}.png", stripes((0, 1, 255, 20)), palette=True)
        listed(place / "ImageSets" / "Segmentation" / f"{split}.txt", stems)
    return root


def sbd(root: Path) -> Path:
    """SBD as benchmark.tgz unpacks; its parts overlap with VOC's val."""
    from scipy.io import savemat

    base = root / "benchmark_RELEASE" / "dataset"
    (base / "cls").mkdir(parents=True)
    parts = {"train": ["2007_000032", "2008_000002"], "val": ["2007_000033", "2008_000003"]}
    for part, stems in parts.items():
        for stem in stems:
            ids = stripes((0, 15)).astype(np.uint8)
            savemat(base / "cls" / f"{stem}.mat", {"GTcls": {"Boundaries": 0, "Segmentation": ids, "Categories": 1}})
        listed(base / f"{part}.txt", stems)
    return root


def pascal_context(root: Path, form: str = "json") -> Path:
    """VOC 2010 with labels as the Detail API's JSON ("json"), as .mat files ("mat") or converted ("png")."""
    place = root / "VOCdevkit" / "VOC2010"
    stems = {"train": ["2008_000002", "2008_000003"], "val": ["2010_000001"]}
    for number, stem in enumerate([*stems["train"], *stems["val"]]):
        picture(place / "JPEGImages" / f"{stem}.jpg", number)
    original = stripes((0, 2, 458, 1))  # nothing, aeroplane, wood, and one of the other 400
    if form == "json":
        images = [
            {"image_id": int(stem.replace("_", "")), "file_name": f"{stem}.jpg", "phase": phase, "height": HEIGHT}
            | {"width": WIDTH, "data_source": "voc2010"}
            for phase, names in stems.items()
            for stem in names
        ]
        regions = [
            {"image_id": image["image_id"], "category_id": number, "segmentation": runs(original == number)}
            for image in images
            for number in (2, 458)
        ]
        (root / "trainval_merged.json").write_text(json.dumps({"images": images, "annos_segmentation": regions}))
    for split, names in stems.items():
        listed(place / "ImageSets" / "Main" / f"{split}.txt", [f"{name}" for name in names])
        if form == "png":
            listed(place / "ImageSets" / "SegmentationContext" / f"{split}.txt", names)
        for stem in names:
            if form == "mat":
                from scipy.io import savemat

                (root / "trainval").mkdir(exist_ok=True)
                savemat(root / "trainval" / f"{stem}.mat", {"LabelMap": original.astype(np.uint16)})
            if form == "png":
                labels(place / "SegmentationClassContext" / f"{stem}.png", stripes((0, 1, 59, 0)))
    return root


def coco_stuff(root: Path) -> Path:
    """164k: PNGs from 0 to 181 with 255, and a converted file that somebody has left beside one."""
    for split, stem in (("train2017", "000000000009"), ("train2017", "000000000025"), ("val2017", "000000000139")):
        picture(root / "images" / split / f"{stem}.jpg", 1)
        labels(root / "annotations" / split / f"{stem}.png", stripes((0, 10, 12, 181, 255)))
        labels(root / "annotations" / split / f"{stem}_labelTrainIds.png", stripes((0, 10, 11, 170, 255)))
    return root


def coco_stuff_10k(root: Path) -> Path:
    """10k: .mat files from 0 to 182."""
    from scipy.io import savemat

    (root / "annotations").mkdir(parents=True)
    stems = {"train": ["COCO_train2014_000000000077", "COCO_train2014_000000000110"]}
    stems["test"] = ["COCO_train2014_000000001204"]
    for part, names in stems.items():
        for stem in names:
            picture(root / "images" / f"{stem}.jpg", 1)
            savemat(root / "annotations" / f"{stem}.mat", {"S": stripes((0, 1, 13, 182)).astype(float), "captions": 1})
        listed(root / "imageLists" / f"{part}.txt", names)
    return root


def camvid_segnet(root: Path) -> Path:
    """SegNet's folders, with the lists that name its authors' own machine."""
    for split, stem in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        picture(root / "CamVid" / split / f"{stem}.png", 1)
        labels(root / "CamVid" / f"{split}annot" / f"{stem}.png", stripes((0, 4, 10, 11)))
        (root / "CamVid" / f"{split}.txt").write_text(f"/SegNet/CamVid/{split}/{stem}.png\n")
    return root


CAMVID_STRIPES = ((128, 128, 128), (0, 0, 192), (64, 128, 192), (0, 0, 0))
"""Sky, Sidewalk, SUVPickupTruck, Void."""


def camvid_original(root: Path, colours: Sequence[tuple[int, int, int]] = CAMVID_STRIPES) -> Path:
    """Frames of every sequence with labels in colours."""
    for stem in ("0001TP_008520", "0001TP_008550", "0006R0_f00930", "0016E5_07959", "0016E5_08640", "Seq05VD_f00000"):
        picture(root / "701_StillsRaw_full" / f"{stem}.png", 1)
        (root / "LabeledApproved_full").mkdir(exist_ok=True)
        ids = stripes(range(len(colours)))
        Image.fromarray(np.array(colours, dtype=np.uint8)[ids]).save(root / f"LabeledApproved_full/{stem}_L.png")
    return root


def listed(path: Path, names: Sequence[str]) -> None:
    """A list of a split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def runs(region: np.ndarray) -> dict[str, object]:
    """COCO's compressed form of a region."""
    from pycocotools import mask

    coded = mask.encode(np.asfortranarray(region.astype(np.uint8)))
    return {"size": coded["size"], "counts": coded["counts"].decode()}
