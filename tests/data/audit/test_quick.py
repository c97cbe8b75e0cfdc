"""What training looks at before its first step."""

from pathlib import Path

import numpy as np
import pytest
from label_faults import FAULTS, copied_to_val, labelled_twice, make_clean, mask_interpolated, places, save_mask
from PIL import Image

from asymseg.data.audit.quick import quick_check
from asymseg.data.dataset import check_pairs, open_dataset
from asymseg.errors import DataError

SPLITS = ("train", "val")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_clean(tmp_path / "data", train=8, val=4)
    return tmp_path / "data"


def test_the_counts_are_those_of_check_pairs_and_clean_data_gives_no_warning(data: Path) -> None:
    dataset = open_dataset(data)
    counts, warnings = quick_check(dataset, SPLITS, 3, 2)
    for split in SPLITS:
        np.testing.assert_array_equal(counts[split], check_pairs(dataset.splits[split], dataset.classes, 3, 1))
    assert warnings == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_it_refuses_what_check_pairs_refuses_in_the_same_words(data: Path, fault) -> None:
    fault(places(data)[1])
    fault(places(data)[2])
    try:
        dataset = open_dataset(data)
    except DataError:
        return  # refused before any file is read
    pairs = dataset.splits["train"] + dataset.splits["val"]
    said = []
    for look in (lambda: check_pairs(pairs, dataset.classes, 3, 1), lambda: quick_check(dataset, SPLITS, 3, 1)):
        try:
            look()
            said.append("")
        except DataError as error:
            said.append(str(error))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (copied_to_val, "across splits are the same pixels"),
        (labelled_twice, "one image, different labels"),
        (mask_interpolated, "values in between along the borders"),
    ],
)
def test_what_would_spoil_training_is_told(data: Path, fault, words: str) -> None:
    fault(places(data)[0])
    _, warnings = quick_check(open_dataset(data), SPLITS, 3, 1)
    assert sum(words in line for line in warnings) == 1


def test_a_stray_id_is_told_where_classes_are_inferred(data: Path) -> None:
    (data / "classes.json").unlink()
    place = places(data)[0]
    ids = place.ids().copy()
    ids[50, 60:63] = 9
    save_mask(place.mask, ids)
    _, warnings = quick_check(open_dataset(data), SPLITS, 3, 1)
    assert [line.split(";")[0] for line in warnings] == [
        "val: no pixel of class 9",
        "id 9 became a class for 3 pixels in train/000",
    ]


@pytest.mark.parametrize(
    ("kept", "cure"),
    [
        (0, 'if it means thing, say so in classes.json: "values": {"0": "ground", "255": "thing"}'),
        (1, 'if it means ground, say so in classes.json: "values": {"1": "thing", "255": "ground"}'),
    ],
)
def test_masks_of_one_class_are_refused(data: Path, kept: int, cure: str) -> None:
    """Masks of 0 and 255 where two classes are named: half would be ignored, and any network gets a mIoU of 1."""
    (data / "classes.json").write_text('{"classes": ["ground", "thing"]}')
    for path in (data / "masks").rglob("*.png"):
        with Image.open(path) as opened:
            ids = np.array(opened)
        save_mask(path, np.where(ids > 0, kept, 255).astype(np.uint8))
    with pytest.raises(DataError) as error:
        quick_check(open_dataset(data), SPLITS, 3, 1)
    name = ("ground", "thing")[kept]
    what = f"train: every labelled pixel is {name}, so nothing can be learnt; 255 counts nowhere; "
    assert str(error.value) == what + cure
    _, _, values = cure.partition("classes.json: ")
    (data / "classes.json").write_text('{"classes": ["ground", "thing"], ' + values + "}")
    counts, _ = quick_check(open_dataset(data), SPLITS, 3, 1)
    assert (counts["train"].sum(axis=0) > 0).all()


@pytest.mark.parametrize("declared", [True, False])
def test_masks_that_are_all_black_are_told(data: Path, declared: bool) -> None:
    if not declared:
        (data / "classes.json").unlink()
    for path in (data / "masks").rglob("*.png"):
        with Image.open(path) as opened:
            save_mask(path, np.zeros_like(np.array(opened)))
    _, warnings = quick_check(open_dataset(data), SPLITS, 3, 1)
    assert any("so nothing can be learnt; look whether the masks are right" in each for each in warnings)
