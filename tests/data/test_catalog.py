"""Known data sets as downloaded: parts, ids by hand, and what is odd about each."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from catalog_miniatures import (
    HEIGHT,
    WIDTH,
    camvid_original,
    camvid_segnet,
    cityscapes_coarse,
    coco_stuff_10k,
    labels,
    sbd,
    stripes,
    voc2012,
)
from catalog_miniatures import (
    ade20k as ade20k_miniature,
)
from catalog_miniatures import (
    cityscapes as cityscapes_miniature,
)
from catalog_miniatures import (
    coco_stuff as coco_stuff_miniature,
)
from catalog_miniatures import (
    pascal_context as pascal_context_miniature,
)

from asymseg.classes import IGNORE
from asymseg.config import DataConfig
from asymseg.data.cache import read_cached
from asymseg.data.catalog import ade20k, camvid, cityscapes, coco_stuff, pascal_context
from asymseg.data.catalog.opening import KNOWN
from asymseg.data.dataset import DataSet, check_pairs, open_dataset, read_pair
from asymseg.data.loader import measure_normalisation, training_loader
from asymseg.errors import DataError

CAMVID = Path(__file__).parents[2].parent / "shared" / "data" / "camvid"


def names(dataset: DataSet) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in dataset.splits.items()}


def ids(dataset: DataSet, split: str = "train", number: int = 0) -> list[int]:
    """The classes of a mask from left to right, each once."""
    row = read_pair(dataset.splits[split][number], dataset.classes)[1][0].tolist()
    return [value for place, value in enumerate(row) if place == 0 or row[place - 1] != value]


def fault(place: str) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cityscapes(tmp_path):
    dataset = open_dataset(f"cityscapes:{cityscapes_miniature(tmp_path)}")
    assert names(dataset) == {
        "train": ["aachen_000000_000019", "aachen_000001_000019"],
        "val": ["munster_000000_000019", "munster_000001_000019"],
    }
    assert [image.name for image in dataset.unlabelled["test"]] == ["berlin_000000_000019", "berlin_000001_000019"]
    assert "test: 2 images without labels" in dataset.notes[0]
    # A PNG of the ids 7 to 33, as labels.py of cityscapesScripts translates them.
    labels(dataset.splits["train"][0].mask, stripes((7, 8, 9, 11, 17, 18, 19, 28, 29, 31, 33)))
    assert ids(dataset) == [0, 1, IGNORE, 2, 5, IGNORE, 6, 15, IGNORE, 16, 18]


def test_cityscapes_as_its_own_scripts_have_it():
    from cityscapesscripts.helpers.labels import id2label
    from cityscapesscripts.helpers.labels import labels as official

    table = cityscapes.CLASSES.lookup(256)
    assert {number: id2label[number].trainId for number in range(34)} == {number: table[number] for number in range(34)}
    assert (table[34:255] == -1).all()
    evaluated = sorted((label for label in official if not label.ignoreInEval), key=lambda label: label.trainId)
    assert cityscapes.CLASSES.names == tuple(label.name for label in evaluated)
    assert cityscapes.CLASSES.palette == tuple(label.color for label in evaluated)
    assert cityscapes.CLASSES.categories == tuple(label.category for label in evaluated)
    assert tuple(label.id for label in evaluated) == cityscapes.IDS


def test_cityscapes_coarse(tmp_path):
    root = cityscapes_coarse(tmp_path)
    dataset = open_dataset(f"cityscapes-coarse:{root}")
    assert names(dataset) == {
        "train": ["aachen_000000_000019", "augsburg_000000_000000"],
        "val": ["munster_000000_000019"],
    }
    assert any("troisdorf_000000_000073: left out" in note for note in dataset.notes)
    assert any("coarse labels" in note for note in dataset.notes)
    labels(root / "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png", stripes((33, 7)))
    dataset = open_dataset(f"cityscapes-coarse:{root}")
    assert ids(dataset, "val") == [18, 0]
    assert not any("coarse labels" in note for note in dataset.notes)
    shutil.rmtree(root / "leftImg8bit" / "train_extra")
    assert "the images of train alone" in open_dataset(f"cityscapes-coarse:{root}").notes[0]


def test_ade20k(tmp_path):
    root = ade20k_miniature(tmp_path)
    dataset = open_dataset(f"ade20k:{root}")
    assert names(dataset) == {
        "train": ["ADE_train_00000001", "ADE_train_00000002"],
        "val": ["ADE_val_00000001", "ADE_val_00000002"],
    }
    assert ids(dataset, "val", 1) == [IGNORE, 0, 1, 149]
    assert read_pair(dataset.splits["train"][0], dataset.classes)[0].shape == (3, HEIGHT, WIDTH + 8)  # grey made RGB
    assert [image.name for image in dataset.unlabelled["test"]] == ["ADE_test_00000001"]
    inside = open_dataset(f"ade20k:{root / 'ADEChallengeData2016'}")
    assert names(inside) == names(dataset)
    labels(dataset.splits["val"][0].mask, stripes((1, 151), (HEIGHT, WIDTH + 8)))
    with pytest.raises(DataError, match="values outside the 150 classes: 151"):
        read_pair(dataset.splits["val"][0], dataset.classes)
    (root / "index_ade20k.pkl").write_bytes(b"")
    assert "the full ADE20K, another data set" in fault(f"ade20k:{root}")


def test_ade20k_classes():
    classes = ade20k.CLASSES
    assert (len(classes), len(set(classes.names))) == (150, 150)
    assert (classes.names[0], classes.names[7], classes.names[149]) == ("wall", "bed", "flag")
    assert (classes.palette[0], classes.palette[2], classes.palette[149]) == ((120,) * 3, (6, 230, 230), (92, 0, 255))
    table = classes.lookup(256)
    assert table[0] == IGNORE
    assert table[1:151].tolist() == list(range(150))
    assert (table[151:] == -1).all()


def test_voc2012(tmp_path):
    root = voc2012(tmp_path)
    for place in (root, root / "VOCdevkit", root / "VOCdevkit" / "VOC2012"):
        dataset = open_dataset(f"voc2012:{place}")
        assert names(dataset) == {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
    assert ids(dataset) == [0, 1, IGNORE, 20]
    assert dataset.classes.names[:2] == ("background", "aeroplane")
    assert dataset.classes.palette[1] == (128, 0, 0)
    assert "SBD beside it, benchmark_RELEASE" in fault(f"voc2012-aug:{root}")


def test_trainaug_does_not_leak(tmp_path):
    """Two more images of SBD's; of those in both VOC's masks are taken, and VOC's val stays out."""
    dataset = open_dataset(f"voc2012-aug:{sbd(voc2012(tmp_path))}")
    assert names(dataset)["train"] == ["2007_000032", "2007_000039", "2008_000002", "2008_000003"]
    assert names(dataset)["val"] == ["2007_000033", "2007_000042"]
    assert dataset.splits["train"][0].mask.suffix == ".png"
    assert ids(dataset, number=2) == [0, 15]
    assert "train: trainaug, 2 of VOC and 2 more from SBD's .mat files" in dataset.notes
    assert "train: 1 images of VOC's val left out, which SBD has among its own" in dataset.notes


