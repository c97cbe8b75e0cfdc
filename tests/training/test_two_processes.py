"""Two processes train one network: killed and resumed to the same bits, and stopped together by a signal to either."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from tiny_processes import train_together
from tiny_runs import at_step, equal, state, timeless, tiny

from asymseg.data.sample import write_sample

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, so that torch is not loaded once more"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning"),
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
