"""Processes that read images: what is said of one that dies, and which signals end them."""

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from asymseg.data.pairing import Pair
from asymseg.data.readers import Readers, begin_worker, make_readers

PAIRS = tuple(Pair(name, Path(f"images/{name}.png"), Path(f"masks/{name}.png")) for name in "abc")


def test_the_file_of_the_worker_that_died_is_named():
    readers = Readers(PAIRS, torch.tensor([[70, 0], [77, 2]]))
    death = readers.death(RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed. "))
    assert str(death).startswith(
        "a process that reads images died (DataLoader worker (pid 77) is killed by signal: Killed.)"
    )
    assert "while it read images/c.png and the mask;" in str(death)
    both = readers.death(RuntimeError("DataLoader worker (pid(s) 70, 77) exited unexpectedly"))
    assert "while it read images/a.png and images/c.png and the mask;" in str(both)


def test_one_that_had_read_nothing_yet():
    death = make_readers(PAIRS, 2).death(RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed."))
    assert "while it read" not in str(death)


def test_another_error_is_none_of_this():
    assert make_readers(PAIRS, 2).death(RuntimeError("shape mismatch (pid 77)")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks who sent a signal")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_worker_ends_when_its_parent_asks_and_outlives_signals_to_the_whole_group():
    context = multiprocessing.get_context("fork")
    ready = context.SimpleQueue()

    def work() -> None:
        begin_worker(0)
        ready.put(True)
        time.sleep(60)

    process = context.Process(target=work)
    process.start()
    ready.get()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        subprocess.run(["kill", f"-{int(number)}", str(process.pid)], check=True)
    process.join(0.3)
    assert process.is_alive()
    process.terminate()
    process.join(30)
    assert process.exitcode == 128 + signal.SIGTERM
