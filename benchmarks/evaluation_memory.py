"""Peak memory of an evaluation: does it stay the same however many images there are?

    python benchmarks/evaluation_memory.py --images 200

Writes made-up photographs of 1024x2048 pixels with 19 classes into a temporary folder, measures an untrained network
on them, and prints peak memory of the process after 10 images and after all.
"""

import argparse
import json
import platform
import resource
import shutil
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from asymseg import ANNNet, Classes, Predictor, evaluate
from asymseg.data.pixels import write_mask
from asymseg.model.info import ModelInfo

HEIGHT, WIDTH, CLASSES = 1024, 2048, 19
EARLY = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of an evaluation.")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--output_stride", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    classes = Classes(tuple(f"class {number}" for number in range(CLASSES)))
    network = ANNNet(CLASSES, arguments.backbone, output_stride=arguments.output_stride, aux_channels=0)
    predictor = Predictor(network, ModelInfo(classes, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), "cpu")
    peaks = {}

    def note_peak(done: int, total: int) -> None:
        if done in (EARLY, total):
            peaks[done] = round(peak_gibibytes(), 3)

    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), arguments.images, classes)
        evaluate(predictor, folder, "test", progress=note_peak)
    facts = {
        "backbone": arguments.backbone,
        "output_stride": arguments.output_stride,
        "images": arguments.images,
        "size": [HEIGHT, WIDTH],
        "classes": CLASSES,
        "peak_GiB_after_images": peaks,
        "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    print(json.dumps(facts, indent=1))


def write_data(root: Path, count: int, classes: Classes) -> None:
    """One made-up photograph and mask, under many names."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT // 32, WIDTH // 32, 3), dtype=np.uint8)
    photograph = Image.fromarray(small).resize((WIDTH, HEIGHT)).filter(ImageFilter.GaussianBlur(2))
    blocks = rng.integers(0, CLASSES, (HEIGHT // 64, WIDTH // 64), dtype=np.uint8)
    images, masks = root / "images" / "test", root / "masks" / "test"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    photograph.save(images / "0.jpg", quality=90)
    write_mask(masks / "0.png", blocks.repeat(64, 0).repeat(64, 1), classes)
    for number in range(1, count):
        shutil.copy(images / "0.jpg", images / f"{number}.jpg")
        shutil.copy(masks / "0.png", masks / f"{number}.png")
    (root / "classes.json").write_text(json.dumps({"classes": list(classes.names)}), encoding="utf-8")


def peak_gibibytes() -> float:
    """Most memory this process has held at once; Linux counts it in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    main()
