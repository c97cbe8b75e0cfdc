"""OpenVINO files: an .xml and beside it a .bin with the weights, made from the ONNX form of the graph."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asymseg.atomic import atomic_file
from asymseg.errors import ExportError
from asymseg.exporting.verification import Run
from asymseg.model.signature import KEY

if TYPE_CHECKING:
    import onnx


def make_openvino(model: "onnx.ModelProto") -> Any:
    """The model as OpenVINO has it, with its free sizes."""
    return _openvino().Core().read_model(model.SerializeToString())


def save_openvino(model: Any, path: Path, content: dict[str, Any]) -> None:
    """Write path and its .bin, the weights as they are; `content` goes inside as JSON."""
    weights_of(path).unlink(missing_ok=True)  # not to write into what may still be mapped into memory
    model.set_rt_info(json.dumps(content), [KEY])
    _openvino().save_model(model, path, compress_to_fp16=False)


def open_openvino(path: Path) -> Run:
    """The file as a function of an image, run on the CPU in the precision of the file."""
    # On CPUs that have bfloat16, OpenVINO would use it by itself.
    compiled = _openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled(image)[0]


@contextmanager
def atomic_pair(path: Path) -> Iterator[Path]:
    """Give a temporary path for an .xml; it and its .bin get their names if the block ends well, or are removed.

    An older `path` goes first, so that at no moment a graph stands beside the weights of another.
    """
    parted = False
    try:
        with atomic_file(path) as temporary:
            try:
                yield temporary
                path.unlink(missing_ok=True)
                parted = True
                os.replace(weights_of(temporary), weights_of(path))
            finally:
                weights_of(temporary).unlink(missing_ok=True)
    except BaseException:
        if parted:  # weights that have no graph, old or new
            weights_of(path).unlink(missing_ok=True)
        raise


def weights_of(path: Path) -> Path:
    """The .bin that belongs to an .xml."""
    return path.with_suffix(".bin")


def _openvino() -> Any:
    try:
        return import_module("openvino")
    except ModuleNotFoundError:
        raise ExportError("OpenVINO files need openvino; pip install openvino") from None
