"""What a run keeps: a state that is resumed to the bit or refused, and a log without the steps that are done again."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from timm.utils import ModelEmaV3
from tiny_runs import equal
from torch import nn

from asymseg.classes import Classes
from asymseg.config import TrainConfig
from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import load_model
from asymseg.model.info import ModelInfo
from asymseg.training.log import LOG, RunLog, read_log
from asymseg.training.optimizer import make_optimizer
from asymseg.training.run import Progress, Run
from asymseg.training.state import STATE, SUMS, load_last, save_last

INFO = ModelInfo(Classes(("a", "b")), (0.5,) * 3, (0.2,) * 3)


class TwoMaps(nn.Module):
    channels = (4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        x = self.convolution(images)
        return x, x


def make_run(seed: int, ema: bool = True, **settings) -> Run:
    """A run after one step."""
    torch.manual_seed(seed)
    network = ANNNet(
        2, TwoMaps(), key_channels=4, value_channels=4, context_channels=4, aux_channels=0, pool_sizes=(1,)
    )
    optimizer = make_optimizer(network, TrainConfig(**settings))
    average = ModelEmaV3(network, decay=0.5) if ema else None
    network(torch.rand(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    if average is not None:
        average.update(network)
    return Run(network, network, optimizer, average, Accelerator(), Progress())


def save(run: Run, folder, progress: Progress) -> None:
    run.progress = progress
    save_last(folder, run, INFO)


def load(run: Run, folder) -> Progress:
    load_last(folder, run)
    return run.progress


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_state_comes_back(tmp_path, optimizer):
    saved, fresh = make_run(0, optimizer=optimizer), make_run(1, optimizer=optimizer)
    progress = Progress(7, 0.25, 5, [1.5, 1.25])
    save(saved, tmp_path / "last", progress)
    assert load(fresh, tmp_path / "last") == progress
    assert equal(saved.network.state_dict(), fresh.network.state_dict())
    assert equal(saved.optimizer.state_dict(), fresh.optimizer.state_dict())
    assert equal(saved.average.module.state_dict(), fresh.average.module.state_dict())


def test_nothing_saved_yet_is_no_error(tmp_path):
    assert load(make_run(0), tmp_path / "last") == Progress()


def test_a_save_that_was_killed_between_its_renames_is_found(tmp_path):
    saved, fresh = make_run(0), make_run(1)
    save(saved, tmp_path / "last", Progress(3))
    (tmp_path / "last").rename(tmp_path / "last.previous")
    assert load(fresh, tmp_path / "last").step == 3


def test_a_save_that_fails_leaves_the_older_one_and_no_half_folder(tmp_path, monkeypatch):
    run = make_run(0)
    save(run, tmp_path / "last", Progress(1))

    def full_disk(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr("asymseg.training.state.torch.save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(run, tmp_path / "last", Progress(2))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert load(make_run(1), tmp_path / "last").step == 1


def test_last_is_a_model_that_can_be_used_and_holds_the_average(tmp_path):
    run = make_run(0)
    assert run.evaluated is run.average.module
    assert make_run(0, ema=False).evaluated.state_dict().keys() == run.network.state_dict().keys()
    save(run, tmp_path / "last", Progress(1))
    config = json.loads((tmp_path / "last" / "config.json").read_text())
    assert config["classes"] == ["a", "b"]
    network, _ = load_model(tmp_path / "last", TwoMaps())
    assert equal(network.state_dict(), run.average.module.state_dict())
    assert not torch.equal(network.classifier.weight, run.network.classifier.weight)


def test_settings_of_now_beat_those_of_the_state(tmp_path):
    save(make_run(0, weight_decay=0.1, momentum=0.9), tmp_path / "last", Progress(1))
    fresh = make_run(1, weight_decay=0.3, momentum=0.5)
    load(fresh, tmp_path / "last")
    assert fresh.optimizer.param_groups[0]["weight_decay"] == 0.3
    assert fresh.optimizer.param_groups[1]["weight_decay"] == 0
    assert fresh.optimizer.param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"optimizer": "adamw", "ema": False}, "another optimizer"),
        ({"optimizer": "sgd", "ema": True}, "it holds no moving average"),
    ],
)
def test_a_state_of_other_settings_is_refused(tmp_path, other, reason):
    save(make_run(0, ema=False, optimizer="sgd"), tmp_path / "last", Progress(1))
    refused = rf"training\.pt: cannot be resumed with these settings \({reason}.*--out"
    with pytest.raises(CheckpointError, match=refused):
        load(make_run(1, **other), tmp_path / "last")


@pytest.mark.parametrize("part", ["backbone", "classifier"])
def test_a_state_with_other_parts_frozen_is_refused(tmp_path, part):
    save(make_run(0), tmp_path / "last", Progress(1))
    fresh = make_run(1)
    fresh.network.get_submodule(part).requires_grad_(False)
    fresh.optimizer = make_optimizer(fresh.network, TrainConfig())
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        load(fresh, tmp_path / "last")


@pytest.mark.parametrize(
    "other", [lambda momenta: {99: momenta[0]}, lambda momenta: {0: {"momentum_buffer": torch.zeros(1)}}]
)
def test_momenta_of_other_weights_are_refused(tmp_path, other):
    run = make_run(0)
    saved = run.optimizer.state_dict()
    run.optimizer.state_dict = lambda: {**saved, "state": other(saved["state"])}
    save(run, tmp_path / "last", Progress(1))
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        load(make_run(1), tmp_path / "last")


def flip_a_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_bytes(b"not a state"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "one bit": flip_a_bit,
    "gone": lambda path: path.unlink(),
    "sums of another file": lambda path: path.with_name(SUMS).write_text(f"{'0' * 64}  {STATE}\n"),
    "sums without it": lambda path: path.with_name(SUMS).write_text(""),
    "sums that are none": lambda path: path.with_name(SUMS).write_text("half a li"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_named(tmp_path, damage):
    save(make_run(0), tmp_path / "last", Progress(1))
    damage(tmp_path / "last" / STATE)
    with pytest.raises(CheckpointError, match=r"training\.pt: damaged \(.+\), and no older state is whole; .*--out"):
        load(make_run(1), tmp_path / "last")


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink])
def test_the_state_before_a_damaged_one_is_taken_and_kept(tmp_path, damage):
    for step in (1, 2, 3):
        save(make_run(step), tmp_path / "last", Progress(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "last.previous"]
    damage(tmp_path / "last" / STATE)
    fresh = make_run(9)
    note = load_last(tmp_path / "last", fresh)
    assert fresh.progress.step == 2
    assert equal(fresh.network.state_dict(), make_run(2).network.state_dict())
    assert "training.pt: damaged (" in note
    assert "from the one before, step 2" in note
    assert "\n" not in note
    save(make_run(4), tmp_path / "last", Progress(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "last.damaged", "last.previous"]
    assert [load(make_run(9), tmp_path / name).step for name in ("last", "last.previous")] == [4, 2]


def empty_the_pickle(path: Path) -> None:
    """Leave the file as torch writes it, but for a pickle that ends before it has begun."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, b"\x80\x02." if name.endswith("/data.pkl") else content)


