"""What int8 costs and gives: the mean IoU that the export measured, and the speed beside the float32 file.

    asymseg export MODEL -o float.onnx
    asymseg export MODEL -o int8.onnx --int8 --calibrate DATA
    python benchmarks/int8.py float.onnx int8.onnx RESULTS.json [--threads 2]

Both files are run in turn on the same image, the first round of each size does not count.
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

SIZES = ((360, 480), (540, 720), (720, 960))


def main() -> None:
    parser = argparse.ArgumentParser(description="An int8 file beside its float32 file.")
    parser.add_argument("float32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    files = {"float32": arguments.float32, "int8": arguments.int8}
    sessions = {name: open_file(path, arguments.threads) for name, path in files.items()}
    content = json.loads(sessions["int8"].get_modelmeta().custom_metadata_map["asymseg"])
    results = {
        "network": content["network"],
        "quantisation": content["quantisation"],
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "seconds": [measure(sessions, *size, arguments.rounds) for size in SIZES],
        "threads": arguments.threads,
        "onnxruntime": onnxruntime.__version__,
        "date": date.today().isoformat(),
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["seconds"], indent=1))


def open_file(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(sessions: dict[str, onnxruntime.InferenceSession], height: int, width: int, rounds: int) -> dict[str, Any]:
    """The shortest and the median time of each file for one image."""
    image = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds + 1):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run(None, {"image": image})
            times[name].append(time.perf_counter() - began)
    return {
        "size": [height, width],
        **{name: {"least": min(t[1:]), "median": median(t[1:])} for name, t in times.items()},
    }


if __name__ == "__main__":
    main()