def test_trainaug_from_converted_masks(tmp_path):
    place = voc2012(tmp_path) / "VOCdevkit" / "VOC2012"
    for stem in ("2007_000032", "2007_000033", "2008_000002"):
        labels(place / "SegmentationClassAug" / f"{stem}.png", stripes((3,)))
    dataset = open_dataset(f"voc2012-aug:{tmp_path}")
    assert names(dataset)["train"] == ["2007_000032", "2007_000039", "2008_000002"]
    assert [ids(dataset, number=number) for number in (0, 2)] == [[0, 1, IGNORE, 20], [3]]


@pytest.mark.parametrize("form", ["json", "mat", "png"])
def test_pascal_context(tmp_path, form):
    root = pascal_context_miniature(tmp_path, form)
    dataset = open_dataset(f"pascal-context:{root}")
    assert names(dataset) == {"train": ["2008_000002", "2008_000003"], "val": ["2010_000001"]}
    assert ids(dataset) == [IGNORE, 0, 58, IGNORE]
    with_background = open_dataset(f"pascal-context-60:{root}")
    assert ids(with_background) == [0, 1, 59, 0]
    assert (len(dataset.classes), len(with_background.classes)) == (59, 60)
    assert "2 train, 1 val" in dataset.notes[0]


def test_pascal_context_ids():
    assert list(pascal_context.CLASSES_59.names) == sorted(pascal_context.CLASSES_59.names)
    assert len(pascal_context.IDS) == 59
    table, names_59 = pascal_context.CLASSES_59.lookup(460), pascal_context.CLASSES_59.names
    # From labels.txt of the 459: 2 aeroplane, 23 bicycle, 284 person, 360 sofa, 427 tvmonitor.
    for raw, name in ((2, "aeroplane"), (9, "bag"), (23, "bicycle"), (59, "car"), (427, "tvmonitor"), (458, "wood")):
        assert names_59[table[raw]] == name
    assert (table >= 0).all()
    assert (pascal_context.CLASSES_60.lookup(460) == np.where(table == IGNORE, 0, table + 1)).all()


