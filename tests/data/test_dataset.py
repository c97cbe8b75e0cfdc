"""Folders of images and masks: pairs, splits, classes, and one line for each way they can be wrong."""

import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asymseg.classes import IGNORE, Classes
from asymseg.data.dataset import (
    DataSet,
    Pair,
    check_pairs,
    count_warnings,
    hold_out,
    median_frequency_weights,
    open_dataset,
)
from asymseg.errors import DataError

CAMVID = Path(__file__).parents[2].parent / "shared" / "data" / "camvid"


def save(path: Path, rows: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(path)


def add(root: Path, name: str, split: str = "train", ids=((0, 1),), suffix: str = ".png") -> None:
    """An image with its mask."""
    save(root / "images" / split / f"{name}{suffix}", [[0] * len(ids[0])] * len(ids))
    save(root / "masks" / split / f"{name}.png", [list(row) for row in ids])


def names(dataset: DataSet) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in dataset.splits.items()}


def fault(root: Path | None = None, **folders: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(root, **folders)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_usual_layout(tmp_path):
    for split, name in (("train", "b"), ("train", "a"), ("train", "city/c"), ("val", "d"), ("test", "e")):
        add(tmp_path, name, split)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["sky", "road"]}))
    for left in ("Thumbs.db", ".DS_Store", "._a.png", "readme.txt"):
        (tmp_path / "images" / "train" / left).write_bytes(b"x")
    save(tmp_path / "images" / "train" / "f.PNG", [[0, 0]])
    save(tmp_path / "masks" / "train" / "f.bmp", [[0, 0]])
    dataset = open_dataset(tmp_path)
    assert names(dataset) == {"train": ["a", "b", "city/c", "f"], "val": ["d"], "test": ["e"]}
    assert dataset.classes == Classes(("sky", "road"))
    assert dataset.notes == ()
    pair = dataset.splits["train"][3]
    assert pair == Pair("f", tmp_path / "images" / "train" / "f.PNG", tmp_path / "masks" / "train" / "f.bmp")


def test_two_folders_flat_or_split(tmp_path):
    for name in "abc":
        save(tmp_path / "pictures" / f"{name}.png", [[0, 0]])
        save(tmp_path / "labels" / f"{name}.png", [[0, 1]])
    flat = open_dataset(images=tmp_path / "pictures", masks=tmp_path / "labels")
    assert {name for part in names(flat).values() for name in part} == set("abc")
    add(tmp_path / "x", "a", "train")
    add(tmp_path / "x", "b", "val")
    split = open_dataset(images=tmp_path / "x" / "images", masks=tmp_path / "x" / "masks")
    assert names(split) == {"train": ["a"], "val": ["b"]}


def test_classes_may_lie_beside_the_masks(tmp_path):
    add(tmp_path, "a")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["sky", "road"]}))
    dataset = open_dataset(images=tmp_path / "images" / "train", masks=tmp_path / "masks" / "train")
    assert dataset.classes.names == ("class 0", "class 1")  # two folders up is somebody else's
    dataset = open_dataset(images=tmp_path / "images", masks=tmp_path / "masks")
    assert dataset.classes.names == ("sky", "road")
    (tmp_path / "masks" / "classes.json").write_text("{")
    (tmp_path / "classes.json").unlink()
    assert "classes.json: not readable as JSON" in fault(tmp_path)


def test_a_missing_mask_is_named(tmp_path):
    for number in range(7):
        add(tmp_path, f"{number}")
    for number in range(6):
        (tmp_path / "masks" / "train" / f"{number}.png").unlink()
    message = fault(tmp_path)
    assert "no mask for 6 of 7 images: 0, 1, 2, 3, 4 and 1 others; add them" in message
    assert str(tmp_path / "masks" / "train") in message


def test_a_mask_without_image_is_named(tmp_path):
    add(tmp_path, "a")
    save(tmp_path / "masks" / "train" / "b.png", [[0]])
    assert "no image for 1 of 2 masks: b; add them" in fault(tmp_path)


