"""Many images: which are meant, what is written where, and no file lost on the way."""

import errno
from pathlib import Path

import numpy as np
import pytest
from colour_networks import Colours, Reading
from PIL import Image

from asymseg.classes import Classes
from asymseg.data.files import read_mask
from asymseg.errors import AsymsegError, ConfigError, DataError
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.prediction.many.files import predict_files
from asymseg.prediction.many.planning import find_images, plan_files
from asymseg.prediction.many.stores import Store
from asymseg.prediction.predict import Predictor

CLASSES = Classes(("red", "green", "blue"), ((200, 10, 20), (30, 180, 40), (50, 60, 250)))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(Reading(), ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3), "cpu")


def put(path: Path, seed: int = 0) -> np.ndarray:
    """Write an image whose colours are these classes."""
    mask = np.random.default_rng(seed).integers(0, 3, (5 + seed, 7), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(3, dtype=np.uint8)[mask] * 255).save(path)
    return mask


@pytest.fixture
def photos(tmp_path) -> tuple[Path, dict[str, np.ndarray]]:
    """Three images at two depths, and what is none."""
    folder = tmp_path / "photos"
    names = ("b.png", "a.tif", "trip/day one/c.BMP")
    masks = {name: put(folder / name, seed) for seed, name in enumerate(names)}
    (folder / "notes.txt").write_text("no image")
    (folder / "._b.png").write_bytes(b"left behind by a Mac")
    return folder, masks


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_overlays_opacity(predictor, tmp_path):
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "red.png")
    for opacity, colour in ((0.0, (255, 0, 0)), (1.0, (200, 10, 20))):
        predict_files(predictor, tmp_path / "red.png", tmp_path / "out", opacity=opacity)
        with Image.open(tmp_path / "out" / "red_overlay.jpg") as opened:
            assert np.abs(np.asarray(opened, dtype=float) - colour).max() < 8  # it is a JPEG
    with pytest.raises(ConfigError, match="opacity = 2.0 must be from 0 to 1"):
        predict_files(predictor, tmp_path / "red.png", tmp_path / "more", opacity=2.0)
    assert not (tmp_path / "more").exists()


def test_a_folder_of_data_brings_its_masks_and_that_is_told(tmp_path):
    for kind in ("images", "masks"):
        put(tmp_path / "data" / kind / "train" / "a.png")
    with pytest.warns(UserWarning, match=r"data/masks: masks are predicted .*; name .*data/images for its "):
        assert len(plan_files(tmp_path / "data", tmp_path / "out").names) == 2
    assert plan_files(tmp_path / "data" / "images", tmp_path / "out").names == ("train/a.png",)  # and nothing is told


def test_a_folder_with_subfolders(predictor, photos, tmp_path):
    folder, masks = photos
    told: list[tuple[int, int]] = []
    outcome = predict_files(
        predictor, folder, tmp_path / "out", progress=lambda done, total: told.append((done, total))
    )
    assert files(tmp_path / "out") == [
        "a.png",
        "a_overlay.jpg",
        "b.png",
        "b_overlay.jpg",
        "trip/day one/c.png",
        "trip/day one/c_overlay.jpg",
    ]
    assert sorted(outcome.written) == sorted(
        tmp_path / "out" / name for name in ("a.png", "b.png", "trip/day one/c.png")
    )
    assert outcome.failures == ()
    assert told == [(1, 3), (2, 3), (3, 3)]
    for name, mask in masks.items():
        path = (tmp_path / "out" / name).with_suffix(".png")
        np.testing.assert_array_equal(read_mask(path, CLASSES).numpy(), mask)
    with Image.open(tmp_path / "out" / "b_overlay.jpg") as overlay:
        assert overlay.size == (7, 5)


def test_a_pattern_keeps_the_places_below_its_fixed_part(predictor, photos, tmp_path):
    folder, _masks = photos
    predict_files(predictor, folder / "**" / "*.[Bb]??", tmp_path / "out", overlay=False)
    assert files(tmp_path / "out") == ["trip/day one/c.png"]
    root, paths = find_images(folder / "*")
    assert root == folder
    assert [path.name for path in paths] == ["a.tif", "b.png"]


def test_a_pattern_from_here(predictor, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos[0])
    outcome = predict_files(predictor, Path("*.png"), Path("../out"), overlay=False)
    assert outcome.written == (Path("../out/b.png"),)
    assert files(tmp_path / "out") == ["b.png"]


