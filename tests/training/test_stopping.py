"""SIGTERM and Ctrl-C: the state is saved, the code says which it was, and the run goes on to the same bits."""

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from tiny_runs import at_step, equal, quiet, run, state, timeless, tiny

import asymseg.training.train as module
import asymseg.training.validation as validation
from asymseg.cli import main
from asymseg.data.sample import write_sample
from asymseg.training.log import read_log
from asymseg.training.stopping import StoppedError, Stopping
from asymseg.training.train import train

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=4, val=3, test=1)
    return folder


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, capfd, number, code):
    config = tiny(steps=5, save_every=5, validate_every=4, log_every=2)
    before = [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as patch:
        at_step(2, lambda: send(number), patch)
        with pytest.raises(StoppedError) as caught:
            train(data, config, out=tmp_path / "stopped", console=quiet())
    assert caught.value.code == code
    assert str(caught.value) == f"stopped by {number.name} after step 3, saved; go on with --resume"
    assert "again leaves at once" in capfd.readouterr().err
    assert state(tmp_path / "stopped")["progress"]["step"] == 3
    assert [signal.getsignal(each) for each in SIGNALS] == before

    run(data, config, tmp_path / "stopped", resume=True)
    run(data, config, tmp_path / "whole")
    assert equal(state(tmp_path / "whole"), state(tmp_path / "stopped"))
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "stopped")


def test_a_validation_is_cut_short_and_done_after_resuming(data, tmp_path, monkeypatch):
    config = tiny(steps=4, save_every=4, validate_every=2, log_every=2)
    original, seen = validation.measure, []

    def measured(predictor, pairs, dataset, workers, look):
        def told(done: int, total: int) -> None:
            seen.append(done)
            if len(seen) == 1:
                send(signal.SIGTERM)
            look(done, total)

        return original(predictor, pairs, dataset, workers, told)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "measure", measured)
        with pytest.raises(StoppedError, match="after step 2"):
            train(data, config, out=tmp_path / "stopped", console=quiet())
    assert len(seen) < 3
    assert state(tmp_path / "stopped")["progress"] | {"losses": []} == {
        "step": 2, "best_miou": -1.0, "best_step": 0, "losses": [], "unvalidated": True,
    }  # fmt: skip
    assert [entry["kind"] for entry in read_log(tmp_path / "stopped")] == ["train"]

    run(data, config, tmp_path / "stopped", resume=True)
    run(data, config, tmp_path / "whole")
    assert equal(state(tmp_path / "whole"), state(tmp_path / "stopped"))
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "stopped")
    for name in ("model.safetensors", "config.json"):
        one, two = ((tmp_path / out / "best" / name).read_bytes() for out in ("whole", "stopped"))
        assert one == two


def test_the_command_ends_with_the_code_of_the_signal(data, tmp_path, monkeypatch, capfd):
    def stopped(*_, **__):
        raise StoppedError("stopped by SIGTERM after step 3, saved; go on with --resume", signal.SIGTERM)

    monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(SystemExit) as caught:
        main(["train", str(data), "--out", str(tmp_path / "run")])
    assert caught.value.code == 143
    assert capfd.readouterr().err == "asymseg: stopped by SIGTERM after step 3, saved; go on with --resume\n"


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_the_process_at_once(number):
    def twice() -> None:
        with Stopping() as stopping:
            send(number)
            if stopping.number == number:  # the first one is noted
                send(number)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=twice)
    process.start()
    process.join(30)
    assert process.exitcode == -number


def test_another_thread_leaves_signals_alone():
    before = [signal.getsignal(each) for each in SIGNALS]
    found = []

    def enter() -> None:
        with Stopping():
            found.extend(signal.getsignal(each) for each in SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == before
