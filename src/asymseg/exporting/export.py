"""Write a trained network for other runtimes, after a proof that the file computes the same."""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from asymseg.atomic import atomic_file
from asymseg.data.dataset import DataSet
from asymseg.errors import ConfigError
from asymseg.exporting.graph import Graph
from asymseg.exporting.onnx_file import describe, make_onnx, open_onnx
from asymseg.exporting.openvino_file import atomic_pair, make_openvino, open_openvino, save_openvino, weights_of
from asymseg.exporting.program import (
    make_package,
    make_program,
    open_package,
    open_program,
    save_program,
    smallest_side,
)
from asymseg.exporting.quantised import Quantisation, calibration_for, write_int8
from asymseg.exporting.verification import (
    HALF_TOLERANCE,
    SIZES,
    TOLERANCE,
    Case,
    Prove,
    Run,
    Tell,
    summary,
    verify,
)
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import parameter_count
from asymseg.model.folding import fold as fold_network
from asymseg.model.info import ModelInfo
from asymseg.model.signature import Output, Signature
from asymseg.model.source import open_model

Format = Literal["onnx", "program", "aotinductor", "openvino"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "program": ".pt2", "aotinductor": ".pt2", "openvino": ".xml"}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what proves it."""

    path: Path
    format: Format
    cases: tuple[Case, ...]
    tolerance: float
    bytes: int
    quantisation: Quantisation | None = None
    """Of an int8 file: the mean IoU before and after. Its cases say that it runs, and how far its logits are off."""


def export(
    model: str | Path | tuple[ANNNet, ModelInfo],
    path: str | Path,
    *,
    format: Format | None = None,
    output: Output = "logits",
    from_bytes: bool = False,
    size: tuple[int, int] | None = None,
    half: bool = False,
    int8: bool = False,
    calibrate: str | Path | DataSet | None = None,
    images: int = 100,
    max_loss: float = 1.0,
    fold: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Exported:
    """Write a network as a file for another runtime; a file that is not equal to the network is not written.

    The file takes any batch, height and width, but for what `asymseg.exporting.program` says. Before it gets its name
    it is run at all of `SIZES`, odd, tiny, wide and large ones, in batches of one and three, and compared with the
    network in its plain form. The network that is given stays as it was.

    An int8 file is another network, and what stands for the comparison is the mean IoU on labelled images, before and
    after; one that loses more than `max_loss` is not written. See `asymseg.exporting.quantised` for what is in int8.

    Args:
        model: What `asymseg.load` takes, or a network and what travels with it.
        path: The file: NAME.onnx, NAME.pt2 for PyTorch's exported program, or NAME.xml for OpenVINO, whose weights
            lie beside it in NAME.bin.
        format: onnx, program, openvino or aotinductor (compiled for this kind of machine, also .pt2); by default as
            the suffix says.
        output: logits, probabilities, or class_map, which is class ids as bytes.
        from_bytes: Take RGB bytes 0..255 and normalise them inside; otherwise the file takes normalised numbers.
        size: The one height and width to take, for runtimes that need to know; by default any.
        half: Compute in float16, for GPUs; input and output stay as they are.
        int8: Compute most convolutions in int8, for CPUs; input and output stay as they are. ONNX alone.
        calibrate: For int8, a data set or its folder: its train images give the ranges, its val images the mean IoU.
        images: How many train images give the ranges.
        max_loss: Points of mean IoU that int8 may cost.
        fold: Export the evaluation form, which has the same logits.
        progress: Told in a word what is being done.

    Raises:
        ExportError: The file would not be equal or loses too much, or a package is missing.
        DataError: Images that cannot be used for int8.
        ConfigError: Options that contradict one another.
        CheckpointError: A model that cannot be loaded.
    """
    path = Path(path)
    format = _format_of(path, format)
    signature = _signature(output, from_bytes, size, half)
    if calibrate is not None and not int8:
        raise ConfigError("calibrate has no effect without int8; add it, or leave calibrate out")
    if int8:
        _check_int8(format, size, half, calibrate, images, max_loss)
    tell = progress or (lambda _: None)
    tell("reading the model")
    network, info = model if isinstance(model, tuple) else open_model(model)
    network = copy.deepcopy(network).cpu().eval()
    calibration = calibration_for(info, calibrate, images, max_loss) if int8 else None
    tolerance = math.inf if int8 else HALF_TOLERANCE if half else TOLERANCE
    plain = Graph(network, info, _signature(output, from_bytes, size, half=False))
    exported = fold_network(network) if fold and type(network) is ANNNet else copy.deepcopy(network)
    graph = Graph(exported, info, signature).eval().requires_grad_(False)
    sizes = SIZES if size is None else (size,)

    tell("writing the file")
    with (atomic_pair if format == "openvino" else atomic_file)(path) as temporary:
        content: dict[str, Any] = {
            **info.describe(network.settings),
            "parameters": parameter_count(network),
            "signature": {"output": output, "from_bytes": from_bytes, "size": size, "half": half, "int8": int8},
        }

        def prove(run: Run, least: int) -> tuple[Case, ...]:
            return verify(run, plain, tolerance, sizes, least, tell)

        quantisation = None
        if calibration is not None:
            quantisation = write_int8(graph, content, calibration, temporary, tell)
            cases = _prove_onnx(content | {"quantisation": asdict(quantisation)}, temporary, prove)
        else:
            write = {
                "onnx": _write_onnx,
                "program": _write_program,
                "aotinductor": _write_package,
                "openvino": _write_openvino,
            }[format]
            cases = write(graph, content, temporary, tell, prove)
        written = temporary.stat().st_size
        if format == "openvino":
            written += weights_of(temporary).stat().st_size
    return Exported(path, format, cases, tolerance, written, quantisation)


def _write_onnx(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Prove) -> tuple[Case, ...]:
    import onnx

    onnx.save(make_onnx(graph), path)
    return _prove_onnx(content, path, prove)


def _prove_onnx(content: dict[str, Any], path: Path, prove: Prove) -> tuple[Case, ...]:
    import onnx

    cases = prove(open_onnx(path), 1)
    model = onnx.load(path)
    describe(model, content | summary(cases))
    onnx.save(model, path)
    return cases


def _write_program(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Prove) -> tuple[Case, ...]:
    program = make_program(graph)
    save_program(program, path, {})
    cases = prove(open_program(path), smallest_side(program))
    save_program(program, path, content | summary(cases))
    return cases


def _write_package(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Prove) -> tuple[Case, ...]:
    program = make_program(graph)
    tell("compiling")
    make_package(program, path)
    return prove(open_package(path), smallest_side(program))


def _write_openvino(graph: Graph, content: dict[str, Any], path: Path, tell: Tell, prove: Prove) -> tuple[Case, ...]:
    model = make_openvino(make_onnx(graph))
    save_openvino(model, path, {})
    cases = prove(open_openvino(path), 1)
    save_openvino(model, path, content | summary(cases))
    return cases


def _format_of(path: Path, wanted: Format | None) -> Format:
    formats = [name for name, suffix in SUFFIXES.items() if suffix == path.suffix]
    if not formats:
        names = dict.fromkeys(f"NAME{suffix}" for suffix in SUFFIXES.values())
        raise ConfigError(f"{path}: the suffix says no format; name it {' or '.join(names)}")
    if wanted is not None and wanted not in get_args(Format):
        raise ConfigError(f"format = {wanted!r} is not one of {', '.join(get_args(Format))}")
    if wanted is not None and wanted not in formats:
        raise ConfigError(f"{path}: the format {wanted} has the suffix {SUFFIXES[wanted]}")
    return wanted or formats[0]


def _signature(output: Output, from_bytes: bool, size: tuple[int, int] | None, half: bool) -> Signature:
    if output not in get_args(Output):
        raise ConfigError(f"output = {output!r} is not one of {', '.join(get_args(Output))}")
    if size is not None and min(size) < 1:
        raise ConfigError(f"size must be a height and a width above 0, not {size[0]} {size[1]}")
    return Signature(output, from_bytes, size, half)


def _check_int8(
    format: Format, size: tuple[int, int] | None, half: bool, calibrate: object, images: int, max_loss: float
) -> None:
    if format != "onnx":
        raise ConfigError(f"int8 is for ONNX files, not for {format}")
    if half or size is not None:
        raise ConfigError(f"int8 cannot be had together with {'half' if half else 'a fixed size'}; leave one out")
    if calibrate is None:
        raise ConfigError("int8 needs images to measure its ranges and its loss on; name a data folder by --calibrate")
    if images < 1:
        raise ConfigError(f"images must be at least 1, not {images}")
    if not max_loss >= 0:
        raise ConfigError(f"max_loss must be 0 or more points of mean IoU, not {max_loss}")