def test_coco_stuff(tmp_path):
    root = coco_stuff_miniature(tmp_path / "a")
    dataset = open_dataset(f"coco-stuff:{root}")
    assert names(dataset) == {"train": ["000000000009", "000000000025"], "val": ["000000000139"]}
    assert ids(dataset) == [0, 10, 11, 170, IGNORE]  # 11, street sign, is unused: from there on one lower
    beside = tmp_path / "b"  # both archives unpacked in one place
    shutil.copytree(root / "images", beside)
    shutil.copytree(root / "annotations", beside / "stuffthingmaps_trainval2017")
    assert names(open_dataset(f"coco-stuff:{beside}")) == names(dataset)
    labels(dataset.splits["train"][0].mask, stripes((0, 11)))
    with pytest.raises(DataError, match="values outside the 171 classes: 11"):
        read_pair(dataset.splits["train"][0], dataset.classes)


def test_coco_stuff_10k(tmp_path):
    dataset = open_dataset(f"coco-stuff-10k:{coco_stuff_10k(tmp_path)}")
    assert [len(pairs) for pairs in dataset.splits.values()] == [2, 1]
    assert ids(dataset) == [IGNORE, 0, 11, 170]
    assert ids(dataset, "val") == [IGNORE, 0, 11, 170]


def test_coco_stuff_classes():
    classes = coco_stuff.CLASSES_164K
    assert len(classes) == 171
    unused = sorted(set(range(182)) - {raw for raw in classes.values})
    assert unused == [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]
    assert [classes.names[number] for number in (0, 11, 79, 80, 170)] == [
        "person", "stop sign", "toothbrush", "banner", "wood"
    ]  # fmt: skip
    assert {raw + 1: number for raw, number in classes.values.items()} == coco_stuff.CLASSES_10K.values


def test_camvid_of_segnet(tmp_path):
    dataset = open_dataset(f"camvid:{camvid_segnet(tmp_path)}")
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 1, "val": 1, "test": 1}
    assert ids(dataset, "test") == [0, 4, 10, IGNORE]


