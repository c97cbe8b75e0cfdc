"""Annotations of other tools: regions drawn by hand on small images, overlaps in each tool's own order."""

import base64
import io
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from catalog_miniatures import picture, runs, stripes
from PIL import Image

from asymseg.classes import IGNORE
from asymseg.config import DataConfig
from asymseg.data.dataset import DataSet, check_pairs, open_dataset, read_pair
from asymseg.data.loader import training_loader
from asymseg.errors import DataError

SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]
"""Corners x, y of the pixels 2 to 5 in both directions."""


def masks(dataset: DataSet, split: str = "train") -> list[np.ndarray]:
    return [read_pair(pair, dataset.classes)[1].numpy() for pair in dataset.splits[split]]


def fault(place: str) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def filled(value: int, rows: slice, columns: slice, into: np.ndarray | None = None) -> np.ndarray:
    """A mask 8 x 10 of zeros, or `into`, with a block of `value`."""
    mask = np.zeros((8, 10), dtype=np.uint8) if into is None else into.copy()
    mask[rows, columns] = value
    return mask


def coco(root: Path, name: str = "instances_train2017.json", images: str = "train2017") -> Path:
    """Two images: one with a polygon under a region of run lengths, and one with nothing in it."""
    for number in (1, 2):
        picture(root / images / f"{number:012d}.png", number, (8, 10))
    region = np.zeros((8, 10), dtype=bool)
    region[4:8, 5:9] = True
    plain = {"size": [8, 10], "counts": [0, 8, 72]}  # the first column, uncompressed
    content = {
        "images": [{"id": n, "file_name": f"{n:012d}.png", "height": 8, "width": 10} for n in (2, 1)],
        "categories": [{"id": 90, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 17, "segmentation": [SQUARE, [9, 0, 9, 7]], "iscrowd": 0},
            {"image_id": 1, "category_id": 90, "segmentation": [[1, 1, 3, 3]], "iscrowd": 0},  # a line has no inside
            {"image_id": 1, "category_id": 90, "segmentation": runs(region), "iscrowd": 1},
            {"image_id": 1, "category_id": 17, "segmentation": plain, "iscrowd": 1},
        ],
    }
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path):
    dataset = open_dataset(f"coco:{coco(tmp_path)}", holdout=0.5)
    assert dataset.classes.names == ("background", "cat", "dog")  # in the order of their ids
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 1, "val": 1}
    both = {pair.name: read_pair(pair, dataset.classes)[1].numpy() for part in dataset.splits.values() for pair in part}
    expected = filled(1, slice(2, 6), slice(2, 6))
    expected = filled(2, slice(4, 8), slice(5, 9), expected)  # drawn later, so on top
    expected = filled(1, slice(None), slice(0, 1), expected)
    assert (both["000000000001"] == expected).all()
    assert not both["000000000002"].any()


def test_a_background_that_coco_names_is_the_background(tmp_path):
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "Background"  # of the cat
    path.write_text(json.dumps(content))
    dataset = open_dataset(f"coco:{path}")
    assert dataset.classes.names == ("background", "dog")
    held = {pair.name: pair for part in dataset.splits.values() for pair in part}
    expected = filled(1, slice(4, 8), slice(5, 9))
    expected[:, 0] = 0
    assert (read_pair(held["000000000001"], dataset.classes)[1].numpy() == expected).all()
    content["categories"][0]["name"] = 5
    path.write_text(json.dumps(content))
    assert 'every entry of "categories" needs an "id" and a "name"' in fault(f"coco:{path}")


def test_coco_finds_the_other_parts_by_their_names(tmp_path):
    path = coco(tmp_path)
    coco(tmp_path, "instances_val2017.json", "val2017")
    dataset = open_dataset(f"coco:{path}")
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 2, "val": 2}
    assert dataset.splits["val"][0].image.parent.name == "val2017"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "wolf"
    path.write_text(json.dumps(content))
    assert "instances_val2017.json: other categories than" in fault(f"coco:{path}")