@pytest.mark.parametrize(
    ("image", "mask", "hint"),
    [
        ("{}", "{}_mask", "every image NAME has a mask NAME_mask"),
        ("{}", "{}_L", "every image NAME has a mask NAME_L"),
        ("{}_sat", "{}_lab", "every image NAMEsat has a mask NAMElab"),
    ],
)
def test_names_that_differ_by_an_ending_give_a_hint(tmp_path, image, mask, hint):
    for name in ("a1", "a2", "b"):
        save(tmp_path / "images" / f"{image.format(name)}.png", [[0]])
        save(tmp_path / "masks" / f"{mask.format(name)}.png", [[0]])
    assert hint in fault(images=tmp_path / "images", masks=tmp_path / "masks")


def test_names_without_a_common_ending_give_no_hint(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", [[0]])
    save(tmp_path / "masks" / "a_mask.png", [[0]])
    assert "add them" in fault(images=tmp_path / "images", masks=tmp_path / "masks")


def test_two_images_of_one_name(tmp_path):
    add(tmp_path, "a")
    save(tmp_path / "images" / "train" / "a.jpg", [[0]])
    message = fault(tmp_path)
    assert "a.jpg: has the same name as" in message
    assert "rename it" in message


def test_folders_that_cannot_be_data(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert f"{tmp_path / 'no'}: no such folder; expected DATA/images/train" in fault(tmp_path / "no")
    assert f"{file}: a file, not a folder" in fault(file)
    assert f"{tmp_path / 'images'}: no such folder" in fault(tmp_path)
    add(tmp_path, "a", "val")
    (tmp_path / "images" / "train").mkdir()
    (tmp_path / "images" / "train" / "notes.txt").write_text("")
    assert f"{tmp_path / 'masks' / 'train'}: no such folder; put the masks of" in fault(tmp_path)
    (tmp_path / "masks" / "train").mkdir()
    message = fault(tmp_path)
    assert f"{tmp_path / 'images' / 'train'}: no images in this folder; found only .txt; use png, jpg" in message
    assert "no data given" in fault()
    assert "no data given" in fault(images=tmp_path)
    assert "either one data folder" in fault(tmp_path, images=tmp_path, masks=tmp_path)


def test_a_test_split_without_masks_is_left_out(tmp_path):
    add(tmp_path, "a", "train")
    add(tmp_path, "b", "val")
    save(tmp_path / "images" / "test" / "c.png", [[0]])
    save(tmp_path / "images" / "stray.png", [[0]])
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "val"]
    assert any("left out, for there are no masks" in note for note in dataset.notes)
    assert any("stray.png" in note for note in dataset.notes)


def test_the_holdout_is_the_same_on_every_machine(tmp_path):
    for number in range(20):
        add(tmp_path, f"{number:02d}")
    first, again = open_dataset(tmp_path, holdout=0.2), open_dataset(tmp_path, holdout=0.2)
    assert names(first) == names(again)
    assert names(first)["val"] == ["03", "07", "08", "09"]  # as sha256sum of the names sorts them
    assert sorted(names(first)["train"] + names(first)["val"]) == [f"{number:02d}" for number in range(20)]
    assert "no val split: 4 of 20 training images held out" in first.notes
    assert len(open_dataset(tmp_path, holdout=0.001).splits["val"]) == 1
    assert len(open_dataset(tmp_path, holdout=0.999).splits["train"]) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_are_followed_but_not_in_circles(tmp_path):
    for kind in ("images", "masks"):
        save(tmp_path / "data" / kind / "train" / "a.png", [[0, 1]])
        save(tmp_path / "elsewhere" / kind / "b.png", [[0, 1]])
        (tmp_path / "data" / kind / "train" / "more").symlink_to(tmp_path / "elsewhere" / kind)
        (tmp_path / "data" / kind / "train" / "here").symlink_to(tmp_path / "data" / kind / "train")
        (tmp_path / "elsewhere" / kind / "back").symlink_to(tmp_path / "data" / kind)
    found = names(open_dataset(tmp_path / "data"))
    assert sorted(found["train"] + found["val"]) == ["a", "more/b"]


def test_names_may_hold_bytes_that_are_no_utf8():
    """As a disk of Latin-1 gives them."""
    pairs = tuple(Pair(name, Path(name), Path(name)) for name in ("a", "stra\udcdfe"))
    splits, _ = hold_out({"train": pairs}, 0.5)
    chosen = min(pairs, key=lambda pair: hashlib.sha256(os.fsencode(pair.name)).digest())
    assert splits["val"] == (chosen,)


def test_a_smaller_holdout_lies_in_a_larger_one(tmp_path):
    for number in range(20):
        add(tmp_path, f"{number:02d}")
    held_out = [set(names(open_dataset(tmp_path, holdout=share))["val"]) for share in (0.05, 0.1, 0.25, 0.5, 0.9)]
    assert [len(val) for val in held_out] == [1, 2, 5, 10, 18]
    assert all(smaller < larger for smaller, larger in pairwise(held_out))


def test_a_single_image_is_for_both(tmp_path):
    add(tmp_path, "a")
    dataset = open_dataset(tmp_path)
    assert names(dataset) == {"train": ["a"], "val": ["a"]}
    assert any("the only image a" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("masks", "classes", "note"),
    [
        (
            [[0, 1], [2, 255]],
            Classes(("class 0", "class 1", "class 2")),
            "3 classes from the ids in the masks (0 to 2, 255",
        ),
        ([[0, 255], [255, 0]], Classes(("background", "foreground"), values={0: 0, 255: 1}), "0 and 255 alone"),
        ([[7, 7], [11, 255]], Classes(("class 7", "class 11"), values={7: 0, 11: 1}), "(7, 11, 255 ignored)"),
        ([[0, 0], [0, 0]], Classes(("class 0",)), "1 classes"),
    ],
)
def test_classes_from_the_masks(tmp_path, masks, classes, note):
    for split, row in zip(("train", "val"), masks, strict=True):
        add(tmp_path, "a", split, (row,))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == classes
    assert note in dataset.notes[-1]
    assert check_pairs(dataset.splits["train"], dataset.classes, 3, 1).sum() == sum(
        value != IGNORE or 255 in (classes.values or {}) for value in masks[0]
    )


def test_given_classes_count_where_none_are_declared(tmp_path):
    """A folder whose masks lack a class, and hold raw ids, is read with the classes of the model."""
    add(tmp_path, "a", ids=((7, 7, 255),))
    model = Classes(("sky", "road", "car"), values={5: 0, 7: 1, 9: 2})
    dataset = open_dataset(tmp_path, classes=model)
    assert dataset.classes is model
    assert "no classes.json: the masks are read with the classes that were given" in dataset.notes
    assert check_pairs(dataset.splits["train"], dataset.classes, 3, 1).tolist() == [[0, 2, 0]]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["one"], "values": {"7": "one"}}))
    declared = open_dataset(tmp_path, classes=model)
    assert declared.classes.names == ("one",)
    assert not any("classes.json" in note for note in declared.notes)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["one"], "values": {"7": "one"}, "splits": {}}))
    assert "classes.json: not read: 'splits'" in open_dataset(tmp_path).notes[-1]


