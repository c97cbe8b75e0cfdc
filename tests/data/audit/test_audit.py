"""The audit: finds every planted fault, accuses nothing else, and says nothing of clean data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import catalog_miniatures
import numpy as np
import pytest
from label_faults import CLASSES, FAULTS, image_grey, make_clean, places, save_image, save_mask, scene
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.audit.audit import Audit, audit
from asymseg.data.audit.copies import near_copies
from asymseg.data.audit.findings import Finding
from asymseg.data.dataset import DataSet, check_pairs, median_frequency_weights, open_dataset, read_pair
from asymseg.errors import DataError

CAMVID = Path(__file__).parents[3].parent / "shared" / "data" / "camvid"


def accused(result: Audit) -> set[tuple[str, Path]]:
    return {(finding.kind, path) for finding in result.findings for path in finding.files}


def only(result: Audit, kind: str) -> Finding:
    (finding,) = (finding for finding in result.findings if finding.kind == kind)
    assert "\n" not in finding.message + finding.cure
    return finding


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean") / "data"
    make_clean(root, train=2 * len(FAULTS), val=len(FAULTS))
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    make_clean(tmp_path / "data", train=6, val=3)
    return tmp_path / "data"


def test_clean_data_is_clean(clean: Path) -> None:
    assert audit(clean).findings == ()


@pytest.fixture(scope="module")
def spoilt(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[set[tuple[str, Path]], Audit]:
    """What was planted into a copy, and what was found."""
    root = tmp_path_factory.mktemp("spoilt") / "data"
    shutil.copytree(clean, root)
    planted = {entry for fault, place in zip(FAULTS, places(root), strict=True) for entry in fault(place)}
    return planted, audit(root)


def test_every_planted_fault_is_found_and_nothing_else(spoilt: tuple[set[tuple[str, Path]], Audit]) -> None:
    planted, result = spoilt
    assert len(FAULTS) >= 30
    found = accused(result)
    assert planted - found == set()
    assert {(kind, path.name) for kind, path in found - planted} == set()


def test_camvid_is_clean_and_faults_planted_into_it_are_found(tmp_path: Path) -> None:
    """Each 4th image, so that no two are frames of one moment. Its classes.json has keys for others, which is noted."""
    if not CAMVID.is_dir():
        pytest.skip("the CamVid copy is not on this machine")
    root = tmp_path / "camvid"
    for split, count in (("train", 2 * len(FAULTS)), ("val", len(FAULTS))):
        for image in sorted((CAMVID / "images" / split).iterdir())[:: 4 if split == "train" else 2][:count]:
            for source in (image, CAMVID / "masks" / split / f"{image.stem}.png"):
                place = root / source.relative_to(CAMVID)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
    shutil.copyfile(CAMVID / "classes.json", root / "classes.json")
    assert [(finding.severity, finding.kind) for finding in audit(root).findings] == [("note", "unread-key")]
    planted = {entry for fault, place in zip(FAULTS, places(root), strict=True) for entry in fault(place)}
    found = accused(audit(root))
    assert planted - found == set()
    assert {(kind, path.name) for kind, path in found - planted} == set()


def test_an_error_is_found_for_each_pair_that_training_refuses(spoilt: tuple[set[tuple[str, Path]], Audit]) -> None:
    _, result = spoilt
    guilty = {name for finding in result.findings if finding.severity == "error" for name in finding.names}
    assert result.classes is not None
    refused = set()
    for split, part in result.splits.items():
        for pair in part.pairs:
            try:
                read_pair(pair, result.classes)
            except DataError:
                refused.add(f"{split}/{pair.name}")
    assert len(refused) > 10
    assert refused <= guilty


def test_the_figures_are_those_of_the_pixels(small: Path) -> None:
    result = audit(small)
    masks = {split: [] for split in ("train", "val")}
    pixels = []
    for split, found in masks.items():
        for path in sorted((small / "masks" / split).iterdir()):
            found.append(np.asarray(Image.open(path)))
            if split == "train":
                pixels.append(
                    np.asarray(Image.open(small / "images" / split / f"{path.stem}.jpg")).reshape(-1, 3) / 255
                )
    for split, found in masks.items():
        counts = np.stack([np.bincount(mask.ravel(), minlength=4) for mask in found])
        assert result.splits[split].class_pixels == tuple(counts.sum(axis=0).tolist())
        assert result.splits[split].class_masks == tuple((counts > 0).sum(axis=0).tolist())
        if split == "train":
            assert result.weights == pytest.approx(median_frequency_weights(counts.astype(np.int64)))
    together = np.concatenate(pixels)
    assert result.mean == pytest.approx(together.mean(axis=0).tolist(), abs=1e-9)
    assert result.std == pytest.approx(together.std(axis=0).tolist(), abs=1e-9)
    everything = np.concatenate([mask.ravel() for found in masks.values() for mask in found])
    assert {value: count for value, count, _ in result.values} == {
        str(value): int((everything == value).sum()) for value in range(4)
    }
    assert result.sizes == (((96, 128), 9),)
    assert json.loads(json.dumps(result.to_dict()))["splits"]["val"]["ignored"] == 0


def change_classes(root: Path, **entries: object) -> None:
    (root / "classes.json").write_text(json.dumps({**CLASSES, **entries}))


def rewrite(root: Path, change: Callable[[np.ndarray], np.ndarray], split: str = "*") -> None:
    for path in sorted((root / "masks").glob(f"{split}/*.png")):
        save_mask(path, change(np.asarray(Image.open(path))))


def test_a_class_that_is_nowhere(small: Path) -> None:
    change_classes(small, classes=[*CLASSES["classes"], "ghost"], palette=[*CLASSES["palette"], [1, 1, 1]])
    (finding,) = audit(small).findings
    assert (finding.severity, finding.kind) == ("warning", "absent-class")
    assert "no pixel of ghost in any mask" in finding.message


def test_keys_that_nobody_reads(small: Path) -> None:
    change_classes(small, splits={"train": 300})
    (finding,) = audit(small).findings
    assert (finding.severity, finding.kind) == ("note", "unread-key")
    assert finding.message == f"{small / 'classes.json'}: not read: 'splits'"
    assert "; what is read is classes, palette, " in finding.cure


@pytest.mark.parametrize(("split", "effect"), [("train", "cannot be learnt"), ("val", "get no score")])
def test_a_class_that_a_split_lacks(small: Path, split: str, effect: str) -> None:
    rewrite(small, lambda ids: np.where(ids == 2, 0, ids).astype(np.uint8), split)
    finding = only(audit(small), "missing-class")
    assert finding.severity == "warning"
    assert finding.message.startswith(f"{split}: no pixel of bar")
    assert effect in finding.message


def test_ids_that_begin_at_one_or_are_stretched_get_their_own_cure(small: Path) -> None:
    original = {path: path.read_bytes() for path in (small / "masks").rglob("*.png")}
    rewrite(small, lambda ids: ids + 1)
    assert 'map 1 to 4 in classes.json under "values"' in only(audit(small), "undeclared-ids").cure
    for path, content in original.items():
        path.write_bytes(content)
    rewrite(small, lambda ids: ids * 85)
    assert "multiples of 85" in only(audit(small), "undeclared-ids").cure


def test_one_stray_id_among_known_ones_is_no_stretched_mask(small: Path) -> None:
    rewrite(small, lambda ids: np.where(ids == 2, 77, ids).astype(np.uint8))
    assert "map them in classes.json" in only(audit(small), "undeclared-ids").cure


def test_a_stray_id_is_suspected_where_classes_are_inferred_and_refused_where_they_are_not(small: Path) -> None:
    place = places(small)[0]
    ids = place.ids().copy()
    ids[50, 60:63] = 9
    save_mask(place.mask, ids)
    assert only(audit(small), "undeclared-ids").files == (place.mask,)
    (small / "classes.json").unlink()
    result = audit(small)
    assert result.inferred
    finding = only(result, "stray-id")
    assert finding.severity == "warning"
    assert finding.files == (place.mask,)
    assert "id 9 became a class for 3 pixels in train/000" in finding.message
    assert "5 classes" in only(result, "inferred-classes").message
    assert {finding.kind for finding in result.findings} == {"stray-id", "inferred-classes"}


def test_a_rare_class_that_is_meant_is_no_stray_id(small: Path) -> None:
    """Of one image in nine, but of a hundredth of its pixels."""
    (small / "classes.json").unlink()
    place = places(small)[0]
    ids = place.ids().copy()
    ids[30:50, 40:60] = 9
    save_mask(place.mask, ids)
    kinds = {finding.kind: finding.severity for finding in audit(small).findings}
    assert kinds == {"inferred-classes": "note", "class-in-one-image": "note", "missing-class": "warning"}


def test_colours_without_a_list_of_classes(small: Path) -> None:
    (small / "classes.json").unlink()
    for path in (small / "masks").rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    result = audit(small)
    assert result.classes is None
    finding = only(result, "undeclared-colours")
    assert "[90, 60, 30]" in finding.message
    assert "write classes.json" in finding.cure
    assert len(finding.files) == 9
    assert result.splits["train"].class_pixels == ()
    assert result.values[0][0] == "[90, 60, 30]"


def test_a_broken_list_of_classes_does_not_hide_the_rest(small: Path) -> None:
    (small / "classes.json").write_text("{")
    places(small)[0].mask.unlink()
    kinds = {finding.kind for finding in audit(small).findings}
    assert kinds == {"class-list", "missing-mask"}


def test_two_folders_and_a_part_that_is_held_out(small: Path) -> None:
    images, masks = small / "images" / "train", small / "masks" / "train"
    (small / "classes.json").rename(masks / "classes.json")
    result = audit(images=images, masks=masks)
    assert {split: len(part.pairs) for split, part in result.splits.items()} == {"train": 5, "val": 1}
    assert [finding.kind for finding in result.findings] == ["held-out"]
    opened = open_dataset(images=images, masks=masks)
    assert {split: part.pairs for split, part in result.splits.items()} == opened.splits
    assert audit(images=str(images), masks=str(masks)) == result
    assert open_dataset(images=str(images), masks=str(masks)).splits == opened.splits


def test_names_that_differ_by_an_ending(small: Path) -> None:
    for path in sorted((small / "masks").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    cures = {finding.cure for finding in audit(small).findings if finding.kind == "missing-mask"}
    assert cures == {"every image NAME has a mask NAME_mask: rename them so that both are called NAME"}


def test_a_split_without_masks_is_an_error_but_for_test(small: Path) -> None:
    shutil.rmtree(small / "masks" / "val")
    save_image(small / "images" / "test" / "a.jpg", scene(99)[0])
    kinds = [(finding.severity, finding.kind) for finding in audit(small).findings]
    assert kinds == [("error", "missing-mask"), ("note", "left-out"), ("note", "held-out")]


def test_nothing_to_look_at_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    for call in (
        lambda: audit(tmp_path / "no"),
        lambda: audit(),
        lambda: audit(tmp_path, images=tmp_path, masks=tmp_path),
        lambda: audit(images=tmp_path),
        lambda: audit(DataSet(Classes(("a",)), {})),
    ):
        with pytest.raises(DataError):
            call()


def test_workers_and_order_change_nothing(small: Path) -> None:
    image_grey(places(small)[0])
    seen: list[tuple[int, int]] = []
    one = audit(small, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 9) for number in range(1, 10)]
    assert audit(small, workers=5).to_dict() == one.to_dict()


def test_a_data_set_in_memory_is_judged_like_its_folder(small: Path) -> None:
    places(small)[0].image.write_bytes(b"")
    assert accused(audit(open_dataset(small))) == accused(audit(small))


def test_a_class_that_marks_borders_is_no_interpolation(small: Path) -> None:
    """Ground 0, a line of 1 around each object, and the object 2: ordered, one pixel wide, and right."""
    change_classes(small, classes=["ground", "line", "object"], palette=CLASSES["palette"][:3])

    def lined(ids: np.ndarray) -> np.ndarray:
        solid = ids == 2
        grown = solid.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                grown |= np.roll(solid, step, axis)
        return np.where(solid, 2, np.where(grown, 1, 0)).astype(np.uint8)

    rewrite(small, lined)
    assert audit(small).findings == ()


def test_pictures_of_hardly_any_contrast_are_not_all_alike() -> None:
    rng = np.random.default_rng(0)
    flat = np.clip(rng.normal(120, 1.0, (20, 16, 16)), 0, 255).astype(np.uint8)
    assert near_copies(flat) == []
    assert near_copies(np.concatenate([flat, flat[3:4]])) == [(3, 20)]


def test_near_copies_equal_a_comparison_of_each_with_each() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (30, 16, 16))
    noise = rng.normal(0, rng.uniform(0.2, 2, (60, 1, 1)), (60, 16, 16))
    shown = np.clip(base[rng.integers(0, 30, 60)] + noise, 0, 255)
    mirrored = rng.random(60) < 0.5
    shown[mirrored] = shown[mirrored, :, ::-1]
    thumbnails = shown.round().astype(np.uint8)
    expected = []
    for one in range(60):
        for other in range(one + 1, 60):
            for version in (thumbnails[other], thumbnails[other, :, ::-1]):
                apart = thumbnails[one].astype(float) - version
                if np.sqrt((apart**2).mean()) <= 1.6 and abs(apart).max() <= 12 and (one, other) not in expected:
                    expected.append((one, other))
    assert len(expected) > 10
    assert near_copies(thumbnails) == expected


def test_files_that_an_operating_system_leaves_are_not_data(small: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._000.jpg"):
        (small / "images" / "train" / name).write_bytes(b"x")
    assert audit(small).findings == ()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cityscapes", catalog_miniatures.cityscapes),
        ("ade20k", catalog_miniatures.ade20k),
        ("voc2012", catalog_miniatures.voc2012),
        ("camvid", catalog_miniatures.camvid_original),
    ],
)
def test_known_data_sets_are_audited_as_they_were_downloaded(tmp_path: Path, name: str, make) -> None:
    """Their miniatures hold one picture several times, which is said, and nothing that training refuses."""
    result = audit(f"{name}:{make(tmp_path)}")
    errors = {finding.kind: finding.message for finding in result.findings if finding.severity == "error"}
    assert set(errors) <= {"contradiction"}, errors
    dataset = open_dataset(f"{name}:{tmp_path}")
    for split, part in result.splits.items():
        counts = check_pairs(dataset.splits[split], dataset.classes, 3, 1)
        assert part.class_pixels == tuple(counts.sum(axis=0).tolist())


@pytest.mark.parametrize("declared", [True, False])
def test_ids_saved_as_grey_rgb_are_ids(small: Path, declared: bool) -> None:
    """As OpenCV writes what it has read without being asked for grey."""
    (small / "classes.json").write_text(json.dumps({"classes": CLASSES["classes"]}))
    if not declared:
        (small / "classes.json").unlink()
    rewrite(small, lambda ids: ids)  # plain grey, without the palette
    plain = audit(small)
    for path in (small / "masks").rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    grey = audit(small)
    assert (grey.classes, grey.splits, grey.values) == (plain.classes, plain.splits, plain.values)
    assert grey.findings == plain.findings
    assert open_dataset(small).classes == plain.classes
    dataset = open_dataset(small)
    counts = check_pairs(dataset.splits["train"], dataset.classes, 3, 1)
    assert tuple(counts.sum(axis=0).tolist()) == plain.splits["train"].class_pixels
