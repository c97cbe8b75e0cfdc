"""Exported files: equal to the network at every size, or not written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import asymseg
from asymseg.classes import Classes
from asymseg.errors import ConfigError, ExportError
from asymseg.exporting.export import export
from asymseg.exporting.graph import Graph
from asymseg.exporting.program import open_program
from asymseg.exporting.verification import SIZES, verify
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import parameter_count
from asymseg.model.info import ModelInfo
from asymseg.model.signature import Signature
from asymseg.prediction.predict import Predictor

CLASSES = Classes(names=("road", "sky", "tree"), palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
INFO = ModelInfo(
    CLASSES, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), source="made up", license="Apache-2.0", metrics={"miou": 0.5}
)


class _Backbone(nn.Module):
    """As small as can be, so that exporting takes seconds."""

    channels = (8, 12)

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4, padding=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
        )
        self.high = nn.Conv2d(8, 12, 3, padding=2, dilation=2)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = self.low(images)
        return low, self.high(low.relu())


def small_network(fusion: str = "afnb") -> ANNNet:
    """Small and random, with context that counts: a fresh block's output convolution is zero.

    Without fusion it is exported in little more than half the time.
    """
    torch.manual_seed(0)
    widths = {"key_channels": 8, "value_channels": 8, "context_channels": 16, "aux_channels": 0}
    network = ANNNet(num_classes=3, backbone=_Backbone(), fusion=fusion, **widths).eval()
    for block in (network.fusion, network.context):
        if block is not None:
            nn.init.normal_(block.output.weight, std=1.0)
    return network


def unchecked(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The call without the checks of shapes, through which PyTorch's exporters cannot see."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return function(*arguments, **options)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="module")
def network() -> ANNNet:
    return small_network()


@pytest.fixture(scope="module", params=[True, False], ids=["folded", "plain"])
def exported(network: ANNNet, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The network as a file that takes bytes and gives logits."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    network.train()
    unchecked(export, (network, INFO), path, from_bytes=True, fold=request.param)
    assert network.training  # it is its user's, and stays as it was
    network.eval()
    return path


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        *((2, size) for size in [(1, 1), (7, 90), (16, 16), (37, 53), (120, 160), (97, 97), (129, 257)]),
        *((1, size) for size in [(321, 481), (360, 480), (512, 1024), (769, 769), (1080, 1920)]),
    ],
)
def test_the_file_gives_the_networks_logits_of_bytes(network, exported, batch, size):
    image = np.random.default_rng(size).integers(0, 256, (batch, 3, *size), dtype=np.uint8)
    given = onnxruntime.InferenceSession(exported).run(None, {"image": image})[0]
    mean, std = torch.tensor(INFO.mean)[:, None, None], torch.tensor(INFO.std)[:, None, None]
    with torch.no_grad():
        expected = network((torch.from_numpy(image) / 255 - mean) / std).numpy()
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(given, expected, rtol=0, atol=tolerance)
    chosen = np.take_along_axis(expected, given.argmax(axis=1)[:, None], axis=1)
    assert (expected.max(axis=1, keepdims=True) - chosen).max() <= tolerance  # another class only where two tie


def test_half_a_file_computes_in_float16(network, tmp_path):
    path, size = tmp_path / "half.onnx", (65, 97)
    said = unchecked(export, (network, INFO), path, half=True, size=size)
    weights = onnx.load(path).graph.initializer
    assert sum(weight.data_type == onnx.TensorProto.FLOAT16 for weight in weights) >= 10
    assert 0 < max(case.error for case in said.cases) <= said.tolerance == 0.02
    assert next(network.parameters()).dtype == torch.float32
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    given = onnxruntime.InferenceSession(path).run(None, {"image": image.numpy()})[0]
    expected = network(image).detach().numpy()
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=0.02 * np.abs(expected).max())


def test_the_file_is_a_predictor(network, exported):
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    predictor = asymseg.load(exported, "cpu")
    given, expected = predictor(image), Predictor(network, INFO, "cpu")(image)
    np.testing.assert_allclose(given.probabilities, expected.probabilities, atol=1e-4)
    assert predictor.parameters == parameter_count(network)
    assert (predictor.info.classes, predictor.info.license) == (CLASSES, "Apache-2.0")


def test_the_file_says_what_a_model_folder_says(exported):
    (entry,) = [entry for entry in onnx.load(exported).metadata_props if entry.key == "asymseg"]
    content = json.loads(entry.value)
    assert content["classes"] == list(CLASSES.names)
    assert content["palette"] == [list(colour) for colour in CLASSES.palette]
    assert content["preprocessing"] == {"mean": list(INFO.mean), "std": list(INFO.std), "channel_order": "RGB"}
    assert (content["source"], content["license"], content["metrics"]) == ("made up", "Apache-2.0", {"miou": 0.5})
    assert content["signature"] == {"output": "logits", "from_bytes": True, "size": None, "half": False, "int8": False}
    proof = content["verification"]
    assert 0 < proof["largest_error"] <= 1e-4
    assert {tuple(case[1:3]) for case in proof["cases"]} == set(SIZES)
    assert {case[0] for case in proof["cases"]} == {1, 3}


class _Adaptive(nn.Module):
    """The pyramid as it is usually written."""

    def __init__(self, pool_sizes):
        super().__init__()
        self.pool_sizes = pool_sizes

    def forward(self, x):
        return torch.cat([F.adaptive_avg_pool2d(x, size).flatten(2) for size in self.pool_sizes], dim=2)


def test_an_adaptive_pooling_is_caught(tmp_path):
    network = small_network(fusion="none")
    image = torch.randn(1, 3, 40, 72)
    with torch.no_grad():
        before = network(image)
        network.context.pool = _Adaptive(network.context.pool.pool_sizes)
        torch.testing.assert_close(network(image), before)  # in PyTorch itself nothing is wrong with it
    with pytest.raises(ExportError):
        unchecked(export, (network, INFO), tmp_path / "model.onnx", fold=False)
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_class_ids(tmp_path):
    network, path = small_network(fusion="none"), tmp_path / "model.pt2"
    exported = unchecked(export, (network, INFO), path, output="class_map", fold=False)
    assert (exported.format, exported.path, exported.bytes) == ("program", path, path.stat().st_size)
    image = torch.randn(2, 3, 41, 67)
    with torch.no_grad():
        logits = network(image)
    given = open_program(path)(image.numpy())
    assert given.dtype == np.uint8
    np.testing.assert_array_equal(given, logits.argmax(dim=1).numpy())


@pytest.mark.parametrize("output", ["logits", "probabilities", "class_map"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_graph_is_the_formula(network, output, order):
    graph = Graph(network, replace(INFO, channel_order=order), Signature(output=output, from_bytes=True))
    image = torch.randint(0, 256, (2, 3, 33, 40), dtype=torch.uint8)
    with torch.no_grad():
        given = graph(image)
        pixels = (image if order == "RGB" else image[:, [2, 1, 0]]).float() / 255
        x = (pixels - torch.tensor(INFO.mean)[:, None, None]) / torch.tensor(INFO.std)[:, None, None]
        logits = network(x)
    if output == "class_map":
        assert given.dtype == torch.uint8
        assert (given == logits.argmax(dim=1)).float().mean() > 0.999
    else:
        torch.testing.assert_close(given, logits if output == "logits" else logits.softmax(dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("output", ["logits", "probabilities", "class_map"])
def test_a_file_that_differs_is_refused(network, output):
    graph = Graph(network, INFO, Signature(output=output))

    @torch.no_grad()
    def right(image):
        return graph(torch.from_numpy(image)).numpy()

    @torch.no_grad()
    def shifted(image):
        return graph.answer(graph.logits(torch.from_numpy(image)).roll(1, dims=1)).numpy()

    def failing(image):
        raise RuntimeError("no kernel\nfor that")

    sizes = ((16, 24), (33, 17))
    assert [(case.batch, case.error) for case in verify(right, graph, 1e-4, sizes)] == [(1, 0), (3, 0), (1, 0), (3, 0)]
    with pytest.raises(ExportError, match=r"differs from the original at 1 x 16 x 24 .* by .* where 0.0001 is allowed"):
        verify(shifted, graph, 1e-4, sizes)
    with pytest.raises(ExportError, match=r"gives the shape .* at 1 x 16 x 24"):
        verify(lambda image: right(image)[..., 1:], graph, 1e-4, sizes)
    with pytest.raises(ExportError, match=r"fails at 1 x 16 x 24 .*: no kernel for that$"):
        verify(failing, graph, 1e-4, sizes)
    cases = verify(right, graph, 1e-4, sizes, least=17)
    assert [(case.height, case.width) for case in cases[::2]] == [(17, 24), (33, 17)]  # none is left out


def test_ids_of_no_class_are_refused(network):
    graph = Graph(network, INFO, Signature(output="class_map"))
    strange = lambda image: np.full((len(image), *image.shape[2:]), 200, np.uint8)  # noqa: E731
    with pytest.raises(ExportError, match="differs from the original at 1 x 16 x 16"):
        verify(strange, graph, 1e-4, ((16, 16),))


def test_a_single_size_is_tried_in_both_batches_however_large(network):
    graph = Graph(network, INFO, Signature())
    right = lambda image: graph(torch.from_numpy(image)).detach().numpy()  # noqa: E731
    assert [case.batch for case in verify(right, graph, 1e-4, ((208, 208),))] == [1, 3]
    assert [case.batch for case in verify(right, graph, 1e-4, ((208, 208), (16, 16)))] == [1, 1, 3]


def test_a_network_that_says_nothing_is_compared_too():
    network = small_network()
    nn.init.zeros_(network.classifier.weight)
    nn.init.zeros_(network.classifier.bias)
    graph = Graph(network, INFO, Signature())
    zeros = lambda image: np.zeros((len(image), 3, *image.shape[2:]), np.float32)  # noqa: E731
    assert {case.error for case in verify(zeros, graph, 1e-4, ((16, 16),))} == {0}
    with pytest.raises(ExportError, match="differs"):
        verify(lambda image: zeros(image) + 1, graph, 1e-4, ((16, 16),))


def test_what_cannot_be_is_said_in_a_line(network, tmp_path):
    with pytest.raises(ConfigError, match=r"the suffix says no format; name it NAME.onnx or NAME.pt2 or NAME.xml"):
        export((network, INFO), tmp_path / "model.bin")
    with pytest.raises(ConfigError, match=r"model\.onnx: the format program has the suffix \.pt2"):
        export((network, INFO), tmp_path / "model.onnx", format="program")
    with pytest.raises(ConfigError, match=r"model\.pt2: the format onnx has the suffix \.onnx"):
        export((network, INFO), tmp_path / "model.pt2", format="onnx")
    with pytest.raises(ConfigError, match="size must be a height and a width above 0, not 0 5"):
        export((network, INFO), tmp_path / "model.onnx", size=(0, 5))
    with pytest.raises(ConfigError, match="output = 'mask' is not one of logits, probabilities, class_map"):
        unchecked(export, (network, INFO), tmp_path / "model.onnx", output="mask")