def test_coco_as_roboflow_writes_it(tmp_path):
    for part in ("train", "valid"):
        path = coco(tmp_path / part, "_annotations.coco.json", ".")
        path.rename(tmp_path / part / path.name)
    dataset = open_dataset(f"coco:{tmp_path / 'train' / '_annotations.coco.json'}")
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 2, "val": 2}


def test_faulty_coco_files(tmp_path):
    assert "no such file; name COCO's annotations" in fault(f"coco:{tmp_path / 'no.json'}")
    path = tmp_path / "a.json"
    path.write_text("{")
    assert "not readable as JSON" in fault(f"coco:{path}")
    path.write_text("{}")
    assert 'not COCO\'s form; expected "images", "annotations" and "categories"' in fault(f"coco:{path}")
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 5
    path.write_text(json.dumps(content))
    assert "KeyError(5)" in fault(f"coco:{path}")
    coco(tmp_path)
    (tmp_path / "train2017" / "000000000002.png").unlink()
    assert "no file for 1 of 2 images: 000000000002" in fault(f"coco:{path}")


def test_images_that_differ_in_their_suffix_alone_keep_it(tmp_path):
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"] += [{"id": 3, "file_name": "000000000001.jpg", "height": 8, "width": 10}]
    path.write_text(json.dumps(content))
    picture(tmp_path / "train2017" / "000000000001.jpg", 3, (8, 10))
    names = [pair.name for pairs in open_dataset(f"coco:{path}").splits.values() for pair in pairs]
    assert sorted(names) == ["000000000001.jpg", "000000000001.png", "000000000002"]


def shape(label: str, points: list, kind: str = "polygon", **more: object) -> dict[str, object]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def labelme(root: Path, name: str, shapes: list) -> None:
    picture(root / f"{name}.png", 1, (8, 10))
    (root / f"{name}.json").write_text(
        json.dumps({"shapes": shapes, "imagePath": Path(f"{name}.png").name, "imageHeight": 8, "imageWidth": 10})
    )


def test_labelme(tmp_path):
    content = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], dtype=bool)).save(content, format="PNG")
    mask = base64.b64encode(content.getvalue()).decode()
    shapes = [
        shape("dog", [[1, 1], [5, 1], [5, 5], [1, 5]]),
        shape("cat", [[8, 6], [4, 3]], "rectangle"),  # over the dog, its corners the other way round
        shape("__ignore__", [[0, 7], [1, 7]], "rectangle"),
        shape("dog", [[8, 0], [9, 1]], "mask", mask=mask),
    ]
    labelme(tmp_path, "a", shapes)
    labelme(tmp_path, "b", [])
    dataset = open_dataset(f"labelme:{tmp_path}", holdout=0.5)
    assert dataset.classes.names == ("background", "cat", "dog")
    both = {pair.name: read_pair(pair, dataset.classes)[1].numpy() for part in dataset.splits.values() for pair in part}
    expected = filled(2, slice(1, 6), slice(1, 6))  # labelme draws the last row and column too
    expected = filled(1, slice(3, 7), slice(4, 9), expected)
    expected = filled(IGNORE, slice(7, 8), slice(0, 2), expected)
    expected[0, 8] = expected[1, 8] = expected[1, 9] = 2
    assert (both["a"] == expected).all()
    assert not both["b"].any()


def test_a_background_that_is_drawn_in_labelme_is_the_background(tmp_path):
    shapes = [shape("dog", [[0, 0], [9, 7]], "rectangle"), shape("Background", [[0, 0], [9, 3]], "rectangle")]
    labelme(tmp_path, "a", shapes)
    dataset = open_dataset(f"labelme:{tmp_path}")
    assert dataset.classes.names == ("background", "dog")
    mask = read_pair(dataset.splits["train"][0], dataset.classes)[1].numpy()
    assert (mask == filled(1, slice(4, 8), slice(0, 10))).all()


