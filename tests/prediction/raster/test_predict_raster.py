"""Rasters: classes as by windows in memory, georeference and no data kept, the same bytes after a kill."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn
from torch.nn import functional as F

from asymseg.classes import Classes
from asymseg.errors import AsymsegError, DataError
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor
from asymseg.prediction.raster.predict import predict_raster
from asymseg.prediction.raster.reading import Raster
from asymseg.prediction.raster.recognising import is_raster

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CLASSES = Classes(("red", "green", "blue"), ((200, 10, 20), (30, 180, 40), (50, 60, 250)))
INFO = ModelInfo(CLASSES, (0.5,) * 3, (0.25,) * 3)
PLACE = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


class Blurred(nn.Module):
    """A network that sees 9 pixels around each, so that its answer at a tile's edge is another one."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0)) - 0.5
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, images):
        return F.conv2d(images, self.weight, padding=4)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(Blurred(), INFO, "cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 150, 210), dtype=np.uint8)


def put(path: Path, pixels: np.ndarray, **profile: Any) -> Path:
    """Write a raster C H W with a place on Earth."""
    settings = {
        "driver": "GTiff",
        "count": len(pixels),
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": "EPSG:32633",
        "transform": PLACE,
        **profile,
    }
    with rasterio.open(path, "w", **settings) as dataset:
        dataset.write(pixels)
    return path


def band(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def at_once(predictor: Predictor, image: torch.Tensor, tile: int, overlap: int) -> torch.Tensor:
    """Probabilities of an image in memory, by windows."""
    size, step = (tile, tile), (tile - overlap, tile - overlap)
    return predictor.seeing(mode="slide", window=size, stride=step, weighting="tapered").probabilities(image)


def test_classes_and_probabilities_are_those_of_a_at_once(predictor, pixels, tmp_path):
    source = put(tmp_path / "in.tif", pixels)
    told: list[tuple[int, int]] = []
    outcome = predict_raster(
        predictor,
        source,
        tmp_path / "out.tif",
        tile=64,
        overlap=16,
        probabilities=True,
        progress=lambda done, total: told.append((done, total)),
    )
    expected = at_once(predictor, torch.from_numpy(pixels), 64, 16)
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), expected.argmax(0))
    assert (
        expected.argmax(0) != predictor.probabilities(torch.from_numpy(pixels)).argmax(0)
    ).any()  # it is no easy case
    assert outcome.probabilities is not None
    with rasterio.open(outcome.probabilities) as dataset:
        assert dataset.descriptions == CLASSES.names
        shares = dataset.read() * np.array(dataset.scales)[:, None, None]
    np.testing.assert_allclose(shares, expected, atol=0.5 / 254 + 1e-6)
    assert outcome.tiles == 15
    assert told == [(number, 15) for number in range(1, 16)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "out.tif", "out_probabilities.tif"]


def test_paths_may_be_words(predictor, pixels, tmp_path):
    source = put(tmp_path / "in.tif", pixels)
    names = [str(tmp_path / name) for name in ("out.tif", "out.geojson")]
    outcome = predict_raster(predictor, str(source), names[0], tile=64, polygons=names[1])
    assert outcome.path == tmp_path / "out.tif"
    assert outcome.regions
    assert (tmp_path / "out.geojson").is_file()


def test_the_result_is_a_cloud_optimised_geotiff_in_the_same_place(predictor, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 600, 530), dtype=np.uint8)
    predict_raster(predictor, put(tmp_path / "in.tif", pixels), tmp_path / "out.tif", tile=1024)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.profile["tiled"]
        assert dataset.overviews(1) == [2]
        assert (dataset.crs, dataset.transform, dataset.nodata) == ("EPSG:32633", PLACE, 255)
        assert [dataset.colormap(1)[number][:3] for number in range(3)] == list(CLASSES.palette)
        assert json.loads(dataset.tags()["classes"]) == list(CLASSES.names)
    expected = predictor.class_map(torch.from_numpy(pixels))
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), expected)


