"""What it costs as there are more pixels, classes, images or processes, each measured in a process of its own.

    OMP_NUM_THREADS=1 python benchmarks/growth.py --out benchmarks/results/2026-11-cpu-2-cores/growth.json

Pixels and classes: seconds of the processor for an image, the lesser of two, and memory beside the process's own, of an
untrained MobileNetV2 at stride 16; then with reading a JPEG and writing the mask and the overlay. Images: seconds and
memory for listing a folder of empty files, and for reading the manifest of a run that has done them all. Processes:
images a second by the clock and memory, of training on the sample with 8 images in a batch, one thread a process.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

SIDES = (256, 512, 1024, 2048)
CLASSES = (2, 19, 150, 255)
IMAGES = (1_000, 10_000, 100_000)
PROCESSES = (1, 2)
STEPS, WARM = 60, 20
USUAL = 512, 19
BLOCK = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs as there is more of something.")
    parser.add_argument("--out", type=Path, help="also write the facts to this file")
    parser.add_argument("--only", nargs="+", help="pixels SIDE CLASSES, images COUNT or processes COUNT, here")
    arguments = parser.parse_args()
    if arguments.only:
        kind, *numbers = arguments.only
        print(json.dumps(MEASURES[kind](*map(int, numbers))))
        return
    facts: dict[str, Any] = {
        "by side": {side: run("pixels", side, USUAL[1]) for side in SIDES},
        f"by classes, at {USUAL[0]}x{USUAL[0]}": {classes: run("pixels", USUAL[0], classes) for classes in CLASSES},
        "by images": {images: run("images", images) for images in IMAGES},
        "by processes that train": {processes: run("processes", processes) for processes in PROCESSES},
        "load of the machine": [round(each, 1) for each in os.getloadavg()],
        "hardware": f"{platform.machine()} CPU, one thread",
        "date": date.today().isoformat(),
    }
    text = json.dumps(facts, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")


def run(kind: str, *numbers: int) -> dict[str, float]:
    """What a process of its own says."""
    words = [sys.executable, __file__, "--only", kind, *map(str, numbers)]
    facts: dict[str, float] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return facts


def see(side: int, classes: int) -> dict[str, float]:
    """Predict an image of `side` x `side` pixels."""
    import numpy as np
    import torch
    from PIL import Image

    from asymseg import ANNNet, Classes, Predictor
    from asymseg.model.info import ModelInfo
    from asymseg.prediction.many.files import predict_files

    torch.manual_seed(0)
    network = ANNNet(classes, "mobilenetv2_100", output_stride=16, aux_channels=0)
    info = ModelInfo(Classes(tuple(f"class {number}" for number in range(classes))), (0.5,) * 3, (0.25,) * 3)
    predictor = Predictor(network, info, "cpu")
    coarse = np.random.default_rng(0).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    image = np.asarray(picture)
    predictor(image[:64, :64], keep=False)
    before, seconds = memory(), []
    for _ in range(2):
        began = time.process_time()
        predictor(image, keep=False)
        seconds.append(time.process_time() - began)
    held, files = memory() - before, []
    with tempfile.TemporaryDirectory() as folder:
        picture.save(Path(folder, "picture.jpg"))
        for number in range(2):
            began = time.process_time()
            predict_files(predictor, Path(folder, "picture.jpg"), Path(folder, str(number)))
            files.append(time.process_time() - began)
    return {
        "seconds": round(min(seconds), 3),
        "seconds with its files": round(min(files), 3),
        "MiB beside the process's own": round(held),
    }


def look_through(images: int) -> dict[str, float]:
    """List a folder of empty files, and read the manifest of all of them."""
    from asymseg.prediction.many.manifest import Done, begin, record
    from asymseg.prediction.many.planning import plan_files

    with tempfile.TemporaryDirectory() as folder:
        for number in range(images):
            path = Path(folder, "photos", f"{number // 1000:05}", f"{number:09}.jpg")
            if number % 1000 == 0:
                path.parent.mkdir(parents=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        before, began = memory(), time.process_time()
        plan = plan_files(Path(folder, "photos"), Path(folder, "out"))
        listed, held = time.process_time() - began, memory() - before
        begin(plan.out, {})
        for first in range(0, images, BLOCK):
            record(plan.out, [Done(name) for name in plan.names[first : first + BLOCK]])
        parts = plan.out.names(".predictions/done")
        began = time.process_time()
        done = {each.image for each in begin(plan.out, {})}
        read = time.process_time() - began
        assert len(done) == images
        return {
            "seconds to list": round(listed, 2),
            "MiB to list": round(held),
            "seconds to read the manifest": round(read, 2),
            "MiB with the manifest": round(memory() - before),
            "files of the manifest": len(parts),
            "bytes of the manifest": sum(len(content) for _, content in plan.out.contents(parts)),
        }


def train_by(processes: int) -> dict[str, float]:
    """Train as torchrun starts it; its own first steps, which are slower, do not count."""
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "data"), Path(folder, "run")
        subprocess.run([sys.executable, "-m", "asymseg", "sample", data], check=True, stdout=subprocess.DEVNULL)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "asymseg"]
        settings = {"steps": STEPS, "batch_size": 8, "log_every": WARM, "validate_every": STEPS, "save_every": STEPS}
        words = [word for name, value in settings.items() for word in (f"--train.{name}", str(value))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = [*launcher, "train", str(data), "--config", "sample", "--out", str(out), *words]
        subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)
        entries = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    speeds = [each["images_per_second"] for each in entries if each["kind"] == "train" and each["step"] > WARM]
    assert len(speeds) == STEPS // WARM - 1
    return {
        "images a second": round(len(speeds) / sum(1 / speed for speed in speeds), 2),
        "MiB of the largest process": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def memory() -> float:
    """The most that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


MEASURES: dict[str, Callable[..., dict[str, float]]] = {"pixels": see, "images": look_through, "processes": train_by}

if __name__ == "__main__":
    main()
