"""PyTorch's own files: an exported program, and a package that AOTInductor compiled for this kind of machine."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from asymseg.errors import ExportError
from asymseg.exporting.graph import Graph
from asymseg.exporting.verification import Run

EXTRA_FILE = "asymseg.json"
"""In an exported program: what the metadata of an ONNX file hold."""


def make_program(graph: Graph) -> ExportedProgram:
    """The graph as operations of PyTorch alone, with free batch, height and width unless the signature fixes them.

    `torch.export` takes a map of one pixel for another program, so the file takes only images whose smallest map is
    larger: see `smallest_side`.
    """
    signature = graph.signature
    height, width = signature.size or (65, 97)
    example = torch.zeros(2, len(graph.mean), height, width, dtype=torch.uint8 if signature.from_bytes else None)
    free = {0: Dim.AUTO} if signature.size else {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(graph, (example,), dynamic_shapes=(free,))


def smallest_side(program: ExportedProgram) -> int:
    """The least height and width that the program takes; 1 where it takes a single size."""
    return max((int(limits.lower) for limits in program.range_constraints.values()), default=1)


def save_program(program: ExportedProgram, path: Path, content: dict[str, Any]) -> None:
    """Write the program, with `content` as JSON beside it in the file."""
    from torch._export.serde.serialize import (
        SerializeError,
    )  # no public name; only here, lest its move ends all exports

    try:
        torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(content)})
    except SerializeError as error:
        raise ExportError(
            f"PyTorch cannot write this network's program ({str(error).splitlines()[0]}); export it to ONNX instead"
        ) from None


def open_program(path: Path) -> Run:
    """The file as a function of an image."""
    module = torch.export.load(path).module()
    return lambda image: _on_arrays(module(torch.from_numpy(image)))


def make_package(program: ExportedProgram, path: Path) -> None:
    """Compile the program for this kind of machine; needs a C++ compiler and minutes."""
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def open_package(path: Path) -> Run:
    """The file as a function of an image."""
    module = torch._inductor.aoti_load_package(str(path))
    return lambda image: _on_arrays(module(torch.from_numpy(image)))


def _on_arrays(result: Tensor) -> np.ndarray:
    return result.detach().numpy()