def test_a_folder_whose_name_looks_like_a_pattern(predictor, tmp_path):
    put(tmp_path / "photos [1]" / "a.png")
    assert len(predict_files(predictor, tmp_path / "photos [1]", tmp_path / "out").written) == 1


def test_one_image_into_a_folder_or_a_named_file(predictor, photos, tmp_path):
    folder, masks = photos
    predict_files(predictor, folder / "b.png", tmp_path / "out", overlay=False)
    predict_files(predictor, folder / "b.png", tmp_path / "named" / "x.png")
    assert files(tmp_path / "out") == ["b.png"]
    assert files(tmp_path / "named") == ["x.png", "x_overlay.jpg"]
    np.testing.assert_array_equal(read_mask(tmp_path / "named" / "x.png", CLASSES).numpy(), masks["b.png"])


def test_probabilities(predictor, photos, tmp_path):
    folder, masks = photos
    predict_files(predictor, folder / "b.png", tmp_path / "out", probabilities=True)
    assert files(tmp_path / "out") == ["b.png", "b_overlay.jpg", "b_probabilities.npz"]
    with np.load(tmp_path / "out" / "b_probabilities.npz") as content:
        shares = content["probabilities"]
        assert content["classes"].tolist() == ["red", "green", "blue"]
    assert shares.dtype == np.float16
    assert shares.shape == (3, *masks["b.png"].shape)
    np.testing.assert_array_equal(shares.argmax(0), masks["b.png"])
    np.testing.assert_allclose(shares.astype(np.float32).sum(0), 1, atol=2e-3)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.png", CLASSES).numpy(), masks["b.png"])


def test_a_broken_image_is_reported_and_the_rest_is_done(predictor, photos, tmp_path):
    folder, _ = photos
    broken = folder / "aa.png"
    broken.write_bytes((folder / "b.png").read_bytes()[:40])
    (folder / "empty.jpg").write_bytes(b"")
    outcome = predict_files(predictor, folder, tmp_path / "out", overlay=False)
    assert files(tmp_path / "out") == ["a.png", "b.png", "trip/day one/c.png"]
    assert len(outcome.failures) == 2
    assert str(broken) in outcome.failures[0]
    assert "empty.jpg" in outcome.failures[1]
    assert all("\n" not in failure for failure in outcome.failures)


@pytest.mark.parametrize("names", [["a.png"], ["a.jpg", "a_overlay.jpg"]])
def test_no_input_is_overwritten(predictor, tmp_path, names):
    for name in names:
        put(tmp_path / "photos" / name)
    before = {path: path.read_bytes() for path in (tmp_path / "photos").iterdir()}
    with pytest.raises(DataError, match=r"would overwrite the image .*; choose another folder for -o"):
        predict_files(predictor, tmp_path / "photos" / "*", tmp_path / "photos")
    with pytest.raises(DataError, match="would lie among the images themselves; choose another folder for -o"):
        predict_files(predictor, tmp_path / "photos", tmp_path / "photos")
    assert {path: path.read_bytes() for path in (tmp_path / "photos").iterdir()} == before


def test_one_image_is_not_overwritten_by_its_named_mask(predictor, tmp_path):
    put(tmp_path / "a.png")
    with pytest.raises(DataError, match="would overwrite"):
        predict_files(predictor, tmp_path / "a.png", tmp_path / "a.png")


def test_the_mask_of_one_photo_may_lie_beside_it(predictor, tmp_path):
    put(tmp_path / "a.jpg")
    predict_files(predictor, tmp_path / "a.jpg", tmp_path, overlay=False)
    assert files(tmp_path) == ["a.jpg", "a.png"]


def test_results_below_the_photos_are_no_photos_the_second_time(predictor, photos):
    folder, _ = photos
    first = predict_files(predictor, folder, folder / "masks")
    written = files(folder / "masks")
    assert predict_files(predictor, folder, folder / "masks").written == first.written
    assert files(folder / "masks") == written


def test_results_that_a_pattern_matches_are_no_photos_either(predictor, photos):
    folder, _ = photos
    pattern, out = folder / "**" / "*.*", folder / "masks"
    first = predict_files(predictor, pattern, out)
    assert len(first.written) == 3
    written = files(out)
    assert predict_files(predictor, pattern, out).written == first.written
    assert files(out) == written