def test_a_damaged_state_without_sums_is_named(tmp_path):
    save(make_run(0), tmp_path / "last", Progress(1))
    (tmp_path / "last" / SUMS).unlink()
    empty_the_pickle(tmp_path / "last" / STATE)
    with pytest.raises(CheckpointError, match=r"training\.pt: damaged \("):
        load(make_run(1), tmp_path / "last")


def test_two_damaged_states_are_one_line(tmp_path):
    for step in (1, 2):
        save(make_run(step), tmp_path / "last", Progress(step))
    for name in ("last", "last.previous"):
        flip_a_bit(tmp_path / name / STATE)
    with pytest.raises(CheckpointError, match=r"^[^\n]*last.previous.training\.pt: damaged[^\n]*--out$"):
        load(make_run(9), tmp_path / "last")


def test_the_sums_are_those_of_the_files(tmp_path):
    save(make_run(0), tmp_path / "last", Progress(1))
    lines = (tmp_path / "last" / SUMS).read_text().splitlines()
    expected = {path.name for path in (tmp_path / "last").iterdir()} - {SUMS}
    assert {line[66:] for line in lines} == expected >= {STATE, "model.safetensors", "config.json"}
    for line in lines:
        assert line[:64] == hashlib.sha256((tmp_path / "last" / line[66:]).read_bytes()).hexdigest()
        assert line[64:66] == "  "


def test_a_state_without_sums_is_read_all_the_same(tmp_path):
    """Runs of earlier versions have none."""
    save(make_run(0), tmp_path / "last", Progress(1))
    (tmp_path / "last" / SUMS).unlink()
    assert load(make_run(1), tmp_path / "last").step == 1


def lines(count: int) -> str:
    return "".join(json.dumps({"kind": "train", "step": step, "loss": step / 4}) + "\n" for step in range(1, count + 1))


def test_the_log_forgets_the_steps_that_are_done_again(tmp_path):
    (tmp_path / LOG).write_text(lines(5))
    console = Console(file=io.StringIO())
    with RunLog(tmp_path, 6, 3, console, active=True) as log:
        log.train(4, 0.5, 0.1, 2.0, 0.25)
        log.validation(4, float("nan"), 0.75, best=True)
    entries = read_log(tmp_path)
    assert [(entry["kind"], entry["step"]) for entry in entries] == [
        ("train", 1),
        ("train", 2),
        ("train", 3),
        ("train", 4),
        ("validation", 4),
    ]
    assert entries[3] == {
        "kind": "train",
        "step": 4,
        "loss": 0.5,
        "learning_rate": 0.1,
        "images_per_second": 2.0,
        "wait_share": 0.25,
    }
    assert entries[4] == {"kind": "validation", "step": 4, "miou": None, "pixel_accuracy": 0.75}
    assert "step 4/6" in console.file.getvalue()
    assert "(best so far)" in console.file.getvalue()


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    (tmp_path / LOG).write_text(lines(3)[:-9])
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2]
    with RunLog(tmp_path, 6, 3, Console(file=io.StringIO()), active=True) as log:
        log.validation(4, 0.5, 0.75, best=False)
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 4]


def test_no_log_is_an_empty_log(tmp_path):
    assert read_log(tmp_path) == []


def test_a_validation_says_how_far_it_is(tmp_path):
    with RunLog(tmp_path, 6, 0, Console(file=io.StringIO(), force_terminal=True), active=True) as log:
        log.validating(2, 40)
    assert "validating: image 2 of 40" in log.console.file.getvalue()


def test_a_silent_log_writes_nothing(tmp_path):
    console = Console(file=io.StringIO())
    with RunLog(tmp_path, 6, 0, console, active=False) as log:
        log.step(1, 0.5, 2.0, 0.25)
        log.train(1, 0.5, 0.1, 2.0, 0.25)
        log.validating(1, 2)
        log.validation(1, 0.5, 0.5, best=True)
    assert list(tmp_path.iterdir()) == []
    assert console.file.getvalue() == ""
