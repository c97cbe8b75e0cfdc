"""int8 files: which parts are in int8, what a file is calibrated on, and that one which loses too much is refused."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from asymseg.classes import Classes
from asymseg.data.dataset import open_dataset
from asymseg.data.pairing import DataSet
from asymseg.errors import ConfigError, DataError, ExportError
from asymseg.exporting.accuracy import inputs
from asymseg.exporting.export import export
from asymseg.exporting.graph import Graph
from asymseg.exporting.onnx_file import make_onnx
from asymseg.exporting.quantised import answer_logits, calibration_for, nodes_for_int8
from asymseg.exporting.verification import SIZES
from asymseg.model.annnet import ANNNet
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor

CLASSES = Classes(names=("road", "sky", "tree"), palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
INFO = ModelInfo(CLASSES, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
SIDES = (40, 56)


class _Backbone(nn.Module):
    """One convolution at half the image's resolution, and three below a quarter of it."""

    channels = (8, 12)
    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.low = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.high = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = self.low(self.down(self.stem(images).relu()).relu())
        return low, self.high(low.relu())


@pytest.fixture(scope="module")
def network() -> ANNNet:
    torch.manual_seed(0)
    network = ANNNet(3, _Backbone(), key_channels=8, value_channels=8, context_channels=16, aux_channels=0).eval()
    for block in (network.fusion, network.context):
        nn.init.normal_(block.output.weight)
    with torch.no_grad():  # no class is to win everywhere
        logits = network(torch.randn(4, 3, *SIDES))
        network.classifier.bias -= logits.mean(dim=(0, 2, 3))
    return network


