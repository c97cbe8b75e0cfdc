"""The way from made-up scenes to a served model with the network cut: does any of it ask for a connection?

    OMP_NUM_THREADS=1 python benchmarks/offline.py FOLDER --out offline.json

Runs the commands as a user would, each in a process of its own with an empty home, in FOLDER: sample, check, train,
evaluate, predict, export, predict and evaluate with the exported file, documentation, server. Where Linux lets it, all
of that happens in a network namespace without interfaces, and the kernel's own counters say afterwards whether anybody,
whatever language it is written in, tried to reach an address. Beside that every Python process is guarded: opening a
socket of the internet, or asking for an address by name, is noted and refused. The server alone may use the loopback.
At last the user's folder is searched for what was left there, but for matplotlib's list of fonts. Exits with 1 where
anything was noted or left, or a command failed. `--together` runs the commands up to the exported file in one process,
which is quicker.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GUARD = Path(__file__).parent / "guard"
COUNTERS = {"Ip": ("OutRequests", "OutNoRoutes"), "Tcp": ("ActiveOpens", "PassiveOpens"), "Udp": ("OutDatagrams",)}
COMMANDS = (
    "sample scenes --train 4 --val 2 --test 1",
    "check scenes --out checked",
    "train scenes --config sample --out run --train.steps 2 --train.batch_size 2 --data.workers 1",
    "evaluate run/best scenes --replicates 20 --out scores",
    "predict run/best scenes/images/test -o masks",
    "export run/best -o model.onnx",
    "predict model.onnx scenes/images/test -o again",
    "evaluate model.onnx scenes --replicates 20",
    "models",
)
LEFT_OUT = (COMMANDS[1], *COMMANDS[-2:])
"""Of one process, to be quick."""
PATIENCE = 5
"""Seconds after the last command in which somebody may still ask."""
FINE = (0, 4)
"""4 is said by `check` where it has doubts, and so few scenes give it some."""
TOGETHER = """
import time
from asymseg.cli import main
for line in {lines}:
    try:
        main(line)
    except SystemExit as end:
        if end.code not in {fine}:
            raise
time.sleep({patience})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Everything with the network cut.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--together", action="store_true", help="one process, up to the exported file")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cut_the_network()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "asked.txt"
    notes.touch()
    before, took, failed = counters(), dict[str, float](), list[str]()
    steps = [("all", together())] if arguments.together else [(line.split()[0], asymseg(line)) for line in COMMANDS]
    for number, (name, command) in enumerate(steps):
        began = time.monotonic()
        done = subprocess.run(command, cwd=folder, env=guarded(folder, notes), capture_output=True, text=True)
        took[f"{number} {name}"] = round(time.monotonic() - began, 1)
        if done.returncode not in FINE:
            failed.append(f"{' '.join(command)}: ended with {done.returncode}: {done.stderr[-500:]}")
    tried = {name: count - before[name] for name, count in counters().items()}
    interfaces = [name for _, name in socket.if_nameindex()]
    served = {} if arguments.together else others(folder, notes)
    left = sorted({path.parts[1] for path in files_below(folder / "home")} - {"matplotlib"})
    failed += [f"left in the user's folder: {name}" for name in left]
    failed += [f"{name}: {status}" for name, status in served.items() if status not in (0, 200)]
    facts: dict[str, Any] = {
        "interfaces": interfaces,
        "asked_by_python": notes.read_text(encoding="utf-8").splitlines(),
        "kernel_counters": tried,
        "failed": failed,
        "documentation and server": served,
        "seconds": took,
        "hardware": f"{platform.machine()} CPU",
        "date": date.today().isoformat(),
    }
    text = json.dumps(facts, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    # Where the network is not cut the counters are those of the whole machine.
    sys.exit(bool(facts["asked_by_python"] or facts["failed"] or (is_cut() and any(tried.values()))))


def cut_the_network() -> None:
    """Go on in a network namespace without interfaces, where the system lets us make one."""
    if is_cut() or shutil.which("unshare") is None:
        return
    into = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*into, "true"], capture_output=True).returncode == 0:
        os.execvp(into[0], [*into, sys.executable, *sys.argv])


def is_cut() -> bool:
    """Whether there is no interface but the loopback."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def counters() -> dict[str, int]:
    """What the kernel has counted in this namespace; nothing where it does not say."""
    path = Path("/proc/net/snmp")
    lines = path.read_text().splitlines() if path.is_file() else []
    tables = {
        heads.split(":")[0]: dict(zip(heads.split()[1:], values.split()[1:], strict=True))
        for heads, values in zip(lines[::2], lines[1::2], strict=True)
    }
    return {
        f"{kind}.{name}": int(tables[kind][name])
        for kind, names in COUNTERS.items()
        if kind in tables
        for name in names
    }


def files_below(folder: Path) -> list[Path]:
    """All files there, seen from the folder."""
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]


def guarded(folder: Path, notes: Path) -> dict[str, str]:
    """The environment of a user who has nothing yet, with the guard of `guard/sitecustomize.py`."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "SYSTEMROOT", "LANG") if name in os.environ}
    (folder / "home").mkdir(exist_ok=True)
    paths = [str(GUARD), os.environ.get("PYTHONPATH", "")]
    home = str((folder / "home").absolute())
    return kept | {
        "HOME": home,
        "USERPROFILE": home,
        "ASKED": str(notes.absolute()),
        "PYTHONPATH": os.pathsep.join(paths),
    }


def asymseg(line: str) -> list[str]:
    """A command of ours."""
    return [sys.executable, "-m", "asymseg", *line.split()]


def together() -> list[str]:
    """The commands in one process."""
    lines = [line.split() for line in COMMANDS if line not in LEFT_OUT]
    return [sys.executable, "-c", TOGETHER.format(lines=lines, fine=FINE, patience=PATIENCE)]


def others(folder: Path, notes: Path) -> dict[str, int]:
    """How they end: the documentation built, a server that is asked for its page and a mask over the loopback."""
    environment = guarded(folder, notes) | {"NO_MKDOCS_2_WARNING": "1"}
    site = str((folder / "site").absolute())
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
    built = subprocess.run(mkdocs, cwd=ROOT, env=environment, capture_output=True, text=True)
    if is_cut():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = asymseg(f"serve run/best --port {port}")
    with subprocess.Popen(
        command, cwd=folder, env=environment | {"LOOPBACK": "1"}, stderr=subprocess.DEVNULL
    ) as server:
        answers = asked_for(f"http://127.0.0.1:{port}", next((folder / "scenes/images/test").iterdir()))
        server.terminate()
    said = {"documentation": built.returncode, "server": server.returncode, **answers}
    return said


def asked_for(address: str, image: Path) -> dict[str, int]:
    """The status of each answer."""
    import httpx

    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        for _ in range(600):
            try:
                client.get("/readyz").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        mask = client.post("/v1/predict", files={"image": image.read_bytes()})
        return {"/": client.get("/").status_code, "/v1/predict": mask.status_code}


if __name__ == "__main__":
    main()