def test_ground_control_points_are_kept(predictor, pixels, tmp_path):
    points = [
        rasterio.control.GroundControlPoint(row, column, column / 10, row / 10)
        for row, column in ((0, 0), (0, 210), (150, 0))
    ]
    source = put(tmp_path / "in.tif", pixels, transform=rasterio.Affine.identity())
    with rasterio.open(source, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    predict_raster(predictor, source, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found, reference = dataset.gcps
    assert reference == rasterio.CRS.from_epsg(4326)
    assert [(point.row, point.col, point.x, point.y) for point in found] == [
        (point.row, point.col, point.x, point.y) for point in points
    ]


def test_no_data_stays_no_data_and_looks_like_the_mean(predictor, pixels, tmp_path):
    hole = np.zeros((150, 210), dtype=bool)
    hole[20:70, 30:120] = True
    holed = np.where(hole, np.uint8(7), np.where(pixels == 7, np.uint8(8), pixels))
    predict_raster(predictor, put(tmp_path / "in.tif", holed, nodata=7), tmp_path / "out.tif", tile=64, overlap=8)
    filled = torch.from_numpy(np.where(hole, np.uint8(128), holed))
    expected = np.where(hole, 255, at_once(predictor, filled, 64, 8).argmax(0))
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), expected)


def test_where_one_band_holds_data_a_pixel_of_bytes_does(predictor, pixels, tmp_path):
    dark = np.maximum(pixels, 1)
    dark[0], dark[:, 5, 5] = 0, 0
    predict_raster(predictor, put(tmp_path / "in.tif", dark, nodata=0), tmp_path / "out.tif")
    assert np.argwhere(band(tmp_path / "out.tif") == 255).tolist() == [[5, 5]]


def test_an_alpha_band_is_a_mask_and_no_channel(predictor, pixels, tmp_path):
    alpha = np.full((1, 150, 210), 255, dtype=np.uint8)
    alpha[0, :40] = 0
    source = put(tmp_path / "in.tif", np.concatenate([pixels, alpha]), photometric="RGB", alpha="YES")
    predict_raster(predictor, source, tmp_path / "out.tif")
    np.testing.assert_array_equal(band(tmp_path / "out.tif") == 255, alpha[0] == 0)


def test_floats_that_are_not_finite_are_no_data(predictor, pixels, tmp_path):
    floats = (pixels / np.float32(255)).astype(np.float32)
    floats[1, 3, 4], floats[2, 8, 9] = np.nan, -9999
    predict_raster(predictor, put(tmp_path / "in.tif", floats, nodata=-9999), tmp_path / "out.tif")
    assert np.argwhere(band(tmp_path / "out.tif") == 255).tolist() == [[3, 4], [8, 9]]


def test_a_raster_without_data_needs_no_network(predictor, tmp_path):
    source = put(tmp_path / "in.tif", np.zeros((3, 80, 90), dtype=np.uint8), nodata=0)
    predict_raster(predictor, source, tmp_path / "out.tif", tile=32, overlap=4)
    assert (band(tmp_path / "out.tif") == 255).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_depths_have_the_scale_that_pictures_have(predictor, pixels, tmp_path, dtype):
    scaled = pixels.astype(np.uint16) * 257 if dtype == "uint16" else (pixels / 255).astype(np.float32)
    predict_raster(predictor, put(tmp_path / "in.tif", scaled), tmp_path / "out.tif")
    expected = predictor.class_map(torch.from_numpy(pixels))
    assert (band(tmp_path / "out.tif") == expected.numpy()).mean() > 0.9999


