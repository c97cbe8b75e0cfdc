"""A thousand predictions by one process: do its threads, open files and memory stay as they are?

    OMP_NUM_THREADS=1 python benchmarks/steadiness.py MODEL [MODEL.onnx] --out steadiness.json

Each model predicts pictures of mixed sizes in a process of its own. What the process holds is noted after 100
predictions, when all that is kept on purpose has been made, and after each further 100. Threads and files must stay the
same; exits with 1 where they do not, or where memory has grown by more than a twentieth from the second note to the
last.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import asymseg

SIZES = ((96, 128), (64, 192), (121, 97), (160, 160), (37, 53))
STEP = 100
GROWTH = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description="What a process holds over many predictions.")
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--predictions", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(notes(arguments.models[0], arguments.predictions)))
        return
    facts: dict[str, Any] = {"predictions": arguments.predictions, "sizes": SIZES}
    steady = True
    for model in arguments.models:
        command = [sys.executable, __file__, str(model), "--predictions", str(arguments.predictions), "--child"]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        facts["onnxruntime" if model.suffix == ".onnx" else "torch"] = told
        steady &= len(set(told["threads"])) == len(set(told["open_files"])) == 1
        steady &= told["memory_MiB"][-1] <= told["memory_MiB"][1] * GROWTH
    facts |= {"steady": steady, "hardware": f"{platform.machine()} CPU, 1 thread", "date": date.today().isoformat()}
    text = json.dumps(facts)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(not steady)


def notes(model: Path, predictions: int) -> dict[str, list[int]]:
    """What this process holds after each `STEP` predictions."""
    process, predictor = psutil.Process(), asymseg.load(model, device="cpu")
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    told: dict[str, list[int]] = {"threads": [], "open_files": [], "memory_MiB": []}
    for number in range(1, predictions + 1):
        result = predictor(pictures[number % len(pictures)])
        result.overlay()
        if number % 7 == 0:
            assert np.isfinite(np.asarray(result.probabilities)).all()
        if number % STEP == 0:
            told["threads"].append(process.num_threads())
            told["open_files"].append(process.num_fds() if hasattr(process, "num_fds") else process.num_handles())
            told["memory_MiB"].append(process.memory_info().rss // 2**20)
    return told


if __name__ == "__main__":
    main()
