"""Two processes train one network: killed and resumed to the same bits, and stopped together by a signal to either."""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from accelerate.state import PartialState
from tiny_runs import at_step, equal, quiet, state, timeless, tiny

from asymseg.data.sample import write_sample
from asymseg.training.stopping import StoppedError
from asymseg.training.train import train

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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=one, args=(data, out, rank, port, signals or {})) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def one(data: Path, out: Path, rank: int, port: int, signals: dict[int, int]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    PartialState._reset_state()
    with pytest.MonkeyPatch.context() as patch:
        if rank in signals:
            at_step(3, lambda: os.kill(os.getpid(), signals[rank]), patch)
        try:
            train(data, tiny(steps=5, batch_size=4, ema=0.5), out=out, resume=True, console=quiet())
        except StoppedError as stop:
            os._exit(stop.code)
    os._exit(0)


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
