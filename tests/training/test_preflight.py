"""A look ahead: steps measured on tiny data, and proposals worked out by hand."""

from pathlib import Path

import pytest
from tiny_runs import TINY, quiet

import asymseg.training.preflight as module
from asymseg.cli import main
from asymseg.config import make_config
from asymseg.data.sample import write_sample
from asymseg.errors import TrainingError
from asymseg.training.preflight import Measured, line_through, preflight, propose

GIB = 2**30


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=4, val=1, test=1)
    return folder


def proposed(room: float, device: str = "cuda", loading: float = 0.01, cores: int = 8, image=(1024, 2048), **settings):
    """Of a network that holds 1 GiB and 0.5 GiB more per image, and computes 0.1 s and 0.05 s more per image."""
    config = make_config({"train": {"batch_size": 8}, "data": {"workers": 2}}, settings)
    measured = [Measured(size, 0.1 + 0.05 * size, round((1 + 0.5 * size) * GIB)) for size in (2, 4)]
    return propose(config, device, measured, GIB // 2, round(room * GIB), loading, image, cores)


def test_time_and_memory_are_read_off_the_line():
    found = proposed(room=24)
    assert found.peak_bytes == pytest.approx(5 * GIB)
    assert found.seconds_per_step == pytest.approx(0.5)
    assert found.extrapolated
    assert found.loader_share == 0
    assert (found.batch_size, found.accumulation, found.crop_size) == (8, 1, (512, 512))


def test_one_batch_size_alone_is_compared_with_none():
    """2 GiB with two images and 0.5 with none are 3.5 with four."""
    config = make_config({"train": {"batch_size": 4}})
    found = propose(config, "cuda", [Measured(2, 0.2, 2 * GIB)], GIB // 2, 24 * GIB, 0.01, (1024, 2048), 8)
    assert found.peak_bytes == pytest.approx(3.5 * GIB)
    assert found.seconds_per_step == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("room", "train", "expected"),
    [
        (24, {}, (8, 1)),
        (5 / 0.9 + 0.01, {}, (8, 1)),
        (5 / 0.9 - 0.01, {}, (4, 2)),
        (3 / 0.9 - 0.01, {}, (2, 4)),
        (2 / 0.9 - 0.01, {}, (1, 8)),
        (24, {"accumulation": 2}, (16, 1)),
        (8, {"accumulation": 2}, (8, 2)),
        (4, {"batch_size": 6}, (3, 2)),
    ],
)
def test_the_images_of_a_step_stay_as_many(room, train, expected):
    found = proposed(room, train=train)
    assert (found.batch_size, found.accumulation) == expected


def test_a_crop_is_no_larger_than_a_scaled_image_and_shrinks_where_nothing_fits():
    assert proposed(24, image=(200, 2048), data={"scale": (0.5, 1.0)}).crop_size == (200, 512)
    assert proposed(24, image=(203, 2048), data={"scale": (0.5, 1.0)}).crop_size == (208, 512)
    assert proposed(24, image=(200, 2048), data={"scale": (0.5, 2.0)}).crop_size == (400, 512)
    assert proposed(24, image=(300, 2048), data={"scale": (0.5, 2.0)}).crop_size == (512, 512)
    assert proposed(24, data={"crop_size": (769, 769)}).crop_size == (769, 769)
    # In eights: 1.35 GiB may be used, 0.35 for an image that needs 0.5: sides of sqrt(0.7) = 0.837 of 512 = 428.4
    found = proposed(1.5)
    assert found.crop_size == (424, 424)
    assert (found.batch_size, found.accumulation) == (1, 8)


def test_workers_keep_up_with_the_network_as_far_as_there_are_cores():
    """8 images need 0.5 s of computing; a process loads one in `loading` seconds."""
    assert proposed(24, loading=0.01).workers == 1  # 1.2 * 0.08 / 0.5
    assert proposed(24, loading=0.2).workers == 4  # 1.2 * 1.6 / 0.5 = 3.84
    assert proposed(24, loading=0.2, cores=3).workers == 3
    assert proposed(24, loading=0.2, cores=3, device="cpu").workers == 2
    assert proposed(24, loading=0.2, cores=1, device="cpu").workers == 1
    slow = proposed(24, loading=0.2)  # two workers bring 8 images in 0.8 s
    assert slow.loader_share == pytest.approx(0.3 / 0.8)
    assert slow.seconds_per_step == pytest.approx(0.8)
    alone = proposed(24, loading=0.01, data={"workers": 0})  # nobody loads while the network computes
    assert alone.seconds_per_step == pytest.approx(0.58)


def test_a_line_never_falls_and_one_point_is_enough():
    assert line_through([(2, 5.0), (4, 4.0)])(8) == 4.0
    assert line_through([(4, 2.0)])(8) == 4.0


def test_steps_are_measured_and_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(TINY, {"train": {"batch_size": 4}})
    found = preflight(data, config, quiet(), seconds=60.0)
    assert [part.batch_size for part in found.measured] == [2, 4]
    assert not found.extrapolated
    assert all(part.seconds > 0 and part.peak_bytes > 1e6 for part in found.measured)
    assert list(tmp_path.iterdir()) == []
    text = "\n".join(found.lines())
    assert "--train.batch_size 4 --train.accumulation 1 --data.crop_size 32 64 --data.workers" in text


def test_the_time_that_is_given_limits_the_batches(data):
    found = preflight(data, make_config(TINY, {"train": {"batch_size": 64}}), quiet(), seconds=0.001)
    assert [part.batch_size for part in found.measured] == [2]
    assert found.extrapolated


def test_what_does_not_fit_at_all_is_said(data, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(module, "optimizer_step", full)
    with pytest.raises(TrainingError, match=r"not even 2 image\(s\) of 32x64 fit into .* GiB; lower --data.crop_size"):
        preflight(data, make_config(TINY), quiet())


def test_the_command_prints_it(data, monkeypatch, capsys):
    monkeypatch.setattr(module, "preflight", lambda *_: proposed(24))
    main(["train", str(data), "--preflight"])
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("proposed     --train.batch_size 8 ")