def test_labelme_classes_and_parts(tmp_path):
    for name in ("train/a", "val/b"):
        labelme(tmp_path, name, [shape("dog", [[1, 1], [5, 1], [5, 5]])])
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nowl\ndog\n")
    dataset = open_dataset(f"labelme:{tmp_path}")
    assert dataset.classes.names == ("background", "owl", "dog")
    assert {split: [pair.name for pair in pairs] for split, pairs in dataset.splits.items()} == {
        "train": ["train/a"],
        "val": ["val/b"],
    }
    assert set(np.unique(masks(dataset)[0])) == {0, 2}
    (tmp_path / "labels.txt").write_text("owl\n")
    assert "lacks the label 'dog' that is used; add it" in fault(f"labelme:{tmp_path}")


@pytest.mark.parametrize(
    ("kind", "points", "inside", "outside"),
    [
        ("circle", [[4, 4], [6, 4]], [(4, 4), (4, 6), (2, 4)], [(2, 2), (4, 7)]),
        ("point", [[9, 7]], [(7, 9), (3, 9)], [(1, 9), (7, 3)]),
        ("linestrip", [[0, 0], [9, 0]], [(0, 0), (0, 9)], [(7, 5)]),
    ],
)
def test_other_shapes_of_labelme(tmp_path, kind, points, inside, outside):
    labelme(tmp_path, "a", [shape("dog", points, kind)])
    mask = masks(open_dataset(f"labelme:{tmp_path}"))[0]
    assert [mask[place] for place in inside] == [1] * len(inside)
    assert [mask[place] for place in outside] == [0] * len(outside)


def test_what_lies_beside_the_parts_of_labelme_is_told(tmp_path):
    for name in ("train/a", "b", "spare/c"):
        labelme(tmp_path, name, [shape("dog", [[1, 1], [5, 1], [5, 5]])])
    assert "left out what lies beside train: b, spare/c" in open_dataset(f"labelme:{tmp_path}").notes


