"""Whether a run that is killed at any moment and resumed ends as one that nobody touched: weights, state and log.

    OMP_NUM_THREADS=1 python benchmarks/kills.py FOLDER [--kills 25] [--processes 2]
    OMP_NUM_THREADS=1 python benchmarks/kills.py FOLDER --data CAMVID --config camvid-mobilenetv2

Trains once to the end in FOLDER, then again and again with SIGKILL at moments drawn evenly from the length of that run;
each attempt resumes the one before, with another number of workers, until a run has ended. All runs must leave the same
bits. A run here has few steps on small crops, and saves after each, so that many kills meet a state half written.
Prints a line per kill and writes FOLDER/kills.json. Needs a system that can fork.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from asymseg.config import Config, make_config, read_config
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.data.sample import write_sample
from asymseg.evaluation.results import hardware
from asymseg.training.log import read_log
from asymseg.training.train import train

SMALL: dict[str, Any] = {
    "model": {"pretrained": False},
    "data": {"crop_size": (64, 64), "check": False},
    "train": {"batch_size": 4, "validate_every": 10, "save_every": 1, "log_every": 4, "ema": 0.9},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a run at random moments, resume it, compare.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, help="a data folder; made-up scenes where left out")
    parser.add_argument("--config", default="sample")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--val", type=int, default=3, help="validation images, of which the first are taken")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.data is None and not (folder / "scenes").exists():
        write_sample(folder / "scenes", train=16, val=4, test=1)
    found = open_dataset(arguments.data or folder / "scenes")
    dataset = DataSet(found.classes, {**found.splits, "val": found.splits["val"][: arguments.val]})
    config = make_config(read_config(arguments.config), SMALL, {"train": {"steps": arguments.steps}})
    chosen = random.Random(arguments.seed)

    began = time.monotonic()
    finish(start(folder / "whole", dataset, config, arguments.processes), None)
    length = time.monotonic() - began
    expected = digests(folder / "whole")
    kills: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    while len(kills) < arguments.kills:
        out, first = folder / f"run {len(runs)}", len(kills)
        while True:
            data = {"workers": chosen.choice((0, 1, 2))}
            attempt = make_config(config.model_dump(), {"data": data})
            moment = chosen.uniform(0, length) if len(kills) < arguments.kills else None
            if finish(start(out, dataset, attempt, arguments.processes), moment):
                break
            half = [path.name for path in out.glob(".*.part-*")] if out.exists() else []
            kills.append({"seconds": round(moment or 0, 2), "step": saved_step(out), "half_written": half, **data})
            print(f"kill {len(kills)}: {kills[-1]}", flush=True)
        runs.append({"kills": len(kills) - first, "equal": digests(out) == expected})
        print(f"run {len(runs)}: {runs[-1]}", flush=True)
        if runs[-1]["equal"]:
            shutil.rmtree(out)
    result = {
        "config": arguments.config,
        "data": "made-up scenes" if arguments.data is None else arguments.data.name,
        "processes": arguments.processes,
        "steps": arguments.steps,
        "seconds of a whole run": round(length, 1),
        "kills": len(kills),
        "of these while a file was written": sum(bool(kill["half_written"]) for kill in kills),
        "runs": len(runs),
        "equal runs": sum(run["equal"] for run in runs),
        "sha256": expected,
        "each run": runs,
        "each kill": kills,
        "hardware": hardware(torch.device("cpu")),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    (folder / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(kills)} kills, {result['equal runs']} of {len(runs)} runs equal to the one that nobody touched")


def start(out: Path, dataset: DataSet, config: Config, processes: int) -> list[multiprocessing.Process]:
    """The processes of a run that goes on in `out`, or begins there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")  # so that not every attempt loads torch anew
    started = []
    for rank in range(processes):
        process = context.Process(target=work, args=(out, dataset, config, rank, processes, port))
        process.start()
        started.append(process)
    return started


def work(out: Path, dataset: DataSet, config: Config, rank: int, processes: int, port: int) -> None:
    """What one process of a run does, as `torchrun` would have it begin."""
    if processes > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    with out.with_name(f"{out.name}.{rank}.txt").open("a") as file:
        train(dataset, config, out=out, resume=True, console=Console(file=file, soft_wrap=True))


def finish(processes: list[multiprocessing.Process], moment: float | None) -> bool:
    """Whether the run came to its end before it was killed, at `moment` seconds from now."""
    deadline = None if moment is None else time.monotonic() + moment
    for process in processes:
        process.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
    if all(process.exitcode is not None for process in processes):
        if any(process.exitcode for process in processes):
            raise SystemExit(f"a run ended with {[process.exitcode for process in processes]}; see its .txt")
        return True
    for process in processes:
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join()
    return False


def saved_step(out: Path) -> int:
    """After which step the run will go on."""
    for name in ("last", "last.previous"):
        if (out / name / "training.pt").is_file():
            return int(torch.load(out / name / "training.pt", weights_only=True)["progress"]["step"])
    return 0


def digests(out: Path) -> dict[str, str]:
    """Hashes of all that must be the same: both models, the training state, the log without its timings."""
    log = [
        {key: value for key, value in entry.items() if key not in ("images_per_second", "wait_share")}
        for entry in read_log(out)
    ]
    state = hashlib.sha256()
    add(state, torch.load(out / "last" / "training.pt", weights_only=True))
    return {
        "best": hashlib.sha256((out / "best" / "model.safetensors").read_bytes()).hexdigest(),
        "last": hashlib.sha256((out / "last" / "model.safetensors").read_bytes()).hexdigest(),
        "state": state.hexdigest(),
        "log": hashlib.sha256(json.dumps(log).encode()).hexdigest(),
    }


def add(digest: Any, part: Any) -> None:
    """Feed a state, however it is nested, to a hash."""
    if isinstance(part, torch.Tensor):
        digest.update(part.contiguous().numpy().tobytes())
    elif isinstance(part, dict):
        for key in sorted(part, key=str):
            digest.update(str(key).encode())
            add(digest, part[key])
    elif isinstance(part, list | tuple):
        for entry in part:
            add(digest, entry)
    else:
        digest.update(repr(part).encode())


if __name__ == "__main__":
    main()
