"""Figures of the loader: every stage is there, and does what training does."""

import numpy as np
import pytest
import torch
from PIL import Image

from asymseg.classes import Classes
from asymseg.config import DataConfig
from asymseg.data import measure
from asymseg.data.dataset import DataSet, Pair, read_pair
from asymseg.data.measure import LoaderFigures, measure_loader, measure_stages, waiting_advice
from asymseg.data.transforms import augment
from asymseg.errors import DataError

CLASSES = Classes(("sky", "road"))
HALF, QUARTER = (0.5,) * 3, (0.25,) * 3


@pytest.fixture
def pairs(tmp_path) -> tuple[Pair, ...]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(3):
        pair = Pair(f"{number}", tmp_path / f"{number}.jpg", tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(pair.image)
        Image.fromarray(rng.integers(0, 2, (20, 24), dtype=np.uint8)).save(pair.mask)
        found.append(pair)
    return tuple(found)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_and_its_rival(pairs, workers):
    settings = DataConfig(crop_size=(16, 16), workers=workers)
    figures = measure_loader(DataSet(CLASSES, {"train": pairs}), settings, batch_size=2, rounds=2, batches=2, samples=4)
    assert figures.workers == workers
    assert figures.crop_size == (16, 16)
    assert len(figures.loader) == len(figures.rival) == 2
    assert min(figures.loader + figures.rival) > 0
    assert list(figures.stages) == [
        "decode image",
        "decode mask",
        "choose crop",
        "resize image",
        "resize mask",
        "flip",
        "colours",
        "normalise and pad",
        "take batch",
    ]
    assert all(len(seconds) == 4 and min(seconds) > 0 for seconds in figures.stages.values())


def test_the_ratio_is_the_median_over_the_rounds():
    figures = LoaderFigures(2, (8, 8), 4, {}, loader=[10.0, 30.0, 20.0], rival=[10.0, 10.0, 40.0])
    assert figures.ratio == 1.0


@pytest.mark.parametrize("photometric", [False, True])
def test_the_stages_are_those_of_training(pairs, photometric):
    settings = DataConfig(crop_size=(16, 30), photometric=photometric)
    staged = measure._Staged(pairs, CLASSES, settings, 3, HALF, QUARTER)
    for number in range(6):
        staged[number]
        image, mask = read_pair(pairs[number % 3], CLASSES)
        expected = augment(image, mask, settings, HALF, QUARTER, np.random.default_rng(number))
        assert torch.equal(staged.slot[0], expected[0])
        assert torch.equal(staged.slot[1], expected[1])
        assert torch.equal(staged.batch[1], expected[1].long())


def test_a_cache_is_measured_as_one_stage(pairs, tmp_path):
    settings = DataConfig(crop_size=(16, 16), cache=tmp_path / "cache")
    stages = measure_stages(pairs, CLASSES, settings, 3, HALF, HALF, samples=2)
    assert next(iter(stages)) == "read cache"
    assert not {"decode image", "decode mask"} & set(stages)


def test_faulty_files_are_told_by_one_line(pairs):
    pairs[1].image.write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.jpg: not an image"):
        measure_stages(pairs, CLASSES, DataConfig(crop_size=(16, 16)), 3, HALF, HALF, samples=4)
    with pytest.raises(DataError, match="no training images"):
        measure_loader(DataSet(CLASSES, {}), DataConfig())


@pytest.mark.parametrize(
    ("slowest", "cores", "cached", "cures"),
    [
        ("decode image", 8, False, "raise data.workers (now 2), or set data.cache"),
        ("decode image", 2, False, "set data.cache to a folder"),
        ("colours", 8, False, "raise data.workers (now 2)"),
        ("colours", 2, False, "2 processes read already"),
        ("read cache", 8, True, "raise data.workers (now 2)"),
    ],
)
def test_advice_names_the_slow_stage_and_what_helps(pairs, tmp_path, monkeypatch, slowest, cores, cached, cures):
    stages = {"flip": [0.001, 0.001, 0.5], slowest: [0.004, 0.004, 0.0]}
    monkeypatch.setattr(measure, "measure_stages", lambda *_, **__: stages)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    settings = DataConfig(workers=2, cache=tmp_path if cached else None)
    assert waiting_advice(0.2, pairs, CLASSES, settings, 3, HALF, HALF) is None
    line = waiting_advice(0.34, pairs, CLASSES, settings, 3, HALF, HALF)
    assert line is not None
    assert line.startswith(
        f"34% of the time goes on waiting for images; the slowest stage is {slowest!r} with 4.0 of 5.0"
    )
    assert cures in line
    assert "\n" not in line
    assert ("data.cache" in line) == ("data.cache" in cures)
    assert ("raise" in line) == ("raise" in cures)


def test_advice_measures_by_itself(pairs):
    line = waiting_advice(0.5, pairs, CLASSES, DataConfig(crop_size=(16, 16), workers=1), 3, HALF, HALF)
    assert line is not None
    assert "ms per image" in line
