"""Whole-image context by tiles beside the plain prediction: the same answer, what memory, what time?

    OMP_NUM_THREADS=1 python benchmarks/streaming_memory.py --backbone mobilenetv2_100 --output_stride 16

Predicts one made-up photograph twice, each time in a process of its own: at once, and by tiles with tokens of the whole
image. A process notes the memory it holds once the network and the image are loaded, and the most it has held after the
prediction; the difference is what the prediction took. The random weights are of a trained network's size and the same
in both.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from asymseg import ANNNet, Classes, Predictor
from asymseg.benchmarking.weights import liven
from asymseg.data.files import image_tensor
from asymseg.model.info import ModelInfo
from asymseg.prediction.streaming import gather_tokens, predict_tile
from asymseg.prediction.tiles import TensorSource, plan_tiles

CLASSES = 19


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory, time and agreement of whole-image context by tiles.")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--output_stride", type=int, default=16)
    parser.add_argument("--height", type=int, default=2048)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--halo", type=int, help="pixels around a tile; by default as far as the backbone looks")
    parser.add_argument("--out", type=Path, help="also write the facts to this file")
    parser.add_argument("--only", choices=("plain", "tiles"), help="predict this one way, into the folder --into")
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        predict(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = {way: run(way, folder) for way in ("plain", "tiles")}
        facts |= compare(folder) | {
            "memory_ratio": round(facts["tiles"]["MiB"] / facts["plain"]["MiB"], 3),
            "time_ratio": round(facts["tiles"]["seconds"] / facts["plain"]["seconds"], 2),
        }
    settings = {
        name: getattr(arguments, name) for name in ("backbone", "output_stride", "height", "width", "tile", "halo")
    }
    machine = {"hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} threads", "torch": torch.__version__}
    text = json.dumps(settings | facts | machine | {"date": date.today().isoformat()}, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")


def run(way: str, folder: Path) -> dict[str, float]:
    """What a process says that predicts one way."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", way, "--into", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


def predict(arguments: argparse.Namespace) -> None:
    """Predict one way; print memory and time, leave class ids and the probability of each pixel's class."""
    predictor = make_predictor(arguments.backbone, arguments.output_stride)
    image = image_tensor(photograph(arguments.height, arguments.width))
    loaded, began = held(), time.monotonic()
    if arguments.only == "plain":
        facts: dict[str, object] = {}
        mask, confidence = (x.numpy() for x in predictor.class_map_and_confidence(image))
    else:
        facts, mask, confidence = by_tiles(predictor, image, arguments.tile, arguments.halo)
    facts |= {
        "MiB": round((most_held() - loaded) / 2**20),
        "MiB_before": round(loaded / 2**20),
        "seconds": round(time.monotonic() - began, 1),
    }
    np.savez(arguments.into / f"{arguments.only}.npz", mask=mask, confidence=confidence)
    print(json.dumps(facts))


def make_predictor(backbone: str, output_stride: int) -> Predictor:
    torch.manual_seed(0)
    network = ANNNet(CLASSES, backbone, output_stride=output_stride, aux_channels=0)
    liven(network, lambda: network(torch.randn(2, 3, 128, 128)))
    classes = Classes(tuple(f"class {number}" for number in range(CLASSES)))
    return Predictor(network, ModelInfo(classes, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), "cpu")


def by_tiles(
    predictor: Predictor, image: torch.Tensor, tile: int, halo: int | None
) -> tuple[dict[str, object], np.ndarray, np.ndarray]:
    source = TensorSource(image)
    tiles = plan_tiles(predictor, source.size, tile, halo)
    tokens = gather_tokens(predictor, source, tiles)
    mask, confidence = np.empty(source.size, np.uint8), np.empty(source.size, np.float32)
    for part in tiles:
        shares = predict_tile(predictor, tokens, source, part, probabilities=True)
        mask[part.core], confidence[part.core] = shares.argmax(0).byte().numpy(), shares.amax(0).numpy()
    read = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in (t.padded for t in tiles))
    facts = {
        "tiles": len(tiles),
        "exact": tiles[0].exact,
        "radius": tiles[0].reach.radius,
        "pixels_read_per_pass": round(read / (source.size[0] * source.size[1]), 2),
    }
    return facts, mask, confidence


def compare(folder: Path) -> dict[str, float]:
    plain, tiles = (np.load(folder / f"{way}.npz") for way in ("plain", "tiles"))
    off = np.abs(tiles["confidence"] / plain["confidence"] - 1)
    return {
        "largest_relative_difference": float(off.max()),
        "pixels_of_another_class": int((plain["mask"] != tiles["mask"]).sum()),
        "classes_seen": len(np.unique(plain["mask"])),
    }


def photograph(height: int, width: int) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height)).filter(ImageFilter.GaussianBlur(2))


def held() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def most_held() -> int:
    """The most bytes that this process has held at once, as Linux counts them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
