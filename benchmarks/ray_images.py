"""Very many images on a Ray cluster of this machine: the local engine's bytes, whatever is killed, and what it costs.

    OMP_NUM_THREADS=1 python benchmarks/ray_images.py MODEL FOLDER --images 2000 --out RESULTS.json

Writes made-up scenes into FOLDER, or takes the images of --inputs, and predicts them by `asymseg predict`: by the local
engine, and on Ray with one of the processes that hold the model killed by SIGKILL at a third of the way. Then the first
of them: on Ray, the driver killed at half of the way, and the same command again; and with an image that kills each
process that reads it. All files must be those of the local engine. Every process has one thread.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from asymseg.data.sample import write_sample
from asymseg.prediction.many.manifest import FOLDER as MANIFEST

FATAL = """
import os, signal
from asymseg.prediction.many import files

read = files.read_pixels

def dying(source, channels):
    if str(source).endswith("fatal.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(source, channels)

files.read_pixels = dying
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Very many images on a Ray cluster of this machine.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--few", type=int, default=200, help="images of the later part; 0 leaves it out")
    parser.add_argument("--inputs", type=Path, help="a folder of images, in place of made-up scenes")
    parser.add_argument("--scale", default="0.5", help="at which the network sees them")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the facts to this file")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    inputs = arguments.inputs or folder / "scenes" / "images" / "train"
    if not inputs.exists():
        write_sample(folder / "scenes", train=arguments.images, val=1, test=1)
    images = sorted(path for path in inputs.rglob("*") if path.is_file())
    flags = ["--scales", arguments.scale, "--no-overlay"]
    ray = [*flags, "--engine", "ray", "--workers", str(arguments.workers)]
    command = [sys.executable, "-m", "asymseg", "predict", str(arguments.model)]

    def reached(out: Path, number: int) -> Callable[[], bool]:
        return lambda: done(out) >= number

    killed = folder / "killed"
    local = run([*command, str(inputs), "-o", str(folder / "local"), *flags])
    expected = files(folder / "local")
    third = reached(killed, len(images) // 3)
    process = run([*command, str(inputs), "-o", str(killed), *ray], when=third, then=kill_a_process)
    parts = list((killed / MANIFEST / "done").iterdir())
    facts: dict[str, Any] = {
        "images": len(images),
        "of": "made-up scenes of 96x192 pixels" if arguments.inputs is None else arguments.inputs.name,
        "model": arguments.model.parent.name,
        "scale": arguments.scale,
        "processes that hold the model": arguments.workers,
        "local": local,
        "ray, a process killed": process | {"equal files": equal(files(killed), expected)},
        "bytes read for an image": round(sum(path.stat().st_size for path in images) / len(images)),
        "bytes written for an image": round(sum(map(len, expected.values())) / len(images)),
        "bytes of the manifest for an image": round(sum(part.stat().st_size for part in parts) / len(images), 1),
        "files of the manifest": len(parts) + 1,
        "load of the machine": [round(each, 1) for each in os.getloadavg()],
        "hardware": f"{os.cpu_count()} CPU cores, one thread for each process",
        "date": date.today().isoformat(),
    }
    keep(facts, arguments.out)
    if not arguments.few:
        return
    few, resumed, most = folder / "few", folder / "resumed", folder / "most"
    few.mkdir(exist_ok=True)
    for image in images[: arguments.few]:
        shutil.copy(image, few)
    half = reached(resumed, arguments.few // 2)
    cut = run([*command, str(few), "-o", str(resumed), *ray], when=half, then=kill_the_driver)
    facts[f"{arguments.few} images on ray, the driver killed"] = cut | {"images done by then": done(resumed)}
    rest = run([*command, str(few), "-o", str(resumed), *ray])
    facts["gone on with"] = rest | {"equal files": equal(files(resumed), expected)}
    keep(facts, arguments.out)
    shutil.copy(images[0], few / "fatal.png")
    (folder / "first").mkdir(exist_ok=True)
    (folder / "first" / "sitecustomize.py").write_text(FATAL)
    fatal = run([*command, str(few), "-o", str(most), *ray], path=str(folder / "first"))
    facts["with an image that kills"] = fatal | {"equal files": equal(files(most), expected)}
    keep(facts, arguments.out)


def keep(facts: dict[str, Any], out: Path | None) -> None:
    """Say what is known by now."""
    text = json.dumps(facts, indent=1)
    print(text, flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(f"{text}\n", encoding="utf-8")


def run(
    command: list[str],
    when: Callable[[], bool] | None = None,
    then: Callable[[psutil.Process], str] | None = None,
    path: str = "",
) -> dict[str, Any]:
    """What a command says and takes. What it started is waited for, so that nobody writes when this returns."""
    shutil.rmtree(command[command.index("-o") + 1], ignore_errors=True) if when else None
    began, did = time.monotonic(), ""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([path, environment.get("PYTHONPATH", "")])
    started = psutil.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    spent, most, family = dict[int, float](), 0, dict[int, psutil.Process]()
    while started.poll() is None:
        for process in [started, *children(started)]:
            family[process.pid] = process
            try:
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
                most = max(most, process.memory_info().rss) if process.pid == started.pid else most
            except psutil.Error:
                pass
        if when is not None and then is not None and not did and when():
            did = then(started)
        time.sleep(0.1)
    said = started.stderr.read() if started.stderr else ""
    psutil.wait_procs([process for process in family.values() if process.pid != started.pid], timeout=60)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "seconds of the processor": round(sum(spent.values()), 1),
        "peak MiB of the driver": round(most / 2**20),
        "exit code": started.returncode,
        "said": said.strip().splitlines()[-1].partition("; masks in")[0] if said.strip() else "",
    } | ({"killed": did} if did else {})


def children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def kill_a_process(driver: psutil.Process) -> str:
    """SIGKILL one of those that hold the model."""
    holding = [child for child in children(driver) if "_Process" in child.name() or "MapWorker" in name_of(child)]
    holding.sort(key=lambda child: child.memory_info().rss)
    told = f"{name_of(holding[-1])}, one of {len(holding)}"
    os.kill(holding[-1].pid, signal.SIGKILL)
    return told


def kill_the_driver(driver: psutil.Process) -> str:
    os.kill(driver.pid, signal.SIGKILL)
    return "the driver"


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:40]
    except psutil.Error:
        return ""


def done(out: Path) -> int:
    """Images that the manifest has."""
    parts = (out / MANIFEST / "done").glob("[!.]*.jsonl")
    return sum(part.read_bytes().count(b"\n") for part in parts)


def files(out: Path) -> dict[str, bytes]:
    found = [path for path in out.rglob("*") if path.is_file() and MANIFEST not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def equal(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """How many of the files that are there are the expected ones, byte by byte."""
    return f"{sum(content == expected.get(name) for name, content in found.items())} of {len(found)}"


if __name__ == "__main__":
    main()