def test_images_within_the_files_of_labelme_are_not_kept(tmp_path):
    """A file holds its whole image unless LabelMe is told not to: of a thousand that would fill the memory."""
    for number in range(20):
        labelme(tmp_path, f"{number:02}", [shape("dog", [[1, 1], [5, 1], [5, 5]])])
        path = tmp_path / f"{number:02}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "imageData": "A" * 1_000_000}))
    tracemalloc.start()
    dataset = open_dataset(f"labelme:{tmp_path}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(pairs) for pairs in dataset.splits.values()) == 20
    assert peak < 8_000_000


def test_faulty_labelme_files(tmp_path):
    labelme(tmp_path, "a", [shape("dog", [[1, 1], [2, 2]])])
    with pytest.raises(DataError, match="a polygon of 2 points cannot be drawn"):
        masks(open_dataset(f"labelme:{tmp_path}"))
    (tmp_path / "a.png").unlink()
    assert "a.png is not there; imagePath must name it" in fault(f"labelme:{tmp_path}")


@pytest.mark.parametrize("far", [1e9, -1e300, float("nan")])
def test_shapes_of_labelme_that_would_be_drawn_for_minutes(tmp_path, far):
    labelme(tmp_path, "a", [shape("dog", [[1, 1], [far, 1]], "circle")])
    with pytest.raises(DataError, match="a circle with a point 1048576 pixels from the image; mend it"):
        masks(open_dataset(f"labelme:{tmp_path}"))


@pytest.mark.parametrize(
    "shapes", [["dog"], [{"points": []}], [{"label": 3, "points": []}], 7, [shape("dog", [[1]]), shape("dog", [])]]
)
def test_shapes_that_labelme_does_not_write(tmp_path, shapes):
    labelme(tmp_path, "a", shapes)
    with pytest.raises(DataError, match="a.json: not LabelMe's form .*save it by LabelMe again"):
        masks(open_dataset(f"labelme:{tmp_path}"))


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels>
<label><name>road</name><color>#ff0010</color></label><label><name>car</name><color>#0000ff</color></label>
</labels></task></meta>
<image id="0" name="a.png" width="10" height="8">
  <box label="car" xtl="4" ytl="4" xbr="9" ybr="8" z_order="1"/>
  <polygon label="road" points="2,2;6,2;6,6;2,6" z_order="0"/>
  <mask label="road" rle="1,2,1" left="0" top="6" width="2" height="2" z_order="0"/>
  <points label="car" points="1,1" z_order="9"/>
</image>
<image id="1" name="b.png" width="10" height="8" subset="Validation">
  <ellipse label="car" cx="5" cy="4" rx="3" ry="2" z_order="0"/>
</image>
</annotations>
"""


def cvat(root: Path, content: str = CVAT) -> Path:
    for name in "ab":
        picture(root / "images" / f"{name}.png", 1, (8, 10))
    (root / "annotations.xml").write_text(content)
    return root / "annotations.xml"


def test_cvat(tmp_path):
    dataset = open_dataset(f"cvat:{cvat(tmp_path)}")
    assert dataset.classes.names == ("background", "road", "car")
    assert dataset.classes.palette == ((0, 0, 0), (255, 0, 16), (0, 0, 255))
    expected = filled(1, slice(2, 6), slice(2, 6))
    expected[6, 1] = expected[7, 0] = 1
    expected = filled(2, slice(4, 8), slice(4, 9), expected)  # the first in the file, but higher
    assert (masks(dataset)[0] == expected).all()
    ellipse = masks(dataset, "val")[0]
    assert (ellipse == ellipse[::-1]).all()
    assert (ellipse == ellipse[:, ::-1]).all()
    assert abs(int((ellipse == 2).sum()) - np.pi * 3 * 2) < 5
    assert ellipse[3, 5] == 2
    assert ellipse[0, 5] == 0
    assert "left out, for they have no area: points" in dataset.notes


def test_turned_shapes_of_cvat(tmp_path):
    """By 90 degrees a box 4 wide and 2 high is 2 wide and 4 high; by 45 its corners are cut off."""
    box = '<box label="car" xtl="3" ytl="3" xbr="7" ybr="5" rotation="90"/>'
    ellipse = '<ellipse label="car" cx="5" cy="4" rx="4" ry="2" rotation="270"/>'
    content = CVAT[: CVAT.index("<image")] + '<image id="0" name="{}.png" width="10" height="8">{}</image>'
    path = cvat(tmp_path, content.format("a", box) + '<image id="1" name="b.png" width="10" height="8"/></annotations>')
    both = {pair.name: pair for part in open_dataset(f"cvat:{path}").splits.values() for pair in part}
    assert (both["a"].labels(path) == filled(2, slice(2, 6), slice(4, 6))).all()
    path.write_text(content.format("a", ellipse) + "</annotations>")
    (pair,) = open_dataset(f"cvat:{path}").splits["train"]
    rows, columns = np.nonzero(pair.labels(path))
    assert (np.ptp(rows), np.ptp(columns)) == (7, 3)
    # Clockwise: a flat box turned by an eighth falls from the upper left to the lower right.
    slanted = '<box label="car" xtl="0" ytl="3" xbr="10" ybr="5" rotation="45"/>'
    path.write_text(content.format("a", slanted) + "</annotations>")
    (pair,) = open_dataset(f"cvat:{path}").splits["train"]
    mask = pair.labels(path)
    assert (mask[1, 2], mask[6, 7], mask[6, 2], mask[1, 7]) == (2, 2, 0, 0)


def test_faulty_cvat_files(tmp_path):
    assert "no such file; name CVAT's XML" in fault(f"cvat:{tmp_path / 'no.xml'}")
    assert "not readable as XML" in fault(f"cvat:{cvat(tmp_path, '<a>')}")
    assert "tracks of a video; export the task" in fault(
        f"cvat:{cvat(tmp_path, '<annotations><track/></annotations>')}"
    )
    assert "no labels in it" in fault(f"cvat:{cvat(tmp_path, '<annotations/>')}")
    broken = CVAT.replace("2,2;6,2", "2,2;six,2")
    assert "a shape of a.png is not CVAT's form" in fault(f"cvat:{cvat(tmp_path, broken)}")
    unknown = CVAT.replace('box label="car"', 'box label="bus"')
    assert "a shape of a.png is not CVAT's form (KeyError('bus'))" in fault(f"cvat:{cvat(tmp_path, unknown)}")
    (tmp_path / "images" / "b.png").unlink()
    (tmp_path / "annotations.xml").write_text(CVAT)
    assert "no file for 1 of 2 images: b" in fault(f"cvat:{tmp_path / 'annotations.xml'}")


def rows(root: Path, parts: dict[str, int], column: str = "annotation") -> Path:
    """A data set as `save_to_disk` writes it: images in the table, masks of 0, 2 and 255."""
    import datasets

    def part(count: int) -> datasets.Dataset:
        images = [Image.fromarray(np.full((8, 10, 3), 10 * number, dtype=np.uint8)) for number in range(count)]
        labels = [Image.fromarray(stripes((0, 2, 255), (8, 10)).astype(np.uint8)) for _ in range(count)]
        features = datasets.Features({"image": datasets.Image(), column: datasets.Image()})
        return datasets.Dataset.from_dict({"image": images, column: labels}, features=features)

    datasets.DatasetDict({name: part(count) for name, count in parts.items()}).save_to_disk(str(root))
    return root


def test_huggingface(tmp_path):
    root = rows(tmp_path / "set", {"train": 3, "validation": 1})
    dataset = open_dataset(f"hf:{root}")
    assert {split: [pair.name for pair in pairs] for split, pairs in dataset.splits.items()} == {
        "train": ["train-000000", "train-000001", "train-000002"],
        "val": ["validation-000000"],
    }
    assert dataset.classes.names == ("class 0", "class 2")
    assert "no id2label.json: 2 classes from the ids in the masks (0, 2, 255 ignored)" in dataset.notes
    (root / "id2label.json").write_text(json.dumps({"0": "sky", "1": "sea", "2": "sand"}))
    named = open_dataset(f"hf:{root}")
    assert named.classes.names == ("sky", "sea", "sand")
    image, mask = read_pair(named.splits["train"][2], named.classes)
    assert (image == 20).all()
    assert torch.equal(mask, torch.from_numpy(stripes((0, 2, 255), (8, 10)).astype(np.uint8)))
    assert check_pairs(named.splits["train"], named.classes, 3, 2).sum(axis=0).tolist() == [96, 0, 72]


def test_huggingface_rows_reach_the_workers(tmp_path):
    root = rows(tmp_path / "set", {"train": 2, "validation": 1}, "label")
    dataset = open_dataset(f"hf:{root}")
    settings = DataConfig(crop_size=(8, 10), scale=(1, 1), aspect=(1, 1), flip=0, photometric=False, workers=1)
    loader = training_loader(
        dataset.splits["train"], dataset.classes, settings, 3, (0.0,) * 3, (1.0,) * 3,
        batch_size=2, first_batch=0, num_batches=1, seed=0,
    )  # fmt: skip
    (batch,) = list(loader)
    assert sorted(image.mean().item() for image in batch.images) == pytest.approx([0, 10 / 255])
    assert batch.masks.unique().tolist() == [0, 1, 255]


def test_faulty_huggingface_sets(tmp_path):
    root = rows(tmp_path / "a", {"train": 1}, "caption")
    assert "expected columns such as image and mask (or label, annotation); there is image, caption" in fault(
        f"hf:{root}"
    )
    root = rows(tmp_path / "b", {"others": 1})
    assert "no part called train, validation or test; there is others" in fault(f"hf:{root}")
    root = rows(tmp_path / "e", {"train": 1})
    (root / "dataset_dict.json").write_text('{"splits": []}')
    assert "no part called train, validation or test; there is none at all" in fault(f"hf:{root}")
    assert "expected OWNER/NAME, and a network, or a folder" in fault("hf:nobody/nothing")
    root = rows(tmp_path / "c", {"train": 1})
    for content in ("{", "[]", '{"one": "sky"}', "[" * 100_000):
        (root / "id2label.json").write_text(content)
        assert 'id2label.json: not {"0": NAME, "1": NAME, ...}' in fault(f"hf:{root}")
    for number, (name, content) in enumerate((("state.json", "{}"), ("state.json", "[]"), ("dataset_info.json", "3"))):
        root = rows(tmp_path / f"damaged {number}", {"train": 1})
        (root / "train" / name).write_text(content)
        assert "expected the whole folder of a data set" in fault(f"hf:{root}")


def test_a_damaged_table_is_refused_before_a_row_is_read(tmp_path):
    root = rows(tmp_path / "set", {"train": 2})
    (path,) = root.rglob("*.arrow")
    whole = path.read_bytes()
    first = whole.index(b"\x89PNG")
    length = whole.index(b"\x89PNG", first + 1) - first
    where = np.array([0, length], dtype="<i4").tobytes()  # the bytes of the first image
    assert where in whole
    path.write_bytes(whole.replace(where, np.array([0, 2**30], dtype="<i4").tobytes()))
    assert "expected the whole folder of a data set" in fault(f"hf:{root}")


@pytest.mark.parametrize(
    ("module", "place"),
    [("pycocotools", lambda root: f"coco:{coco(root)}"), ("datasets", lambda root: f"hf:{root / 'unseen'}")],
)
def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch, module, place):
    name = place(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert 'pip install "asymseg[formats]"' in fault(name)


@pytest.mark.parametrize("corner", [1e300, -(2.0**40), float("nan")])
def test_corners_at_the_end_of_the_world_do_not_end_the_process(tmp_path, corner):
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 1, "category_id": 17, "segmentation": [[1, 1, corner, 1, 5, 5, 1, 5]]}]
    path.write_text(json.dumps(content))
    dataset = open_dataset(f"coco:{path}")
    with pytest.raises(DataError, match="a polygon whose corners lie"):
        [masks(dataset, split) for split in ("train", "val")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('encoding="utf-8"', 'encoding="none"', "not readable as XML"),
        ('z_order="1"', 'z_order="x"', "a shape of a.png is not CVAT's form"),
        ('name="a.png"', 'name="."', "an image without a name"),
    ],
)
def test_other_damage_of_cvat_files(tmp_path, old, new, message):
    assert message in fault(f"cvat:{cvat(tmp_path, CVAT.replace(old, new))}")


def test_a_colour_of_cvat_that_is_none_is_made_up(tmp_path):
    dataset = open_dataset(f"cvat:{cvat(tmp_path, CVAT.replace('#ff0010', '#ff00xy'))}")
    assert len(set(dataset.classes.palette)) == 3


def test_annotations_that_are_nested_without_end(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    assert "not readable as JSON" in fault(f"coco:{path}")
    picture(tmp_path / "deep.png", 1, (8, 10))
    assert "not readable as JSON" in fault(f"labelme:{tmp_path}")


def test_images_by_names_that_no_file_can_have(tmp_path):
    long = "x" * 5000 + ".png"
    path = coco(tmp_path)
    path.write_text(path.read_text().replace(f"{1:012d}.png", long))
    assert "no file for 1 of 2 images: xxx" in fault(f"coco:{path}")
    assert "no file for 1 of 2 images: xxx" in fault(f"cvat:{cvat(tmp_path, CVAT.replace('a.png', long))}")
    labelme(tmp_path / "l", "a", [])
    content = json.loads((tmp_path / "l" / "a.json").read_text())
    (tmp_path / "l" / "a.json").write_text(json.dumps(content | {"imagePath": long}))
    assert "is not there; imagePath must name it" in fault(f"labelme:{tmp_path / 'l'}")
