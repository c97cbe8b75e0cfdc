"""An ONNX file beside the model folder it was made of: how soon the first mask, how much memory, how long an image?

    asymseg export MODEL -o FILE.onnx
    python benchmarks/runtime.py MODEL FILE.onnx --rounds 5 --out benchmarks/results/2026-11-cpu-2-cores/runtime.json

In each round each way runs in a process of its own, one after the other: the file by onnxruntime, and the folder by
torch, plain and folded. The process is timed from its start to the first mask of a small image, and then predicts some
images of each size. Kept is the least of all rounds, by the clock and in seconds of the processor, which other work on
the machine changes less. Images are seen once, at their own size.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

WAYS = ("onnx", "torch plain", "torch folded")
SIZES = ((360, 480), (720, 960))


def main() -> None:
    parser = argparse.ArgumentParser(description="An ONNX file beside the model folder it was made of.")
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4, help="predictions of each size in a round")
    parser.add_argument("--out", type=Path, help="also write the facts to this file")
    parser.add_argument("--only", choices=WAYS, help="predict this way alone, in this process")
    parser.add_argument("--began", type=float, help="when that process was started")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(predict(arguments)))
        return
    rounds: list[dict[str, dict[str, float]]] = []
    load = [os.getloadavg()[0]]
    for _ in range(arguments.rounds):
        rounds.append({way: run(way) for way in WAYS})
        load.append(os.getloadavg()[0])
    least = {way: {name: min(each[way][name] for each in rounds) for name in rounds[0][way]} for way in WAYS}
    facts = {
        "least": least,
        "onnx as a share of torch folded": {
            name: round(value / least["torch folded"][name], 2) for name, value in least["onnx"].items()
        },
        "rounds": rounds,
        "load of the machine": [round(each, 1) for each in load],
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "numpy")},
        "date": date.today().isoformat(),
    }
    text = json.dumps(facts, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")


def run(way: str) -> dict[str, float]:
    """What a process says that predicts one way."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", way, "--began", str(time.time())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


def predict(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds and MiB of one way, in this process."""
    import numpy as np

    import asymseg

    rng = np.random.default_rng(0)
    images = {size: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES}
    whole: dict[str, Any] = {"mode": "whole", "scales": (1.0,), "flip": False}
    if arguments.only == "onnx":
        predictor = asymseg.load(arguments.file, "cpu").seeing(**whole)
    else:
        predictor = asymseg.load(arguments.model, "cpu", fold=arguments.only == "torch folded").seeing(**whole)
    predictor(images[SIZES[0]], keep=False)
    facts = {
        "first mask, s": time.time() - arguments.began,
        "first mask, CPU s": time.process_time(),
        "first mask, MiB": most_held(),
    }
    for (height, width), image in images.items():
        clock, processor = [], []
        for _ in range(arguments.images):
            began = time.monotonic(), time.process_time()
            predictor(image, keep=False)
            clock.append(time.monotonic() - began[0])
            processor.append(time.process_time() - began[1])
        facts |= {
            f"{height}x{width}, s": min(clock),
            f"{height}x{width}, CPU s": min(processor),
            f"{height}x{width}, MiB": most_held(),
        }
    return {name: round(value, 3) for name, value in facts.items()}


def most_held() -> float:
    """The most MiB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