def test_masks_from_which_no_classes_follow(tmp_path):
    add(tmp_path, "a", ids=((255, 255),))
    assert "every pixel of every mask is 255" in fault(tmp_path)
    many = np.arange(400, dtype=np.uint16).reshape(20, 20)
    Image.fromarray(many).save(tmp_path / "masks" / "train" / "a.png")
    assert "399 different values from 0 to 399" in fault(tmp_path)
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "masks" / "train" / "a.png")
    message = fault(tmp_path)
    assert "an RGB mask, but no colours are declared; found [1, 2, 3] (2 pixels)" in message
    assert "classes.json" in message


def test_every_mask_is_counted(tmp_path):
    add(tmp_path, "a", ids=((0, 1, 1), (255, 1, 0)))
    add(tmp_path, "b", ids=((1, 1, 255),))
    add(tmp_path, "c", "val", ((255, 255),))
    dataset = DataSet(Classes(("sky", "road", "car")), open_dataset(tmp_path).splits)
    counts = check_pairs(dataset.splits["train"], dataset.classes, 3, 2)
    assert counts.tolist() == [[2, 3, 0], [0, 2, 0]]
    lines = count_warnings({"train": counts, "val": check_pairs(dataset.splits["val"], dataset.classes, 1, 1)}, dataset)
    assert lines == ["train: no pixel of car", "val: no pixel of sky, road, car", "val: every pixel is ignored in c"]