def test_bands_are_chosen_in_any_order(predictor, pixels, tmp_path):
    source = put(tmp_path / "in.tif", np.concatenate([pixels[:1], pixels]), photometric="MINISBLACK")
    with pytest.raises(DataError, match="4 bands where the network takes 3; .*--bands 1 2 3"):
        predict_raster(predictor, source, tmp_path / "out.tif")
    predict_raster(predictor, source, tmp_path / "out.tif", bands=(4, 3, 2))
    expected = predictor.class_map(torch.from_numpy(pixels[::-1].copy()))
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), expected)
    with pytest.raises(DataError, match="no band 5"):
        predict_raster(predictor, source, tmp_path / "out.tif", bands=(4, 3, 5))


def test_grey_and_palette_become_three_channels(predictor, pixels, tmp_path):
    grey = put(tmp_path / "grey.tif", pixels[:1])
    predict_raster(predictor, grey, tmp_path / "out.tif")
    expected = predictor.class_map(torch.from_numpy(pixels[:1].repeat(3, axis=0)))
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), expected)
    table = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    palette = put(tmp_path / "palette.tif", pixels[:1], photometric="PALETTE")
    with rasterio.open(palette, "r+") as dataset:
        dataset.write_colormap(1, {value: (*map(int, colour), 255) for value, colour in enumerate(table)})
    predict_raster(predictor, palette, tmp_path / "out.tif")
    expected = predictor.class_map(torch.from_numpy(table[pixels[0]]).permute(2, 0, 1))
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), expected)


def test_a_network_of_another_number_of_channels(tmp_path):
    class Five(nn.Module):
        def forward(self, images):
            return images

    five = np.random.default_rng(3).integers(0, 60_000, (5, 40, 50), dtype=np.uint16)
    classes = Classes(tuple("abcde"))
    predictor = Predictor(Five(), ModelInfo(classes, (0.5,) * 5, (0.25,) * 5), "cpu")
    predict_raster(predictor, put(tmp_path / "in.tif", five), tmp_path / "out.tif")
    np.testing.assert_array_equal(band(tmp_path / "out.tif"), five.argmax(0))


def test_a_network_that_wants_bgr_sees_the_mean_in_that_order(tmp_path):
    class Seen(nn.Module):
        def forward(self, images):
            assert images.abs().max() < 0.02
            return images

    info = ModelInfo(CLASSES, (0.1, 0.5, 0.8), (1.0,) * 3, channel_order="BGR")
    picture = np.empty((3, 20, 20), dtype=np.uint8)
    picture[:] = np.rint(np.array([0.8, 0.5, 0.1]) * 255).astype(np.uint8)[:, None, None]
    picture[:, :10] = 0
    predict_raster(Predictor(Seen(), info, "cpu"), put(tmp_path / "in.tif", picture, nodata=0), tmp_path / "out.tif")


def killed_at(killed: int, predictor: Predictor, source: Path, out: Path, **settings: Any) -> None:
    """Run a prediction in a process of its own that is killed once so many tiles are done."""

    def kill(done: int, _total: int) -> None:
        if done == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            predict_raster(predictor, source, out, progress=kill, **settings)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking beside threads, from Python 3.12 on
@pytest.mark.parametrize("killed", [3, 8, 15])
def test_killed_and_started_again_it_gives_the_same_bytes(predictor, pixels, tmp_path, killed):
    source = put(tmp_path / "in.tif", pixels)
    settings = {"tile": 64, "overlap": 16, "probabilities": True}
    whole = predict_raster(predictor, source, tmp_path / "whole.tif", **settings)
    killed_at(killed, predictor, source, tmp_path / "out.tif", **settings)
    assert not (tmp_path / "out.tif").exists()
    said: list[str] = []
    outcome = predict_raster(predictor, source, tmp_path / "out.tif", say=said.append, **settings)
    rows_done = (killed - 1) // 5  # the progress of a row's last tile is told before the row is noted as done
    assert outcome.resumed == 5 * rows_done
    assert any("going on" in line for line in said) == (rows_done > 0)
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert outcome.probabilities is not None
    assert whole.probabilities is not None
    assert outcome.probabilities.read_bytes() == whole.probabilities.read_bytes()
    assert not list(tmp_path.glob(".*"))


