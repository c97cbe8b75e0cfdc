"""Two processes train one network: killed and resumed to the same bits, and stopped together by a signal to either."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from tiny_processes import shown, train_together
from tiny_runs import at_step, equal, state, timeless, tiny

import asymseg.training.train as training
from asymseg.data.sample import write_sample
from asymseg.evaluation.evaluate import evaluate
from asymseg.training.log import read_log

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, so that torch is not loaded once more"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=4, val=3, test=1)
    return folder


def run_on_two(data: Path, out: Path, signals: dict[int, int] | None = None) -> list[int | None]:
    """How two processes end; `signals` says which one sends itself what at the start of the fourth step."""
    told = {rank: partial(send, number) for rank, number in (signals or {}).items()}
    return train_together(2, data, tiny(steps=5, batch_size=4, ema=0.5), out, told)


def send(number: int, patch: pytest.MonkeyPatch) -> None:
    at_step(3, lambda: os.kill(os.getpid(), number), patch)


def test_killed_and_stopped_runs_go_on_to_the_same_bits(data, tmp_path):
    """BatchNorm's statistics and the moving average differ between the processes; only the first one's are saved."""
    assert run_on_two(data, tmp_path / "whole") == [0, 0]
    assert run_on_two(data, tmp_path / "run", {0: signal.SIGKILL, 1: signal.SIGKILL}) == [-9, -9]
    assert state(tmp_path / "run")["progress"]["step"] == 2
    assert run_on_two(data, tmp_path / "run", {1: signal.SIGTERM}) == [143, 143]
    assert state(tmp_path / "run")["progress"]["step"] == 4
    assert run_on_two(data, tmp_path / "run") == [0, 0]
    assert equal(state(tmp_path / "whole"), state(tmp_path / "run"))
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "run")


def test_processes_that_find_different_states_do_not_begin(data, tmp_path):
    """As where the run's folder is on a disk of each machine."""

    def elsewhere(patch: pytest.MonkeyPatch) -> None:
        original = training.load_last
        patch.setattr(training, "load_last", lambda folder, run: original(tmp_path / "other" / "last", run))

    train_together(1, data, tiny(), tmp_path / "run")
    assert train_together(2, data, tiny(steps=4), tmp_path / "run", {1: elsewhere}) == [2, 2]
    for rank in range(2):
        last = shown(tmp_path / "run", rank).splitlines()[-1]
        assert "finds step 0 there, and the first process (" in last
        assert "step 2; put --out on a disk that all machines see" in last


@pytest.mark.parametrize(("count", "images"), [(2, 5), (3, 2)], ids=["uneven", "one without an image"])
def test_shares_of_validation_add_up_to_the_whole(tmp_path, count, images):
    write_sample(tmp_path / "data", train=6, val=images, test=1)
    config = tiny(steps=3, batch_size=6, validate_every=3, optimizer="adamw", learning_rate=0.01)
    assert train_together(count, tmp_path / "data", config, tmp_path / "run") == [0] * count
    (validated,) = [entry for entry in read_log(tmp_path / "run") if entry["kind"] == "validation"]
    whole = evaluate(
        tmp_path / "run" / "best", tmp_path / "data", boundary=False, calibration=False, replicates=0, workers=0
    ).scores
    assert validated["miou"] == whole.miou > 0
    assert validated["pixel_accuracy"] == whole.pixel_accuracy > 0
    assert [shown(tmp_path / "run", rank) for rank in range(1, count)] == [""] * (count - 1)