def test_all_faulty_masks_are_named_in_one_line(tmp_path):
    for number in range(8):
        add(tmp_path, f"{number}", ids=((0, 9),) if number != 4 else ((0, 1),))
    pairs = tuple(
        Pair(f"{n}", tmp_path / "images" / "train" / f"{n}.png", tmp_path / "masks" / "train" / f"{n}.png")
        for n in range(8)
    )
    with pytest.raises(DataError) as caught:
        check_pairs(pairs, Classes(("sky", "road")), 3, 3)
    message = str(caught.value)
    assert message.startswith(f"{pairs[0].mask}: values outside the 2 classes: 9 (1 pixels)")
    assert str(pairs[3].mask) in message
    assert str(pairs[4].mask) not in message
    assert "and 2 others)" in message
    with pytest.raises(DataError, match=r"0\.png: values outside") as caught:
        check_pairs(pairs[:1], Classes(("sky", "road")), 3, 1)
    assert "also faulty" not in str(caught.value)


def test_a_mask_of_another_size_names_both_files(tmp_path):
    add(tmp_path, "a")
    save(tmp_path / "masks" / "train" / "a.png", [[0], [1]])
    pair = open_dataset(tmp_path).splits["train"][0]
    with pytest.raises(DataError) as caught:
        check_pairs([pair], Classes(("sky", "road")), 3, 1)
    assert f"{pair.mask}: the mask is 2 x 1 pixels" in str(caught.value)
    assert f"its image {pair.image} is 1 x 2" in str(caught.value)


def test_an_image_cut_short_is_named_and_not_its_mask(tmp_path):
    pairs = []
    for number in range(3):
        pair = Pair(f"{number}", tmp_path / f"{number}.jpg", tmp_path / f"{number}.png")
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pair.image)
        save(pair.mask, [[0] * 64] * 64)
        pairs.append(pair)
    for pair in pairs[1:]:
        pair.image.write_bytes(pair.image.read_bytes()[:1500])
        with Image.open(pair.image) as opened:
            assert opened.size == (64, 64)  # the head is whole
    with pytest.raises(DataError) as caught:
        check_pairs(pairs, Classes(("sky",)), 3, 2)
    message = str(caught.value)
    assert message.startswith(f"{pairs[1].image}: not readable")
    assert message.endswith(f"(also faulty: {pairs[2].image})")
    with pytest.raises(DataError, match=r"0\.jpg: 3 channels where the network takes 4"):
        check_pairs(pairs[:1], Classes(("sky",)), 4, 1)


def test_median_frequency_by_hand():
    # Class 0: 30 of the 40 + 10 pixels where it occurs; class 1: 10 of 40; class 2: 5 of 10; class 3 nowhere.
    counts = np.array([[25, 10, 5, 0], [5, 0, 5, 0]], dtype=np.int64)
    # frequencies 30/50, 10/40, 10/50; their median 1/4
    assert median_frequency_weights(counts) == pytest.approx((0.25 / 0.6, 1.0, 0.25 / 0.2, 1.0))
    with pytest.raises(DataError, match="no labelled pixel"):
        median_frequency_weights(np.zeros((2, 3), dtype=np.int64))


def test_camvid_as_it_lies_on_disk():
    if not CAMVID.is_dir():
        pytest.skip("the CamVid copy is not on this machine")
    dataset = open_dataset(CAMVID)
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert len(dataset.classes) == 11
    counts = check_pairs(dataset.splits["val"][:10], dataset.classes, 3, 1)
    assert counts.shape == (10, 11)
    assert 0 < counts.sum() <= 10 * 360 * 480
