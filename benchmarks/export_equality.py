"""onnxruntime against PyTorch at twelve sizes: logits and class maps of exported networks, plain and folded.

    OMP_NUM_THREADS=1 python benchmarks/export_equality.py RESULTS.json [--model MODEL] [--only NAME ...]

Every network is built with random weights whose maps keep a sensible scale; with --model the trained network of a model
folder is measured too. The files are those that `asymseg export` writes. The last part exports a network whose pyramid
is an adaptive pooling, and measures what that file, which `asymseg export` refuses, would have given.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asymseg import ANNNet, Classes, fold
from asymseg.exporting.graph import Graph
from asymseg.exporting.onnx_file import make_onnx
from asymseg.model.info import ModelInfo
from asymseg.model.signature import Signature
from asymseg.model.source import open_model
from asymseg.prediction.onnx.session import import_onnxruntime

onnxruntime = import_onnxruntime()

SIZES = (
    (1, 1),
    (16, 16),
    (31, 200),
    (37, 53),
    (65, 97),
    (129, 257),
    (224, 224),
    (321, 481),
    (360, 480),
    (512, 1024),
    (769, 769),
    (1080, 1920),
)
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet50 at stride 8": {"backbone": "resnet50", "output_stride": 8},
    "mobilenetv2_100 at stride 16": {"backbone": "mobilenetv2_100", "output_stride": 16},
    "convnext_tiny at stride 16": {"backbone": "convnext_tiny", "output_stride": 16},
}
TRAINED, ADAPTIVE = "trained", "adaptive pooling"
CLASSES = 19
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description="Exported networks against PyTorch.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", nargs="+", default=[*NETWORKS, TRAINED, ADAPTIVE])
    arguments = parser.parse_args()
    info = ModelInfo(Classes(tuple(f"class {n}" for n in range(CLASSES)), None), (0.5,) * 3, (0.25,) * 3)
    for name in arguments.only:
        if name == TRAINED:
            if arguments.model is None:
                continue
            network, its_info = open_model(arguments.model)
            found = compare(network.float().eval(), its_info)
        elif name == ADAPTIVE:
            found = compare_adaptive(random_network(**NETWORKS["mobilenetv2_100 at stride 16"]), info)
        else:
            found = compare(random_network(**NETWORKS[name]), info)
        keep(arguments.results, name, found)


def random_network(**settings: Any) -> ANNNet:
    """A network whose context counts, with the statistics of its BatchNorms taken from noise."""
    torch.manual_seed(0)
    network = ANNNet(CLASSES, **settings)
    for block in (network.fusion, network.context):
        nn.init.normal_(block.output.weight, std=block.output.in_channels**-0.5)
    nn.init.normal_(network.classifier.weight, std=network.classifier.in_channels**-0.5)
    with torch.no_grad():
        for seed in range(20):
            network(images(129, 161, seed))
    return network.eval()


def compare(network: nn.Module, info: ModelInfo) -> dict[str, Any]:
    """Errors of the plain and of the folded file at every size."""
    forms = {"plain": network, "folded": fold(network)}
    return {"forms": measure(network, {name: session(form, info) for name, form in forms.items()})}


def compare_adaptive(network: ANNNet, info: ModelInfo) -> dict[str, Any]:
    """The same for a pyramid as it is usually written, which in PyTorch is equal."""
    image = images(129, 257, 0)
    with torch.no_grad():
        before = network(image)
        for block in (network.fusion, network.context):
            block.pool = Adaptive(block.pool.pool_sizes)
        in_torch = float((network(image) - before).abs().max() / before.abs().max())
    return {"error_in_torch": in_torch, "forms": measure(network, {"plain": session(network, info)})}


class Adaptive(nn.Module):
    def __init__(self, pool_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.pool_sizes = pool_sizes

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(x, size).flatten(2) for size in self.pool_sizes], dim=2)


def session(network: nn.Module, info: ModelInfo) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(make_onnx(Graph(network, info, Signature()).eval().requires_grad_(False)), path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def measure(network: nn.Module, files: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for height, width in SIZES:
        image = images(height, width, height * 10_007 + width)
        expected = network(image).numpy()
        for name, file in files.items():
            try:
                (given,) = file.run(None, {"image": image.numpy()})
                result = difference(given, expected)
            except Exception as failure:  # what a runtime raises is a finding here
                result = {"fails": " ".join(str(failure).split())[:200]}
            found[name].append({"size": [height, width], **result})
            print(name, found[name][-1], flush=True)
    return found


def difference(given: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """The largest difference as a share of the largest logit, and pixels of another class, ties set apart."""
    if given.shape != expected.shape:
        return {"fails": f"gives the shape {given.shape} for {expected.shape}"}
    scale = float(np.abs(expected).max())
    chosen = given.argmax(axis=1)
    gap = expected.max(axis=1) - np.take_along_axis(expected, chosen[:, None], axis=1)[:, 0]
    return {
        "error": float(np.abs(given - expected).max()) / scale,
        "pixels": int(chosen.size),
        "ties": int(((gap > 0) & (gap <= TOLERANCE * scale)).sum()),
        "other_class": int((gap > TOLERANCE * scale).sum()),
    }


def images(height: int, width: int, seed: int) -> Tensor:
    """Noise over a smooth ground."""
    random = torch.Generator().manual_seed(seed)
    ground = F.interpolate(torch.randn(1, 3, 3, 4, generator=random), (height, width), mode="bilinear")
    return ground + 0.5 * torch.randn(1, 3, height, width, generator=random)


def keep(path: Path, name: str, found: dict[str, Any]) -> None:
    """Put a network's figures beside those that the file holds already."""
    content = json.loads(path.read_text()) if path.exists() else {"networks": {}}
    content["networks"][name] = {"largest_error": largest(found), **found}
    content |= {
        "tolerance": TOLERANCE,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "date": date.today().isoformat(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def largest(found: dict[str, Any]) -> float | None:
    """Over all sizes and forms; none where a file failed at one."""
    cases: Iterator[dict[str, Any]] = (case for form in found["forms"].values() for case in form)
    errors = [case.get("error") for case in cases]
    return None if None in errors else max(errors)


if __name__ == "__main__":
    main()
