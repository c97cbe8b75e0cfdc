"""A raster of 20,000 x 20,000 pixels: peak memory of its prediction, and whether a killed run ends with the same bytes.

    OMP_NUM_THREADS=1 python benchmarks/raster.py FOLDER

Writes a made-up raster into FOLDER, and predicts it with a small untrained network: once in one go, and once killed by
SIGKILL half-way and started again. The two run side by side, each in a process of its own whose peak memory the system
counts. Prints the figures as JSON; the files stay in FOLDER.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.windows import Window

from asymseg import ANNNet, Classes, Predictor
from asymseg.model.info import ModelInfo
from asymseg.prediction.raster.predict import predict_raster
from asymseg.prediction.raster.reading import Raster

BACKBONE, OUTPUT_STRIDE, NAMES = "mobilenetv2_035", 32, ("water", "field", "wood", "town", "rock")
BLOCK = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory and resumption of the prediction of a large raster.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--kill", type=float, default=2.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    source = arguments.folder / "in.tif"
    if arguments.out:
        predict(source, arguments.folder / arguments.out, arguments.kill)
        return
    if not source.exists():
        make_raster(source, arguments.side)
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(child, arguments, "whole.tif", 2.0)
        killed = pool.submit(lambda: [child(arguments, "resumed.tif", 0.5), child(arguments, "resumed.tif", 2.0)])
        parts = {"whole": whole.result(), "killed": killed.result()[0], "resumed": killed.result()[1]}
    assert parts["killed"]["exit"] == -signal.SIGKILL
    hashes = [
        hashlib.sha256((arguments.folder / name).read_bytes()).hexdigest() for name in ("whole.tif", "resumed.tif")
    ]
    facts = {
        "pixels": [arguments.side, arguments.side],
        "network": f"ANNNet, {BACKBONE} at stride {OUTPUT_STRIDE}, {len(NAMES)} classes, not trained",
        "same_bytes": hashes[0] == hashes[1],
        "sha256": hashes,
        "input_GiB": round(source.stat().st_size / 2**30, 2),
        "runs": parts,
        "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} thread per process",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    print(json.dumps(facts, indent=1))


def child(arguments: argparse.Namespace, out: str, kill: float) -> dict[str, object]:
    """Run one prediction in a process of its own; how it ended, its peak memory and its times."""
    command = [sys.executable, __file__, str(arguments.folder), "--out", out, "--kill", str(kill)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    said = process.stdout.read().split()
    _, status, usage = os.wait4(process.pid, 0)
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "peak_GiB": round(usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20), 3),
        "cpu_minutes": round((usage.ru_utime + usage.ru_stime) / 60, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "tiles_of_an_earlier_run": int(said[-1]) if said else None,
    }


def predict(source: Path, out: Path, kill: float) -> None:
    """Predict the raster, or end with SIGKILL when that share of the tiles is done."""
    predictor = make_predictor(source)

    def watch(done: int, total: int) -> None:
        if done % 25 == 0:
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"{out.name}: {done} of {total} tiles, peak {held}", file=sys.stderr, flush=True)
        if done >= kill * total:
            os.kill(os.getpid(), signal.SIGKILL)

    print(predict_raster(predictor, source, out, progress=watch).resumed)


def make_predictor(source: Path) -> Predictor:
    """An untrained network, its biases such that no class wins everywhere."""
    torch.manual_seed(0)
    network = ANNNet(len(NAMES), BACKBONE, output_stride=OUTPUT_STRIDE, aux_channels=0).eval()
    info = ModelInfo(Classes(NAMES), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    with Raster(source, info) as raster:
        middle = slice(raster.size[0] // 2, raster.size[0] // 2 + 1024)
        sample = raster.read(middle, middle)
    with torch.inference_mode():
        logits = network((sample[None] / 255 - 0.5) / 0.25)[0].flatten(1)
    scale = logits.std(dim=1)
    network.classifier.weight.data /= scale[:, None, None, None]
    network.classifier.bias.data = (network.classifier.bias - logits.mean(dim=1)) / scale
    return Predictor(network, info, "cpu")


def make_raster(path: Path, side: int) -> None:
    """Smooth patches of colour with noise, written in windows; a corner without data, and a place on Earth."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (BLOCK // 64, BLOCK // 64, 3), dtype=np.uint8)
    pattern = np.array(Image.fromarray(small).resize((BLOCK, BLOCK), Image.Resampling.BICUBIC)).astype(np.float32)
    pattern = (pattern + rng.normal(0, 12, pattern.shape)).clip(1, 255).astype(np.uint8).transpose(2, 0, 1)
    place = rasterio.Affine(0.25, 0, 500_000, 0, -0.25, 5_000_000)
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "photometric": "RGB", "interleave": "pixel"}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32633", transform=place, nodata=0, **shape, **layout
    ) as out:
        for top in range(0, side, BLOCK):
            for left in range(0, side, BLOCK):
                height, width = min(BLOCK, side - top), min(BLOCK, side - left)
                block = np.roll(pattern[rng.permutation(3)], tuple(rng.integers(0, BLOCK, 2)), (1, 2))[
                    :, :height, :width
                ]
                if top + left < side // 4:
                    block[:, (np.arange(top, top + height)[:, None] + np.arange(left, left + width)) < side // 4] = 0
                out.write(block, window=Window(left, top, width, height))


if __name__ == "__main__":
    main()