def stopped(predictor: Predictor, source: Path, out: Path, **settings: Any) -> None:
    """A prediction that is interrupted in its third row of tiles."""

    def stop(done: int, _total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_raster(predictor, source, out, progress=stop, **settings)


@pytest.mark.parametrize("changed", ["setting", "input", "model"])
def test_what_has_changed_starts_anew(predictor, pixels, tmp_path, changed):
    source = put(tmp_path / "in.tif", pixels)
    stopped(predictor, source, tmp_path / "out.tif", tile=64, overlap=16)
    overlap = 16
    if changed == "setting":
        overlap = 8
    elif changed == "input":
        put(source, pixels[::-1])
    else:
        network = Blurred()
        network.weight += 1e-3
        predictor = Predictor(network, INFO, "cpu")
    said: list[str] = []
    again = predict_raster(predictor, source, tmp_path / "out.tif", tile=64, overlap=overlap, say=said.append)
    assert again.resumed == 0
    assert said[0] == f"starting anew: the earlier run had another {changed}"
    predict_raster(predictor, source, tmp_path / "whole.tif", tile=64, overlap=overlap)
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").write_text("[" * 100_000),
        lambda folder: note(folder, rows=0),
        lambda folder: note(folder, rows=5),  # there are four
        lambda folder: note(folder, rows="2"),
        lambda folder: note(folder, settings=[]),
        lambda folder: note(folder, sizes={"classes.raw": None}),
        lambda folder: note(folder, sizes={}),
        lambda folder: (folder / "classes.raw").unlink(),
        lambda folder: (folder / "classes.raw").write_bytes(b"short"),
    ],
)
def test_what_is_damaged_starts_anew(predictor, pixels, tmp_path, damage):
    source = put(tmp_path / "in.tif", pixels)
    stopped(predictor, source, tmp_path / "out.tif", tile=64, overlap=16)
    damage(tmp_path / ".out.tif.unfinished")
    said: list[str] = []
    again = predict_raster(predictor, source, tmp_path / "out.tif", tile=64, overlap=16, say=said.append)
    assert again.resumed == 0
    assert said[0] == "starting anew: what the earlier run left is damaged"
    predict_raster(predictor, source, tmp_path / "whole.tif", tile=64, overlap=16)
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def note(folder: Path, **other: object) -> None:
    """Change what stands in the state."""
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | other))


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        shorten,
        lambda path: np.save(path, np.load(path)[:, :-1]),
        lambda path: np.save(path, np.load(path).astype(np.float64)),
        lambda path: np.save(path, np.array([{}], dtype=object)),
    ],
)
def test_damaged_sums_are_told_in_a_line(predictor, pixels, tmp_path, damage):
    source = put(tmp_path / "in.tif", pixels)
    stopped(predictor, source, tmp_path / "out.tif", tile=64, overlap=16)
    damage(tmp_path / ".out.tif.unfinished" / "sums-1-2.npy")
    with pytest.raises(
        AsymsegError, match=r"sums-1-2.npy: damaged \(.*\); remove .*unfinished and give the same command"
    ):
        predict_raster(predictor, source, tmp_path / "out.tif", tile=64, overlap=16)


def test_two_runs_do_not_write_one_file(predictor, pixels, tmp_path):
    source = put(tmp_path / "in.tif", pixels)
    folder = tmp_path / ".out.tif.unfinished"
    folder.mkdir()
    with FileLock(folder / "lock"), pytest.raises(AsymsegError, match="another run is writing"):
        predict_raster(predictor, source, tmp_path / "out.tif")