def test_the_original_camvid(tmp_path):
    dataset = open_dataset(f"camvid:{camvid_original(tmp_path)}")
    assert names(dataset) == {
        "train": ["0001TP_008520", "0006R0_f00930", "0016E5_08640"],
        "val": ["0016E5_07959"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    assert ids(dataset) == [0, 4, 8, IGNORE]
    assert dataset.classes.names == camvid.CLASSES.names
    camvid_original(tmp_path, ((128, 128, 128), (1, 2, 3)))
    with pytest.raises(DataError, match=r"384 pixels of colours that CamVid has not, such as \[1, 2, 3\]; it may"):
        read_pair(dataset.splits["train"][0], dataset.classes)


def test_the_32_colours_have_a_group_or_are_void():
    assert (len(camvid.COLOURS), len(set(camvid.COLOURS.values()))) == (32, 32)
    table = camvid.CLASSES_GROUPED.lookup(32)
    assert [name for name, number in zip(camvid.COLOURS, table, strict=True) if number == IGNORE] == ["Void"]
    assert (table >= 0).all()
    grouped = {name: camvid.CLASSES.names[table[place]] for place, name in enumerate(camvid.COLOURS) if name != "Void"}
    assert grouped["Tunnel"] == "Building"
    assert grouped["LaneMkgsNonDriv"] == "Road"
    assert grouped["Truck_Bus"] == "Car"


def test_segnets_parts():
    if not CAMVID.is_dir():
        pytest.skip("the CamVid copy is not on this machine")
    for split in ("train", "val", "test"):
        assert {camvid.segnet_split(path.stem) for path in (CAMVID / "images" / split).iterdir()} == {split}


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in ("coco", "cvat", "hf")])
def test_a_wrong_path_says_which_folders_were_expected(tmp_path, name):
    assert f"{tmp_path / 'no'}: no such folder; expected " in fault(f"{name}:{tmp_path / 'no'}")
    (tmp_path / "pictures").mkdir()
    message = fault(f"{name}:{tmp_path}")
    assert "expected " in message
    assert "found pictures" in message
    file = tmp_path / "file"
    file.write_text("")
    assert f"{file}: a file, not a folder; expected " in fault(f"{name}:{file}")


def test_names_of_data_sets(tmp_path, monkeypatch):
    assert "no data set of the name 'cityscape'; did you mean cityscapes:" in fault(f"cityscape:{tmp_path}")
    assert "known are cityscapes, " in fault("x1y2z3:there")
    assert "name the folder behind the colon" in fault("ade20k:")
    assert "no such folder; expected DATA/images/train" in fault(f"{tmp_path}/a:b")  # a path like any other
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        labels(tmp_path / "odd:name" / folder / "train" / "a.png", stripes((0, 1)))
    assert open_dataset("odd:name").splits["train"][0].name == "a"
    dataset = open_dataset(Path(f"cityscapes:{cityscapes_miniature(tmp_path / 'city')}"))
    assert dataset.origin is not None
    assert dataset.origin.name == "cityscapes"


def test_every_data_set_says_where_it_comes_from(tmp_path):
    origins = [ade20k.ORIGIN, camvid.ORIGIN, cityscapes.FINE, cityscapes.COARSE, pascal_context.ORIGIN_59]
    origins += [pascal_context.ORIGIN_60, coco_stuff.ORIGIN_164K, coco_stuff.ORIGIN_10K]
    assert {origin.name for origin in origins} <= set(KNOWN)
    assert all(origin.protocol and origin.source and origin.licence for origin in origins)


def test_a_file_that_is_missing_is_named(tmp_path):
    root = cityscapes_miniature(tmp_path)
    (root / "gtFine/val/munster/munster_000001_000019_gtFine_labelIds.png").unlink()
    message = fault(f"cityscapes:{root}")
    assert (
        "no *_gtFine_labelIds.png for 1 of 2 images: munster_000001_000019; the download may be incomplete" in message
    )


def test_a_data_set_without_val_holds_some_images_out(tmp_path):
    root = cityscapes_miniature(tmp_path, count=5)
    shutil.rmtree(root / "leftImg8bit" / "val")
    dataset = open_dataset(f"cityscapes:{root}", holdout=0.4)
    assert [len(dataset.splits[split]) for split in ("train", "val")] == [3, 2]
    assert "no val split: 2 of 5 training images held out" in dataset.notes


MINIATURES = [
    ("cityscapes", cityscapes_miniature),
    ("ade20k", ade20k_miniature),
    ("voc2012-aug", lambda root: sbd(voc2012(root))),
    ("pascal-context", pascal_context_miniature),
    ("coco-stuff-10k", coco_stuff_10k),
    ("camvid", camvid_original),
]


