"""int8 ONNX files: convolutions of bytes, in ranges that were measured on real images; attention stays in float."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asymseg.data.dataset import DataSet, Pair
from asymseg.errors import ExportError
from asymseg.evaluation.evaluate import open_split
from asymseg.exporting.accuracy import inputs, score
from asymseg.exporting.graph import Graph
from asymseg.exporting.onnx_file import describe, make_onnx
from asymseg.exporting.verification import Tell
from asymseg.model.info import ModelInfo
from asymseg.model.signature import INPUT, Output, Signature
from asymseg.prediction.onnx.on_torch import on_torch
from asymseg.prediction.onnx.runtime import OnnxPredictor
from asymseg.prediction.onnx.session import import_onnxruntime
from asymseg.prediction.predict import Predictor

if TYPE_CHECKING:
    import onnx

IN_FLOAT = {"query", "key", "value", "tokens", "output", "classifier"}
"""Parts of a network whose convolutions stay in float: little of the work, and what scores and tokens are made of."""
FINEST = 4
"""Image pixels per map pixel below which convolutions stay in float: few channels, and all others build on them."""
SPLIT = "val"


@dataclass(frozen=True)
class Calibration:
    """Where the ranges of an int8 file come from, and what it may lose."""

    info: ModelInfo
    dataset: DataSet
    train: tuple[Pair, ...]
    """Images that the ranges are measured on."""
    max_loss: float
    """Points of mean IoU."""


@dataclass(frozen=True)
class Quantisation:
    """What int8 cost, and on what that was measured; mean IoU as a fraction of 1."""

    miou_before: float
    miou_after: float
    images: int
    """Of the val split, on which the two were measured."""
    calibrated_on: int
    """Images of the train split, on which the ranges were measured."""

    @property
    def loss(self) -> float:
        """Points of mean IoU, below 0 for a gain."""
        return 100 * (self.miou_before - self.miou_after)


def calibration_for(info: ModelInfo, data: str | Path | DataSet | None, images: int, max_loss: float) -> Calibration:
    """The images for it, evenly spread over the train split. Raises DataError where there are none for this model."""
    dataset, train = open_split(info, data, "train")
    open_split(info, dataset, SPLIT)
    count = min(images, len(train))
    return Calibration(info, dataset, tuple(train[number * len(train) // count] for number in range(count)), max_loss)


def write_int8(graph: Graph, content: dict[str, Any], calibration: Calibration, path: Path, tell: Tell) -> Quantisation:
    """Write the graph in int8, and measure what that costs; `content` is what the file says of itself.

    Raises ExportError where it costs more than it may.
    """
    import onnx

    info, dataset, from_bytes = calibration.info, calibration.dataset, graph.signature.from_bytes
    of_logits = Signature(from_bytes=from_bytes)
    model = make_onnx(Graph(graph.network, info, of_logits))
    describe(model, content | {"signature": asdict(of_logits)})

    def counting(what: str) -> Callable[[int, int], None]:
        return lambda done, total: tell(f"{what}: image {done} of {total}")

    def images() -> Iterator[np.ndarray]:
        count = counting("measuring ranges")
        for number, pair in enumerate(calibration.train, start=1):
            count(number, len(calibration.train))
            yield from inputs([pair], info, from_bytes)
        tell("writing the file in int8")

    quantise(model, images(), path)

    quantisation = Quantisation(
        score(Predictor(graph.network, info, "cpu"), dataset, SPLIT, counting("mean IoU without int8")),
        score(on_torch(OnnxPredictor(path, "cpu")), dataset, SPLIT, counting("mean IoU with int8")),
        images=len(dataset.splits[SPLIT]),
        calibrated_on=len(calibration.train),
    )
    if not quantisation.loss <= calibration.max_loss:
        raise ExportError(
            f"int8 takes {quantisation.loss:.2f} points of mean IoU on the {quantisation.images} images of {SPLIT}, "
            f"from {quantisation.miou_before:.4f} to {quantisation.miou_after:.4f}, where {calibration.max_loss:g} are "
            "allowed; nothing was written; calibrate on more images, or allow it by --max_loss"
        )
    model = onnx.load(path)
    answer_logits(model, graph.signature.output)
    onnx.save(model, path)
    return quantisation


def quantise(model: "onnx.ModelProto", images: Iterator[np.ndarray], path: Path) -> None:
    """Write the model with its convolutions in int8, in the mean range that their maps take over the images.

    Weights have a range per output channel and 7 bits: two products of a byte and 7 bits add up in 16, as CPUs without
    VNNI do it, so a file says the same everywhere.
    """
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {INPUT: image}

    add_pre_process_metadata(model)  # PyTorch's exporter has done what the quantiser would ask for
    quantize_static(
        model,
        path,
        Images(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,
        nodes_to_quantize=nodes_for_int8(model),
        calibration_providers=["CPUExecutionProvider"],
        extra_options={"CalibMovingAverage": True},
    )


def nodes_for_int8(model: "onnx.ModelProto") -> list[str]:
    """Names of the convolutions to quantise, and of what can follow them without leaving int8."""
    constants = {tensor.name for tensor in model.graph.initializer}
    stride, maps = {INPUT: 1}, set[str]()
    chosen = []
    for node in model.graph.node:
        if node.op_type == "Shape":  # what is made of sizes is no map
            continue
        given = [name for name in node.input if name not in constants]
        before = stride.get(given[0], FINEST) if given else FINEST
        stride |= dict.fromkeys(node.output, before * _step(node))
        if node.op_type == "Conv":
            coarse = stride[node.output[0]] >= FINEST
            fits = coarse and node.input[1] in constants and not IN_FLOAT & set(node.input[1].split("."))
        else:
            fits = node.op_type in ("Relu", "Clip", "Add") and maps.issuperset(given)
        if fits:
            chosen.append(node.name)
            maps |= set(node.output)
    return chosen


def _step(node: "onnx.NodeProto") -> int:
    return next((int(attribute.ints[0]) for attribute in node.attribute if attribute.name == "strides"), 1)


def answer_logits(model: "onnx.ModelProto", output: Output) -> None:
    """Let a model that gives logits give what `output` says."""
    from onnx import TensorProto, helper

    if output == "logits":
        return
    (logits,) = model.graph.output
    batch, classes, height, width = (side.dim_param or side.dim_value for side in logits.type.tensor_type.shape.dim)
    if output == "probabilities":
        nodes = [helper.make_node("Softmax", [logits.name], [output], axis=1)]
        kind, shape = TensorProto.FLOAT, [batch, classes, height, width]
    else:
        nodes = [
            helper.make_node("ArgMax", [logits.name], ["class_ids"], axis=1, keepdims=0),
            helper.make_node("Cast", ["class_ids"], [output], to=TensorProto.UINT8),
        ]
        kind, shape = TensorProto.UINT8, [batch, height, width]
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(output, kind, shape))
