"""COCO-Stuff: 80 things and 91 kinds of stuff, on all images of COCO 2017 (164k) or on 10,000 of them (10k)."""

from dataclasses import replace
from pathlib import Path

from asymseg.classes import Classes
from asymseg.data.catalog.folders import files_by_stem, need_files, not_there, optional_folder, read_list
from asymseg.data.catalog.mat_files import MatLabels
from asymseg.data.pairing import DataSet, Origin, Pair

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -, -,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -, tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush, -, banner, blanket, branch, bridge, building-other, bush, cabinet, cage,
cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt,
door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit,
furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud,
napkin, net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road,
rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel,
wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""
"""The ids 1 to 182 of labels.txt in their order; a dash is one of the 11 that no mask uses, such as street sign."""

_ALL = [name.strip() for name in _NAMES.replace("\n", " ").split(",")]

PAPER_IDS = tuple(number for number, name in enumerate(_ALL, start=1) if name != "-")
"""Of each class the id in labels.txt, from 1 to 182; 0 is unlabelled."""

CLASSES_164K = Classes(
    tuple(name for name in _ALL if name != "-"), values={raw - 1: number for number, raw in enumerate(PAPER_IDS)}
)
"""In the PNGs ids are one lower than in labels.txt, and 255 is unlabelled."""

CLASSES_10K = replace(CLASSES_164K, ignore=0, values={raw: number for number, raw in enumerate(PAPER_IDS)})

ORIGIN_164K = Origin(
    name="coco-stuff",
    protocol="mean IoU over 171 classes on the 5,000 images of val2017 at their own size; pixel accuracy, mean "
    "accuracy and frequency-weighted IoU are reported beside it",
    source="http://images.cocodataset.org/zips: train2017.zip, val2017.zip; "
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
    licence="annotations CC BY 4.0; images from Flickr, under Flickr's terms of use",
)
ORIGIN_10K = replace(
    ORIGIN_164K,
    name="coco-stuff-10k",
    protocol="mean IoU over 171 classes on the 1,000 test images at their own size; there is no other val part",
    source="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip",
)

_EXPECTED = (
    "PATH/images/{train,val}2017/*.jpg with PATH/annotations/{train,val}2017/*.png; the folders may also stand in PATH "
    "or stuffthingmaps_trainval2017"
)
_EXPECTED_10K = "PATH/images/*.jpg, PATH/annotations/*.mat and PATH/imageLists/{train,test}.txt"


def open_164k(root: Path) -> DataSet:
    """train and val of 2017."""
    splits = {}
    for split in ("train", "val"):
        folder = optional_folder(root, [f"images/{split}2017", f"{split}2017"])
        if folder is None:
            continue
        images = files_by_stem(folder, ".jpg")
        masks: dict[str, Path] = {}
        for base in ("annotations", "stuffthingmaps_trainval2017", "stuffthingmaps", "."):
            masks = files_by_stem(root / base / f"{split}2017", ".png")
            if masks:
                break
        else:
            raise not_there(root, _EXPECTED)
        need_files(masks, images, root / base / f"{split}2017", "*.png")
        splits[split] = tuple(Pair(name, path, masks[name]) for name, path in images.items())
    if not any(splits.values()):
        raise not_there(root, _EXPECTED)
    return DataSet(CLASSES_164K, splits, (), ORIGIN_164K)


def open_10k(root: Path) -> DataSet:
    """train (9,000); its test part (1,000) is val, for nothing else is there to choose a model by."""
    places = [optional_folder(root, [name]) for name in ("images", "annotations", "imageLists")]
    images_folder, labels_folder, lists = places
    if images_folder is None or labels_folder is None or lists is None:
        raise not_there(root, _EXPECTED_10K)
    images, masks = files_by_stem(images_folder, ".jpg"), files_by_stem(labels_folder, ".mat")
    splits = {}
    for split, part in (("train", "train"), ("val", "test")):
        names = read_list(lists / f"{part}.txt")
        need_files(images, names, images_folder, "JPEG")
        need_files(masks, names, labels_folder, ".mat")
        splits[split] = tuple(Pair(name, images[name], masks[name], labels=MatLabels("S")) for name in names)
    return DataSet(CLASSES_10K, splits, ("val: the images of the list test, on which papers report",), ORIGIN_10K)