@pytest.mark.parametrize(("name", "make"), MINIATURES, ids=[name for name, _ in MINIATURES])
def test_all_that_reads_pairs_reads_these(tmp_path, name, make):
    """The check, the cache and what is sent to other processes, whatever holds the labels."""
    dataset = open_dataset(f"{name}:{make(tmp_path / 'data')}")
    pairs = dataset.splits["train"]
    counts = check_pairs(pairs, dataset.classes, 3, 2)
    assert pickle.loads(pickle.dumps(pairs)) == pairs
    for pair, row in zip(pairs, counts, strict=True):
        image, mask = read_pair(pair, dataset.classes)
        assert np.bincount(mask.numpy().ravel(), minlength=256)[: len(dataset.classes)].tolist() == row.tolist()
        for _ in range(2):
            cached = read_cached(tmp_path / "cache", pair, dataset.classes, 3)
            assert (cached[0] == image).all()
            assert (cached[1] == mask).all()
    masks = {(pair.mask, pair.labels) for pair in pairs}
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == len(pairs) + len(masks)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_training_loader_reads_them(tmp_path, workers):
    dataset = open_dataset(f"pascal-context:{pascal_context_miniature(tmp_path)}")
    settings = DataConfig(crop_size=(HEIGHT, WIDTH), scale=(1, 1), aspect=(1, 1), flip=0, workers=workers)
    mean, std = measure_normalisation(dataset.splits["train"], 3)
    loader = training_loader(
        dataset.splits["train"], dataset.classes, settings, 3, mean, std,
        batch_size=2, first_batch=0, num_batches=1, seed=0,
    )  # fmt: skip
    (batch,) = list(loader)
    assert sorted(batch.masks.unique().tolist()) == [0, 58, IGNORE]


def test_two_images_of_one_file_do_not_share_their_cache(tmp_path):
    """The labels of all images of the Detail API's JSON lie in one file."""
    dataset = open_dataset(f"pascal-context:{pascal_context_miniature(tmp_path)}")
    one, other = dataset.splits["train"]
    changed = type(other)(other.name, other.image, other.mask, labels=type(other.labels)((HEIGHT, WIDTH), ()))
    masks = [read_cached(tmp_path / "cache", pair, dataset.classes, 3)[1] for pair in (one, changed, one)]
    assert [int((mask == IGNORE).sum()) for mask in masks] == [HEIGHT * WIDTH // 2, HEIGHT * WIDTH, HEIGHT * WIDTH // 2]


def test_mat_files_that_are_not_what_they_should_be(tmp_path):
    from scipy.io import savemat

    dataset = open_dataset(f"coco-stuff-10k:{coco_stuff_10k(tmp_path)}")
    pair = dataset.splits["train"][0]
    savemat(pair.mask, {"LabelMap": np.zeros((HEIGHT, WIDTH))})
    with pytest.raises(DataError, match="holds no label map S; is this the .mat of another data set"):
        read_pair(pair, dataset.classes)
    savemat(pair.mask, {"S": np.full((HEIGHT, WIDTH), 0.5)})
    with pytest.raises(DataError, match="a mask holds whole numbers"):
        read_pair(pair, dataset.classes)
    savemat(pair.mask, {"S": np.full((HEIGHT, WIDTH), 1e300)})
    with pytest.raises(DataError, match="a mask holds whole numbers"):
        read_pair(pair, dataset.classes)
    savemat(pair.mask, {"S": np.full((HEIGHT, WIDTH), 1.0)})
    content = bytearray(pair.mask.read_bytes())
    content[176] = 0  # the kind of the numbers, where one has begun to be written and zeros follow
    pair.mask.write_bytes(content)
    with pytest.raises(DataError, match="holds an element of no known kind"):
        read_pair(pair, dataset.classes)
    pair.mask.write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="not readable"):
        read_pair(pair, dataset.classes)