def test_two_inputs_for_one_mask_are_refused(predictor, tmp_path):
    put(tmp_path / "photos" / "a.jpg")
    put(tmp_path / "photos" / "a.bmp")
    with pytest.raises(DataError, match=r"a\.bmp and .*a\.jpg would both write .*a\.png"):
        predict_files(predictor, tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inputs", ["empty", "nowhere.png", "empty/*.png"])
def test_nothing_to_read_is_said(predictor, tmp_path, inputs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images there; give an image, a folder of images or a pattern"):
        predict_files(predictor, tmp_path / inputs, tmp_path / "out")


def test_a_mask_that_fails_to_be_written_leaves_no_half_file(predictor, photos, tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        predict_files(predictor, photos[0], tmp_path / "out", overlay=False)
    assert files(tmp_path / "out") == []


def test_a_network_of_four_channels_names_photos_of_three(tmp_path):
    info = ModelInfo(CLASSES, (0.0,) * 4, (1.0,) * 4)
    put(tmp_path / "a.png")
    outcome = predict_files(Predictor(Reading(), info, "cpu"), tmp_path, tmp_path / "out")
    assert outcome.written == ()
    assert "3 channels where the network takes 4" in outcome.failures[0]


def test_every_kind_of_picture_at_every_size(predictor, tmp_path):
    """16 bit, grey, alpha, palette, one bit: the mask is that of the colours one sees; overlays are written of all."""
    mask = np.random.default_rng(5).integers(0, 3, (6, 9), dtype=np.uint8)
    colours = np.eye(3, dtype=np.uint8)[mask] * 255
    rgb, grey = Image.fromarray(colours), Image.fromarray(mask * 100)
    alpha = Image.fromarray(mask * 50)
    pictures = {
        "alpha": Image.merge("RGBA", (*rgb.split(), alpha)),
        "palette": rgb.convert("P", palette=Image.Palette.ADAPTIVE),
        "grey": grey,
        "grey_alpha": Image.merge("LA", (grey, alpha)),
        "grey16": Image.fromarray(mask.astype(np.uint16) * 30_000),
        "bit": grey.point(lambda value: 255 * (value > 0)).convert("1"),
        "pixel": rgb.crop((0, 0, 1, 1)),
        "row": rgb.crop((0, 2, 9, 3)),
        "column": rgb.crop((4, 0, 5, 6)),
    }
    (tmp_path / "in").mkdir()
    for name, opened in pictures.items():
        opened.save(tmp_path / "in" / f"{name}.png")
    np.save(tmp_path / "in" / "deep.npy", colours.astype(np.uint16) * 257)
    slide = predictor.seeing(mode="slide", window=(4, 4), stride=(3, 2), weighting="tapered", flip=True)
    for number, seeing in enumerate((predictor, slide)):
        outcome = predict_files(seeing, tmp_path / "in", tmp_path / f"out{number}")
        assert (len(outcome.written), outcome.failures) == (10, ())
        told = {path.stem: read_mask(path, CLASSES).numpy() for path in outcome.written}
        for name in ("alpha", "palette", "deep"):
            np.testing.assert_array_equal(told[name], mask)
        assert told["pixel"].tolist() == mask[:1, :1].tolist()
        assert told["row"].tolist() == mask[2:3].tolist()
        assert told["column"].tolist() == mask[:, 4:5].tolist()
        for name in ("grey", "grey_alpha", "grey16", "bit"):
            assert told[name].tolist() == np.zeros((6, 9)).tolist()  # equal in all three: the first


def test_what_holds_for_all_images_is_said_at_once(photos, tmp_path):
    network = ANNNet(3, Colours(), fusion="none", context="none", context_channels=4, aux_channels=0)
    predictor = Predictor(network, ModelInfo(CLASSES, (0.0,) * 3, (1.0,) * 3), "cpu")
    with pytest.raises(ConfigError, match="takes one look"):
        predict_files(predictor.seeing(flip=True), photos[0], tmp_path / "out", tile=64)
    with pytest.raises(ConfigError, match="tile must be at least 1"):
        predict_files(predictor, photos[0], tmp_path / "out", tile=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("inputs", "name", "words"),
    [
        ("photos/b.png", "mask.jpg", "a mask is a PNG, NAME.png; or give a folder"),
        ("photos/b.png", "mask.MP4", "a mask is a PNG"),
        ("photos", "mask.png", "there are 3 images; give a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_not_taken_for_a_folder(tmp_path, photos, predictor, inputs, name, words):
    with pytest.raises(ConfigError, match=words):
        predict_files(predictor, tmp_path / inputs, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_may_be_named_like_a_file(tmp_path, photos, predictor):
    (tmp_path / "v1.png").mkdir()
    predict_files(predictor, tmp_path / "photos" / "b.png", tmp_path / "v1.png", overlay=False)
    assert files(tmp_path / "v1.png") == ["b.png"]


MADE = {"model.safetensors": "12ab"}


def test_results_in_a_store_are_the_bytes_of_those_on_the_disk(predictor, photos, tmp_path):
    folder, _ = photos
    (folder / "cut.png").write_bytes((folder / "b.png").read_bytes()[:40])
    place = f"memory://{tmp_path.name}"
    for path in folder.rglob("*"):
        if path.is_file():
            Store(place).write(path.relative_to(folder).as_posix(), path.read_bytes())
    here = predict_files(predictor, folder, tmp_path / "out", probabilities=True, made_with=MADE)
    there = predict_files(predictor, place, f"{place}/out", probabilities=True, made_with=MADE)
    assert there.written == tuple(f"{place}/out/{name}" for name in ("a.png", "b.png", "trip/day one/c.png"))
    assert len(here.written) == 3
    assert len(there.failures) == len(here.failures) == 1
    assert there.failures[0].startswith(f"{place}/cut.png: not an image")
    results = [name for name in files(tmp_path / "out") if not name.startswith(".predictions")]
    assert len(results) == 9
    assert sorted(set(Store(f"{place}/out").names())) == sorted(
        results + [name for name in Store(f"{place}/out").names() if name.startswith(".predictions")]
    )
    for name in results:
        assert Store(f"{place}/out").content(name) == (tmp_path / "out" / name).read_bytes(), name
    again = predict_files(predictor, place, f"{place}/out", probabilities=True, made_with=MADE)
    assert (again.before, again.written, len(again.failures)) == (3, (), 1)


def test_a_run_that_was_stopped_goes_on_with_the_rest(predictor, photos, tmp_path):
    folder, _ = photos
    (folder / "aa.png").write_bytes(b"damaged")
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, folder, tmp_path / "out", overlay=False, made_with=MADE, progress=stop)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert [path.name for path in sorted(first)] == ["a.png", "b.png"]
    put(folder / "aa.png", 3)  # mended
    told.clear()
    outcome = predict_files(predictor, folder, tmp_path / "out", overlay=False, made_with=MADE, progress=stop_not(told))
    assert outcome.before == 2
    assert sorted(path.name for path in outcome.written) == ["aa.png", "c.png"]
    assert told == [(3, 4), (4, 4)]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    outcome = predict_files(predictor, folder, tmp_path / "out", overlay=False, made_with=MADE)
    assert (outcome.before, outcome.written, outcome.failures) == (4, (), ())


def stop_not(told: list[tuple[int, int]]):
    return lambda done, total: told.append((done, total))


def test_a_folder_with_a_manifest_takes_nothing_made_otherwise(predictor, photos, tmp_path):
    folder, _ = photos
    predict_files(predictor, folder, tmp_path / "out", overlay=False, made_with=MADE)
    for settings, words in (
        ({"overlay": True, "made_with": MADE}, "overlay was false and is true"),
        ({"overlay": False, "made_with": {"model.safetensors": "34cd"}}, 'model.safetensors was "12ab" and is "34cd"'),
        ({"overlay": False}, "go on with --resume"),
    ):
        with pytest.raises(ConfigError, match=words):
            predict_files(predictor, folder, tmp_path / "out", **settings)
    with pytest.raises(ConfigError, match='images was .*photos" and is .*trip'):
        predict_files(predictor, folder / "trip", tmp_path / "out", overlay=False, made_with=MADE)


def test_a_full_disk_is_one_line_and_what_is_done_is_kept(predictor, photos, tmp_path, monkeypatch):
    folder, _ = photos
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith(".b."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AsymsegError, match=r"out/b.png: cannot be written \(No space left on device\); make room"):
        predict_files(predictor, folder, tmp_path / "out", overlay=False, made_with=MADE)
    assert [name for name in files(tmp_path / "out") if name.endswith(".png")] == ["a.png"]
    monkeypatch.undo()
    outcome = predict_files(predictor, folder, tmp_path / "out", overlay=False, made_with=MADE)
    assert (outcome.before, len(outcome.written)) == (1, 2)
