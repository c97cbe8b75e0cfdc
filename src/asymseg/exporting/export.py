"""Write a trained network for other runtimes, after a proof that the file computes the same."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from asymseg.atomic import atomic_file
from asymseg.errors import ConfigError
from asymseg.exporting.graph import Graph
from asymseg.exporting.onnx_file import describe, make_onnx, open_onnx
from asymseg.exporting.program import (
    make_package,
    make_program,
    open_package,
    open_program,
    save_program,
    smallest_side,
)
from asymseg.exporting.verification import HALF_TOLERANCE, SIZES, TOLERANCE, Case, Run, summary, verify
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import parameter_count
from asymseg.model.folding import fold as fold_network
from asymseg.model.info import ModelInfo
from asymseg.model.signature import Output, Signature
from asymseg.model.source import open_model

Format = Literal["onnx", "program", "aotinductor"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt2": "program"}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what proves it."""

    path: Path
    format: Format
    cases: tuple[Case, ...]
    tolerance: float
    bytes: int


def export(
    model: str | Path | tuple[ANNNet, ModelInfo],
    path: str | Path,
    *,
    format: Format | None = None,
    output: Output = "logits",
    from_bytes: bool = False,
    size: tuple[int, int] | None = None,
    half: bool = False,
    fold: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Exported:
    """Write a network as a file for another runtime; a file that is not equal to the network is not written.

    The file takes any batch, height and width, but for what `asymseg.exporting.program` says. Before it gets its name
    it is run at all of `SIZES`, odd, tiny, wide and large ones, in batches of one and three, and compared with the
    network in its plain form. The network that is given stays as it was.

    Args:
        model: What `asymseg.load` takes, or a network and what travels with it.
        path: The file: NAME.onnx, or NAME.pt2 for PyTorch's exported program.
        format: onnx, program or aotinductor (compiled for this kind of machine, also .pt2); by default as the suffix
            says.
        output: logits, probabilities, or class_map, which is class ids as bytes.
        from_bytes: Take RGB bytes 0..255 and normalise them inside; otherwise the file takes normalised numbers.
        size: The one height and width to take, for runtimes that need to know; by default any.
        half: Compute in float16, for GPUs; input and output stay as they are.
        fold: Export the evaluation form, which has the same logits.
        progress: Told in a word what is being done.

    Raises:
        ExportError: The file would not be equal, or a package is missing.
        ConfigError: Options that contradict one another.
        CheckpointError: A model that cannot be loaded.
    """
    path = Path(path)
    format = _format_of(path, format)
    signature = _signature(output, from_bytes, size, half)
    tell = progress or (lambda _: None)
    network, info = model if isinstance(model, tuple) else open_model(model)
    network = copy.deepcopy(network).cpu().eval()
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    plain = Graph(network, info, _signature(output, from_bytes, size, half=False))
    exported = fold_network(network) if fold and type(network) is ANNNet else copy.deepcopy(network)
    graph = Graph(exported, info, signature).eval().requires_grad_(False)
    sizes = SIZES if size is None else (size,)

    tell("exporting")
    with atomic_file(path) as temporary:
        content: dict[str, Any] = {
            **info.describe(network.settings),
            "parameters": parameter_count(network),
            "signature": {"output": output, "from_bytes": from_bytes, "size": size, "half": half},
        }
        write = {"onnx": _write_onnx, "program": _write_program, "aotinductor": _write_package}[format]
        cases = write(graph, content, temporary, tell, lambda run, least: verify(run, plain, tolerance, sizes, least))
        written = temporary.stat().st_size
    return Exported(path, format, cases, tolerance, written)


Verify = Callable[[Run, int], tuple[Case, ...]]
"""Compares a loaded file with the plain network at all sizes from a least side on."""
Tell = Callable[[str], None]


def _write_onnx(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Verify) -> tuple[Case, ...]:
    import onnx

    model = make_onnx(graph)
    onnx.save(model, path)
    tell("comparing with the network")
    cases = prove(open_onnx(path), 1)
    describe(model, content | summary(cases))
    onnx.save(model, path)
    return cases


def _write_program(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Verify) -> tuple[Case, ...]:
    program = make_program(graph)
    save_program(program, path, {})
    tell("comparing with the network")
    cases = prove(open_program(path), smallest_side(program))
    save_program(program, path, content | summary(cases))
    return cases


def _write_package(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Verify) -> tuple[Case, ...]:
    program = make_program(graph)
    tell("compiling")
    make_package(program, path)
    tell("comparing with the network")
    return prove(open_package(path), smallest_side(program))


def _format_of(path: Path, wanted: Format | None) -> Format:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: the suffix says no format; name it {' or '.join('NAME' + end for end in SUFFIXES)}")
    if wanted is not None and wanted not in get_args(Format):
        raise ConfigError(f"format = {wanted!r} is not one of {', '.join(get_args(Format))}")
    if wanted is not None and (wanted == "onnx") != (path.suffix == ".onnx"):
        raise ConfigError(f"{path}: the format {wanted} has the suffix {'.onnx' if wanted == 'onnx' else '.pt2'}")
    return wanted or SUFFIXES[path.suffix]


def _signature(output: Output, from_bytes: bool, size: tuple[int, int] | None, half: bool) -> Signature:
    if output not in get_args(Output):
        raise ConfigError(f"output = {output!r} is not one of {', '.join(get_args(Output))}")
    if size is not None and min(size) < 1:
        raise ConfigError(f"size must be a height and a width above 0, not {size[0]} {size[1]}")
    return Signature(output, from_bytes, size, half)
