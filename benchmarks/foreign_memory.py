"""Peak memory of an import and a prediction: does a ResNet-101 checkpoint fit a small machine?

    OMP_NUM_THREADS=1 python benchmarks/foreign_memory.py

Another process writes an mmsegmentation checkpoint of ANNNet with random weights. This one imports it, predicts one
image, and prints the most memory that it has held after each.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch

CLASSES = 19


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of an import and a prediction.")
    parser.add_argument("--backbone", default="resnet101c")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--write", type=Path, help="only write the checkpoint")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write, arguments.backbone)
        return
    from asymseg import Predictor
    from asymseg.model.foreign.importing import import_checkpoint

    facts: dict[str, object] = {"backbone": arguments.backbone, "size": [arguments.height, arguments.width]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        subprocess.run([sys.executable, __file__, "--backbone", arguments.backbone, "--write", str(path)], check=True)
        facts["file_MiB"] = round(path.stat().st_size / 2**20)
        facts["peak_GiB_before"] = peak_gibibytes()
        network, info = import_checkpoint(path)
        facts["peak_GiB_imported"] = peak_gibibytes()
    network = network.to(memory_format=torch.channels_last)
    predictor = Predictor(network, info, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.height, arguments.width, 3), dtype=np.uint8)
    predictor(pixels)
    facts["peak_GiB_predicted"] = peak_gibibytes()
    facts |= {"hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} threads", "torch": torch.__version__}
    print(json.dumps(facts | {"date": date.today().isoformat()}, indent=1))


def write(path: Path, backbone: str) -> None:
    from asymseg import ANNNet, Classes
    from asymseg.model.foreign.exporting import export_mmseg
    from asymseg.model.info import ModelInfo

    classes = Classes(tuple(f"class {number}" for number in range(CLASSES)))
    network = ANNNet(CLASSES, backbone, aux_channels=256)
    export_mmseg(network, ModelInfo(classes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), path)


def peak_gibibytes() -> float:
    """Most memory this process has held at once; Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return round(peak, 2)


if __name__ == "__main__":
    main()
