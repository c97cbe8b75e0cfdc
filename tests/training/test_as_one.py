"""However many processes share a batch, and in however many parts it comes, the losses are those of the whole batch."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_processes import train_together
from tiny_runs import TINY, run
from torch.nn import functional as F

from asymseg.config import Config, make_config
from asymseg.data.sample import write_sample
from asymseg.training import plan
from asymseg.training.log import read_log

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, so that torch is not loaded once more"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

WEIGHTS = (0.2, 3.0, 1.0, 0.5, 2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Scenes of which some are nearly all ignored, one wholly: a mean of means is far from the mean."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=9, val=3, test=1)
    for number, path in enumerate(sorted((folder / "masks" / "train").iterdir())):
        with Image.open(path) as opened:
            mask, palette = np.array(opened), opened.getpalette()
        mask[:, : (mask.shape[1] * number) // 8] = 255
        ignored = Image.fromarray(mask)
        if palette:
            ignored.putpalette(palette)
        ignored.save(path)
    return folder


def without_dropout(**train_settings) -> Config:
    """Small steps, for large ones make more and more of what is rounded otherwise."""
    settings = {"steps": 10, "batch_size": 8, "log_every": 1, "validate_every": 10, "learning_rate": 5e-4}
    data = {"max_class_share": 1.0, "check": False}
    return make_config(TINY, {"model": {"dropout": 0.0}, "data": data, "train": {**settings, **train_settings}})


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(out) if entry["kind"] == "train"]


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": WEIGHTS, "ema": 0.9, "learning_rate": 1e-4},
        # All are hard: a pixel near the threshold would be kept by the rounding of one run and not of the other.
        {"loss": "ohem", "ohem_threshold": 1.0, "accumulation": 2, "batch_size": 4},
    ],
    ids=["weighted", "ohem"],
)
def test_one_process_and_two_see_the_same_losses(data, tmp_path, settings):
    config = without_dropout(**settings)
    assert train_together(1, data, config, tmp_path / "one") == [0]
    assert train_together(2, data, config, tmp_path / "two") == [0, 0]
    assert len(losses(tmp_path / "one")) == 10
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


def constant_batchnorm(network: torch.nn.Module) -> None:
    """BatchNorm as a fixed factor and summand, for its statistics alone tell parts from the whole."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            norm = module
            module.forward = lambda x, norm=norm: F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias
            )


@pytest.mark.parametrize("settings", [{}, {"class_weights": WEIGHTS}])
def test_parts_that_are_accumulated_are_the_whole_batch(data, tmp_path, monkeypatch, settings):
    def made(*arguments) -> torch.nn.Module:
        network = original(*arguments)
        constant_batchnorm(network)
        return network

    original = plan.make_network
    monkeypatch.setattr(plan, "make_network", made)
    common = {"steps": 6, "validate_every": 6, **settings}
    run(data, without_dropout(batch_size=8, **common), tmp_path / "whole")
    run(data, without_dropout(batch_size=2, accumulation=4, **common), tmp_path / "parts")
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=1e-5)


def test_files_that_are_skipped_are_told_by_all_processes_alike(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    for name in ("0001.png", "0004.png"):
        (tmp_path / "data" / "masks" / "train" / name).write_bytes(b"no image")
    config = without_dropout(steps=3, batch_size=2, accumulation=4, validate_every=3)
    config = make_config(config.model_dump(), {"data": {"on_bad_file": "skip"}})
    for count, name in ((1, "one"), (2, "two")):
        assert train_together(count, tmp_path / "data", config, tmp_path / name) == [0] * count
    one, two = ([entry for entry in read_log(tmp_path / name) if entry["kind"] == "skipped"] for name in ("one", "two"))
    assert one == two
    assert len({entry["message"] for entry in one}) == 2
