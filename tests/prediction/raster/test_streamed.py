"""Rasters with the context of the whole image: the network's answer to all of it at once, the same after a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asymseg.classes import Classes
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor
from asymseg.prediction.raster.predict import predict_raster

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

INFO = ModelInfo(Classes(("ground", "disc", "beacon")), (0.1, 0.2, 0.3), (0.3, 0.2, 0.25))


class Local(nn.Module):
    """Looks a few pixels around each cell of strides 4 and 8."""

    channels = (6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 6, 7, 4, padding=3), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(6, 8, 3, 2, padding=1), nn.ReLU())

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Its blocks have something to say, and no class wins everywhere."""
    torch.manual_seed(1)
    network = ANNNet(3, Local(), key_channels=4, value_channels=3, context_channels=6, aux_channels=0).eval()
    for name, parameter in network.named_parameters():
        if parameter.dim() == 4 or "output" in name:
            nn.init.normal_(parameter, std=0.5)
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 160, 200))[0].flatten(1)
    with torch.no_grad():
        network.classifier.bias -= logits.mean(dim=1)
    return Predictor(network, INFO, "cpu")


@pytest.fixture
def raster(tmp_path) -> tuple[Path, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 19, 26), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    pixels = np.maximum(pixels, 1)
    pixels[:, 30:60, 100:150] = 0
    path = tmp_path / "in.tif"
    size = {"height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", count=3, dtype="uint8", nodata=0, **size) as dataset:
        dataset.write(pixels)
    return path, pixels


def test_it_is_what_the_network_says_of_the_whole_image(predictor, raster, tmp_path):
    path, pixels = raster
    told: list[tuple[int, int]] = []
    outcome = predict_raster(
        predictor,
        path,
        tmp_path / "out.tif",
        tile=64,
        context="image",
        probabilities=True,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(number, 36) for number in range(1, 37)]  # three times 12 tiles
    valid = pixels.any(axis=0)
    mean = np.rint(np.array(INFO.mean) * 255).astype(np.uint8)[:, None, None]
    expected = predictor.probabilities(torch.from_numpy(np.where(valid, pixels, mean))).numpy()
    assert outcome.probabilities is not None
    with rasterio.open(outcome.probabilities) as dataset:
        shares = dataset.read()
    np.testing.assert_allclose(shares[:, valid] / 254, expected[:, valid], atol=0.5 / 254 + 1e-4)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        ids = dataset.read(1)
    np.testing.assert_array_equal(ids == 255, ~valid)
    assert (ids == expected.argmax(0))[valid].mean() > 0.999
    assert len(np.unique(ids)) == 4
    predict_raster(predictor, path, tmp_path / "out.tif", tile=64, context="image")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), ids)


def test_the_context_is_not_gathered_again(predictor, raster, tmp_path):
    path, _ = raster

    def stop(done: int, _total: int) -> None:
        if done == 24 + 10:
            raise KeyboardInterrupt

    settings = {"tile": 64, "context": "image"}
    with pytest.raises(KeyboardInterrupt):
        predict_raster(predictor, path, tmp_path / "out.tif", progress=stop, **settings)
    told: list[tuple[int, int]] = []
    outcome = predict_raster(
        predictor,
        path,
        tmp_path / "out.tif",
        progress=lambda done, total: told.append((done, total)),
        **settings,
    )
    assert outcome.resumed == 8
    assert told == [(9, 12), (10, 12), (11, 12), (12, 12)]
    predict_raster(predictor, path, tmp_path / "whole.tif", **settings)
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_several_looks_are_refused(predictor, raster, tmp_path):
    with pytest.raises(ConfigError, match="scales"):
        predict_raster(predictor.seeing(flip=True), raster[0], tmp_path / "out.tif", tile=64, context="image")