@pytest.fixture(scope="module")
def dataset(network: ANNNet, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Noise, and for labels what the network says of it: its mean IoU is 1."""
    root = tmp_path_factory.mktemp("data")
    predictor = Predictor(network, INFO, "cpu")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for number in range(count):
            image, mask = (root / kind / split / f"{number}.png" for kind in ("images", "masks"))
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
            coarse.resize(SIDES[::-1], Image.Resampling.BILINEAR).save(image)
            predictor(image).save(mask)
    return open_dataset(root, classes=CLASSES)


@pytest.fixture(scope="module", autouse=True)
def _float_file() -> Iterator[None]:
    """The network in ONNX, made once, for that takes longest."""
    made: list[onnx.ModelProto] = []

    def once(graph: Graph) -> onnx.ModelProto:
        if not made:
            made.append(make_onnx(graph))
        copy = onnx.ModelProto()
        copy.CopyFrom(made[0])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asymseg.exporting.quantised.make_onnx", once)
        yield


@pytest.fixture(scope="module")
def exported(network: ANNNet, dataset: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # PyTorch's exporter cannot see through the checks
    told: list[str] = []
    made = export((network, INFO), path, int8=True, calibrate=dataset, images=4, max_loss=20.0, progress=told.append)
    jaxtyping.config.update("jaxtyping_disable", before)
    assert list(dict.fromkeys(words.partition(":")[0] for words in told)) == [
        "reading the model",
        "writing the file",
        "measuring ranges",
        "writing the file in int8",
        "mean IoU without int8",
        "mean IoU with int8",
        "comparing with the network",
    ]
    for last in ("ranges: image 4 of 4", "without int8: image 3 of 3", "with the network: size 11 of 11"):
        assert any(words.endswith(last) for words in told)
    quantisation = made.quantisation
    assert quantisation is not None
    assert (quantisation.calibrated_on, quantisation.images) == (4, 3)
    assert quantisation.miou_before > 0.999
    assert 0.8 < quantisation.miou_after < 1
    assert quantisation.loss == pytest.approx(100 * (quantisation.miou_before - quantisation.miou_after))
    return path


def test_the_file_is_near_the_network_and_says_how_near(network, dataset, exported):
    session = onnxruntime.InferenceSession(exported)
    image = next(inputs(dataset.splits["val"], INFO, False))
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    error = np.abs(session.run(None, {"image": image})[0] - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.1  # it is not the network, and not far from it
    (entry,) = [entry for entry in session.get_modelmeta().custom_metadata_map.items() if entry[0] == "asymseg"]
    content = json.loads(entry[1])
    assert content["signature"]["int8"] is True
    assert content["quantisation"].keys() == {"miou_before", "miou_after", "images", "calibrated_on"}
    assert {tuple(case[1:3]) for case in content["verification"]["cases"]} == set(SIZES)


def test_fine_maps_and_attention_stay_in_float(exported):
    model = onnx.load(exported)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    in_int8 = {name for name in weights.values() if makers.get(name) == "DequantizeLinear"}
    in_float = {name for name in weights.values() if name not in in_int8}
    of = lambda names: {name.split("network.")[1].split(".weight")[0] for name in names}  # noqa: E731
    assert of(in_int8) == {
        "backbone.down",
        "backbone.low",
        "backbone.high",
        "project.project",
        "project.spread",
        "context.merge",
    }
    assert of(in_float) == {
        "backbone.stem",
        "project.query.0",
        "project.key.0",
        "project.value",
        "context.query.0",
        "context.tokens",
        "classifier",
    }


def test_no_product_can_overflow(exported):
    """Two products of an unsigned byte and a weight, added, must fit into 16 bits on CPUs without VNNI."""
    model = onnx.load(exported)
    convolutions = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    quantised = {node.input[0] for node in model.graph.node if convolutions & set(node.output)}
    weights = [numpy_helper.to_array(t).astype(int) for t in model.graph.initializer if t.name in quantised]
    assert len(weights) == 6
    assert all(2 * 255 * np.abs(weight).max() <= 2**15 - 1 for weight in weights)
    assert all(np.abs(weight).max() >= 63 for weight in weights)  # and no bit is given away


def test_which_nodes_follow():
    """A convolution with weights of the image, and a sum of which one part is in float, are left alone."""
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], "stem", strides=[4, 4]),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], "clip"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "middle"),
        helper.make_node("Add", ["b", "c"], ["d"], "sum"),
        helper.make_node("Conv", ["d", "net.query.0.weight"], ["e"], "query"),
        helper.make_node("Add", ["d", "e"], ["f"], "mixed"),
        helper.make_node("Conv", ["d", "e"], ["g"], "own"),
        helper.make_node("Relu", ["f"], ["h"], "relu"),
        helper.make_node("Shape", ["image"], ["size"], "shape"),
        helper.make_node("Expand", ["size", "b"], ["tokens"], "tokens"),
        helper.make_node("Conv", ["tokens", "w2"], ["i"], "of_tokens"),
    ]
    constants = [
        numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), name)
        for name in ("w1", "w2", "net.query.0.weight", "zero", "six")
    ]
    side = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])
    model = helper.make_model(helper.make_graph(nodes, "", [side], [side], constants))
    assert nodes_for_int8(model) == ["stem", "clip", "middle", "sum", "of_tokens"]
    nodes[0].attribute[0].ints[:] = [2, 2]
    model = helper.make_model(helper.make_graph(nodes, "", [side], [side], constants))
    assert nodes_for_int8(model) == ["of_tokens"]  # all else is too fine


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_file_of_bytes_is_given_the_bytes(network, dataset, order):
    info = replace(INFO, channel_order=order)
    images = list(inputs(dataset.splits["train"][:2], info, True))
    for image, pair in zip(images, dataset.splits["train"], strict=False):
        pixels = np.asarray(Image.open(pair.image)).transpose(2, 0, 1)
        np.testing.assert_array_equal(image, pixels[None])


def test_inputs_are_those_of_the_models_own_view(dataset):
    seeing = INFO.seeing.changed(None, None, None, None, (0.5, 1.5), True, None)
    images = list(inputs(dataset.splits["val"], replace(INFO, seeing=seeing), False))
    sizes = [(1, 3, 20, 28), (1, 3, 20, 28), (1, 3, 60, 84), (1, 3, 60, 84)]
    assert [image.shape for image in images] == 3 * sizes
    np.testing.assert_array_equal(images[1], images[0][..., ::-1])


@pytest.mark.usefixtures("no_shape_checks")
def test_a_file_that_loses_too_much_is_refused(network, dataset, tmp_path):
    black = tmp_path / "black.png"
    Image.new("RGB", SIDES[::-1]).save(black)
    train = tuple(replace(pair, image=black) for pair in dataset.splits["train"])  # whose ranges do not fit the others
    out = tmp_path / "out"
    refusal = r"int8 takes \d+\.\d\d points of .* 3 images of val, from 1\.0000 to 0\.\d+, where 1 are allowed"
    with pytest.raises(ExportError, match=refusal):
        export(
            (network, INFO),
            out / "model.onnx",
            int8=True,
            calibrate=replace(dataset, splits={**dataset.splits, "train": train}),
        )
    assert list(out.iterdir()) == []


def test_logits_become_an_answer():
    shape = ["batch", 3, "height", "width"]
    image, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits"))
    nodes = [helper.make_node("Identity", ["image"], ["logits"])]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", [image], [logits]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    given = {}
    for output in ("logits", "probabilities", "class_map"):
        answering = copy.deepcopy(model)
        answer_logits(answering, output)
        onnx.checker.check_model(answering, full_check=True)
        session = onnxruntime.InferenceSession(answering.SerializeToString())
        assert [end.name for end in session.get_outputs()] == [output]
        (given[output],) = session.run(None, {"image": values})
    np.testing.assert_array_equal(given["logits"], values)
    shares = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(given["probabilities"], shares, rtol=1e-5)
    assert given["class_map"].dtype == np.uint8
    np.testing.assert_array_equal(given["class_map"], values.argmax(axis=1))


def test_what_cannot_be_is_said_in_a_line(network, dataset, tmp_path):
    model, path = (network, INFO), tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="name a data folder by --calibrate"):
        export(model, path, int8=True)
    with pytest.raises(ConfigError, match="calibrate has no effect without int8"):
        export(model, path, calibrate=dataset)
    with pytest.raises(ConfigError, match="int8 is for ONNX files, not for program"):
        export(model, tmp_path / "model.pt2", int8=True, calibrate=dataset)
    with pytest.raises(ConfigError, match="int8 cannot be had together with half"):
        export(model, path, int8=True, half=True, calibrate=dataset)
    with pytest.raises(ConfigError, match="int8 cannot be had together with a fixed size"):
        export(model, path, int8=True, size=(64, 64), calibrate=dataset)
    with pytest.raises(ConfigError, match="images must be at least 1, not 0"):
        export(model, path, int8=True, calibrate=dataset, images=0)
    with pytest.raises(ConfigError, match="max_loss must be 0 or more .*, not -1"):
        export(model, path, int8=True, calibrate=dataset, max_loss=-1.0)
    with pytest.raises(DataError, match="no split 'val'"):
        export(model, path, int8=True, calibrate=replace(dataset, splits={"train": dataset.splits["train"]}))
    assert calibration_for(INFO, dataset, 2, 1.0).train == dataset.splits["train"][::3]
    assert len(calibration_for(INFO, dataset, 100, 1.0).train) == 6
