"""`asymseg predict` of rasters and videos, as its user meets it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from asymseg.classes import Classes
from asymseg.cli import main
from asymseg.data.files import read_mask
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor

Run = Callable[..., tuple[int, str]]

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 10), dtype=np.uint8).repeat(12, 1).repeat(12, 2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `asymseg predict`; give its exit code and all it printed, in one line per blank."""

    def running(*arguments: str | Path) -> tuple[int, str]:
        code = 0
        try:
            main(["predict", *(str(argument) for argument in arguments), "--device", "cpu"])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    narrow = {"key_channels": 8, "value_channels": 8, "context_channels": 16, "aux_channels": 0}
    network = ANNNet(2, "resnet10t", pretrained=False, stages=(1, 2), **narrow)
    folder = tmp_path_factory.mktemp("cli") / "model"
    save_model(folder, network, ModelInfo(Classes(("land", "sea")), (0.5,) * 3, (0.25,) * 3))
    return folder


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "scene.tif"
    size = {"height": PIXELS.shape[1], "width": PIXELS.shape[2], "count": 3, "dtype": "uint8"}
    place = rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **size) as dataset:
        dataset.write(PIXELS)
    return path


def test_a_raster_with_its_polygons(model: Path, raster: Path, run: Run, tmp_path: Path) -> None:
    import rasterio

    flags = ("--tile", "64", "--overlap", "16", "--polygons", tmp_path / "regions.geojson", "--probabilities")
    out = tmp_path / "out[red]"  # which rich would take for a colour
    code, output = run(model, raster, "-o", out, *flags)
    assert code == 0, output
    assert f"classes in {out / 'scene.tif'}" in output
    assert "120 x 96 pixels predicted" in output
    assert "regions in" in output
    assert (tmp_path / "regions.geojson").is_file()
    names = sorted(path.name for path in out.iterdir())
    assert names == ["scene.tif", "scene_probabilities.tif"]
    with rasterio.open(out / "scene.tif") as dataset:
        assert dataset.shape == (96, 120)
        assert dataset.crs == "EPSG:32633"


def test_a_raster_that_is_stopped_goes_on_as_the_message_says(model, raster, run, tmp_path, monkeypatch) -> None:
    predict, calls = Predictor.probabilities, []

    def stopped(self, image):
        calls.append(image)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return predict(self, image)

    command = (model, raster, "-o", tmp_path / "a.tif", "--tile", "64", "--overlap", "16")  # two rows of three
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "probabilities", stopped)
        code, output = run(*command)
    assert code == 130
    assert "a raster where it was by the same command again" in output
    code, output = run(*command)
    assert code == 0, output
    assert "going on at tile 3 of 6" in output


def test_a_raster_with_the_context_of_the_whole_image(model: Path, raster: Path, run: Run, tmp_path: Path) -> None:
    code, output = run(model, raster, "-o", tmp_path / "a.tif", "--context", "image", "--tile", "64")
    assert code == 0, output
    code, _ = run(model, raster, "-o", tmp_path / "b.png", "--no-overlay")
    assert code == 0
    import rasterio

    with rasterio.open(tmp_path / "a.tif") as dataset:
        ids = dataset.read(1)
    whole = read_mask(tmp_path / "b.png", Classes(("land", "sea"))).numpy()
    assert (ids == whole).mean() > 0.999


def test_mistakes_are_one_line(model: Path, raster: Path, run: Run, tmp_path: Path) -> None:
    for flags, words in (
        (("-o", raster), "the raster itself"),
        (("-o", tmp_path / "a.tif", "--bands", "1", "2"), "2 bands where the network takes 3"),
        (("-o", tmp_path / "a.tif", "--overlap", "2000"), "overlap = 2000"),
        (("-o", tmp_path / "a.png", "--bands", "1", "2", "3"), "taken for a picture"),
        (("-o", tmp_path / "a.tif", "--masks", tmp_path / "masks"), "--masks is for videos"),
        (("-o", tmp_path / "a.tif", "--polygons", tmp_path / "a.shp"), "NAME.gpkg or NAME.geojson"),
    ):
        code, output = run(model, raster, *flags)
        assert code == 2
        assert words in output
        assert "Traceback" not in output
    assert not (tmp_path / "a.tif").exists()


def test_a_video_that_is_cut_short(model: Path, run: Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "drive.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for number in range(30):
            pixels = np.roll(PIXELS, 3 * number, 2).transpose(1, 2, 0)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    code, output = run(model, path, "-o", tmp_path / "whole.mp4", "--opacity", "0.3")
    assert code == 0, output
    assert "30 frames predicted" in output
    code, output = run(model, path, "-o", tmp_path / "none.mp4", "--probabilities")
    assert code == 2
    assert "--probabilities are not for it" in output
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    code, output = run(model, path, "-o", tmp_path / "out", "--masks", tmp_path / "masks")
    assert code == 3
    assert "drive.mkv: ends after" in output
    frames = len(list((tmp_path / "masks").iterdir()))
    assert 0 < frames < 30
    assert f"{frames} frames predicted; video in {tmp_path / 'out' / 'drive_overlay.mp4'}" in output