def test_the_input_is_not_overwritten(predictor, pixels, tmp_path):
    source = put(tmp_path / "in.tif", pixels)
    with pytest.raises(DataError, match="the raster itself"):
        predict_raster(predictor, source, tmp_path / "." / "in.tif")
    (tmp_path / "in.vrt").write_text(
        '<VRTDataset rasterXSize="210" rasterYSize="150">'
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{number}"><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">in.tif</SourceFilename><SourceBand>{number}</SourceBand>'
            "</SimpleSource></VRTRasterBand>"
            for number in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    with pytest.raises(DataError, match="a part of it"):
        predict_raster(predictor, tmp_path / "in.vrt", source)
    source = source.rename(tmp_path / "other_probabilities.tif")
    with pytest.raises(DataError, match="other_probabilities.tif: is the raster itself"):
        predict_raster(predictor, source, tmp_path / "other.tif", probabilities=True)
    source = source.rename(tmp_path / "in.gpkg")  # what is in a file tells GDAL, and not its name
    with pytest.raises(DataError, match="in.gpkg: is the raster itself"):
        predict_raster(predictor, source, tmp_path / "out.tif", polygons=source)


def test_a_damaged_part_is_named_and_what_is_done_is_kept(predictor, tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (3, 150, 210), dtype=np.uint8)
    source = put(tmp_path / "in.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = bytearray(source.read_bytes())
    content[-3000:] = bytes(3000)
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"in.tif, rows 86-150, columns .*damaged") as caught:
        predict_raster(predictor, source, tmp_path / "out.tif", tile=64, overlap=16)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.tif").exists()
    assert json.loads((tmp_path / ".out.tif.unfinished" / "state.json").read_text())["rows"] == 2


def test_who_reads_ahead_stops_before_the_raster_is_closed(predictor, pixels, tmp_path, monkeypatch):
    closed, read = [], Raster.read_valid

    def slowly(raster, rows, columns):
        time.sleep(0.1)
        closed.append(raster.dataset.closed)
        return read(raster, rows, columns)

    def interrupted(image):
        raise KeyboardInterrupt

    monkeypatch.setattr(Raster, "read_valid", slowly)
    monkeypatch.setattr(predictor, "probabilities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_raster(predictor, put(tmp_path / "in.tif", pixels), tmp_path / "out.tif", tile=64)
    time.sleep(0.3)
    assert closed
    assert not any(closed)


def test_other_mistakes_are_named(predictor, pixels, tmp_path):
    (tmp_path / "no.tif").write_bytes(b"II*\0 no raster")
    with pytest.raises(DataError, match="no.tif: not readable"):
        predict_raster(predictor, tmp_path / "no.tif", tmp_path / "out.tif")
    with pytest.raises(DataError, match="no such file"):
        predict_raster(predictor, tmp_path / "absent.tif", tmp_path / "out.tif")
    with pytest.raises(DataError, match="int16"):
        predict_raster(predictor, put(tmp_path / "deep.tif", pixels.astype(np.int16)), tmp_path / "out.tif")
    with pytest.raises(DataError, match="a folder"):
        predict_raster(predictor, put(tmp_path / "in.tif", pixels), tmp_path)


def test_without_rasterio(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(AsymsegError, match=r'pip install "asymseg\[raster\]"'):
        predict_raster(predictor, tmp_path / "in.tif", tmp_path / "out.tif")


def test_a_full_disk_is_told_before_the_start(predictor, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 60_000}))
    with pytest.raises(AsymsegError, match=r"0.0 GiB free.*make room"):
        predict_raster(predictor, put(tmp_path / "in.tif", pixels), tmp_path / "out.tif")


def test_what_is_a_raster(pixels, tmp_path):
    placed = put(tmp_path / "placed.tif", pixels)
    plain = put(tmp_path / "plain.tif", pixels, crs=None, transform=rasterio.Affine.identity())
    assert is_raster(placed, tmp_path / "out")
    assert is_raster(plain, tmp_path / "out.tif")
    assert not is_raster(plain, tmp_path / "out")
    assert not is_raster(placed, tmp_path / "out.png")
    assert not is_raster(tmp_path, tmp_path / "out.tif")
