"""Several processes that train as one, as `torchrun` has them begin; forked, so that torch is not loaded anew."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from accelerate.state import PartialState
from tiny_runs import quiet, without_report
from torch.distributed import TCPStore

from asymseg.config import Config
from asymseg.data.dataset import DataSet
from asymseg.errors import AsymsegError
from asymseg.training.stopping import StoppedError
from asymseg.training.train import train

Prepare = Callable[[pytest.MonkeyPatch], None]


def train_together(
    count: int,
    data: Path | DataSet,
    config: Config,
    out: Path,
    prepare: dict[int, Prepare] | None = None,
    *,
    report: bool = False,
) -> list[int | None]:
    """How the processes end that train one network; `prepare` says what is done first in the process of a rank.

    Without `report` the best model is not measured once more in the end. What each shows, and the error that ends it,
    stand beside `out` in a file with the number of its rank.
    """
    context = multiprocessing.get_context("fork")
    with meeting(count) as names:
        arguments = [
            (names, rank, data, config, out, (prepare or {}).get(rank, lambda patch: None), report)
            for rank in range(count)
        ]
        processes = [context.Process(target=_work, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    print(*(f"{rank}: {shown(out, rank)}" for rank in range(count)), sep="\n")  # pytest shows it where a test fails
    return [process.exitcode for process in processes]


@contextmanager
def meeting(count: int) -> Iterator[dict[str, str]]:
    """Variables by which so many processes find each other, as one alone needs none.

    The store is held here, as torchrun holds it, so that its port is never free between its choice and its use.
    """
    if count == 1:
        yield {}
        return
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def join(names: dict[str, str], rank: int) -> None:
    """Make this process the one of that rank among those that meet."""
    if names:
        os.environ |= {**names, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    PartialState._reset_state()


def shown(out: Path, rank: int) -> str:
    path = out.with_name(f"{out.name}.{rank}.txt")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _work(
    names: dict[str, str],
    rank: int,
    data: Path | DataSet,
    config: Config,
    out: Path,
    prepare: Prepare,
    report: bool,
) -> None:
    join(names, rank)
    console = quiet()
    code, error = 0, ""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        if not report:
            without_report(patch)
        try:
            train(data, config, out=out, resume=True, console=console)
        except AsymsegError as caught:
            code, error = caught.code if isinstance(caught, StoppedError) else 2, f"{caught}\n"
        except Exception as caught:
            code, error = 1, f"{caught!r}\n{traceback.format_exc()}"
    out.with_name(f"{out.name}.{rank}.txt").write_text(console.file.getvalue() + error, encoding="utf-8")
    os._exit(code)
