"""What int8 costs and gives: the mean IoU that the export measured, and the speed beside the float32 file.

    asymseg export MODEL -o float.onnx
    asymseg export MODEL -o int8.onnx --int8 --calibrate DATA
    python benchmarks/int8.py float.onnx int8.onnx RESULTS.json

Both files are run in turn on the same image, in one thread; the first round of each size does not count. What is told
are seconds of the processor, which other work on the machine moves less than those by the clock.
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from asymseg.prediction.onnx.session import import_onnxruntime

onnxruntime = import_onnxruntime()
SIZES = ((360, 480), (540, 720), (720, 960))


def main() -> None:
    parser = argparse.ArgumentParser(description="An int8 file beside its float32 file.")
    parser.add_argument("float32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    files = {"float32": arguments.float32, "int8": arguments.int8}
    sessions = {name: open_file(path) for name, path in files.items()}
    content = json.loads(sessions["int8"].get_modelmeta().custom_metadata_map["asymseg"])
    results = {
        "network": content["network"],
        "quantisation": content["quantisation"],
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "seconds": [measure(sessions, *size, arguments.rounds) for size in SIZES],
        "threads": 1,
        "onnxruntime": onnxruntime.__version__,
        "date": date.today().isoformat(),
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["seconds"], indent=1))


def open_file(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(sessions: dict[str, Any], height: int, width: int, rounds: int) -> dict[str, Any]:
    """The shortest and the median time of each file for one image."""
    image = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds + 1):
        for name, session in sessions.items():
            began = time.process_time()
            session.run(None, {"image": image})
            times[name].append(time.process_time() - began)
    return {
        "size": [height, width],
        **{name: {"least": min(t[1:]), "median": median(t[1:])} for name, t in times.items()},
    }


if __name__ == "__main__":
    main()
