"""ONNX files: written by PyTorch's exporter, run by onnxruntime, with all that a model folder says inside."""

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from asymseg.errors import ExportError
from asymseg.exporting.graph import Graph
from asymseg.exporting.verification import Run
from asymseg.model.signature import INPUT, KEY
from asymseg.prediction.onnx.session import import_onnxruntime

if TYPE_CHECKING:
    import onnx


def make_onnx(graph: Graph) -> "onnx.ModelProto":
    """The graph in ONNX, with free batch, height and width unless the signature fixes the size."""
    _need_packages()
    signature = graph.signature
    height, width = signature.size or (65, 97)  # any would do: nothing of the example stays in the file
    example = torch.zeros(2, len(graph.mean), height, width, dtype=torch.uint8 if signature.from_bytes else None)
    free = {0: "batch"} if signature.size else {0: "batch", 2: "height", 3: "width"}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it reports each operator that it has no use for
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes=(free,),
                input_names=[INPUT],
                output_names=[signature.output],
                optimize=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise ExportError("PyTorch's ONNX exporter gave no file")
    return program.model_proto


def describe(model: "onnx.ModelProto", content: dict[str, Any]) -> None:
    """Put `content` into the file's metadata, in place of what stands there."""
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}
    del model.metadata_props[:]
    for key, value in {**kept, KEY: json.dumps(content)}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def open_onnx(path: Path) -> Run:
    """The file as a function of an image, run by onnxruntime on the CPU."""
    session = import_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {INPUT: image})[0]


def _need_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ExportError(f'ONNX files need {package}; pip install "asymseg[export]"')
