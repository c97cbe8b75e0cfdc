"""OpenVINO files: equal at every size, written as a pair, and nothing left behind where they are refused."""

import json
import os
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from asymseg.classes import Classes
from asymseg.errors import ExportError
from asymseg.exporting.export import export
from asymseg.exporting.graph import Graph
from asymseg.exporting.onnx_file import make_onnx
from asymseg.exporting.openvino_file import atomic_pair, make_openvino, open_openvino
from asymseg.exporting.verification import SIZES
from asymseg.model.annnet import ANNNet
from asymseg.model.folding import fold
from asymseg.model.info import ModelInfo
from asymseg.model.signature import Signature

openvino = pytest.importorskip("openvino")

INFO = ModelInfo(Classes(("road", "sky"), ((1, 2, 3), (4, 5, 6))), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), license="MIT")


class _Backbone(nn.Module):
    channels = (6, 8)
    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 6, 9, stride=8, padding=4)
        self.high = nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = self.low(images)
        return low, self.high(low.relu())


def small_network() -> ANNNet:
    torch.manual_seed(0)
    network = ANNNet(2, _Backbone(), key_channels=8, value_channels=8, context_channels=16, aux_channels=0).eval()
    for block in (network.fusion, network.context):
        nn.init.normal_(block.output.weight)
    return network


@pytest.fixture(scope="module")
def form() -> onnx.ModelProto:
    """The folded network in ONNX, made once, for that takes longest."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    made = make_onnx(Graph(fold(small_network()), INFO, Signature()).eval().requires_grad_(False))
    jaxtyping.config.update("jaxtyping_disable", before)
    return made


def test_the_file_gives_the_networks_logits(form, tmp_path, monkeypatch):
    monkeypatch.setattr("asymseg.exporting.export.make_onnx", lambda graph: form)
    network, path = small_network(), tmp_path / "model.xml"
    path.write_text("an older one")
    path.with_suffix(".bin").write_bytes(b"and its weights")
    made = export((network, INFO), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert (made.format, made.bytes) == ("openvino", sum(file.stat().st_size for file in tmp_path.iterdir()))
    run = open_openvino(path)
    for batch, height, width in ((2, 37, 53), (1, 1, 1), (1, 130, 70)):
        image = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = network(image).numpy()
        np.testing.assert_allclose(run(image.numpy()), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    content = json.loads(openvino.Core().read_model(path).get_rt_info(["asymseg"]).value)
    assert (content["classes"], content["license"]) == (["road", "sky"], "MIT")
    assert {tuple(case[1:3]) for case in content["verification"]["cases"]} == set(SIZES)


def test_one_that_differs_is_refused_and_nothing_is_left(form, tmp_path, monkeypatch):
    monkeypatch.setattr("asymseg.exporting.export.make_onnx", lambda graph: form)
    other = small_network()
    nn.init.normal_(other.classifier.weight)
    with pytest.raises(ExportError, match="differs from the original at 1 x 1 x 1"):
        export((other, INFO), tmp_path / "model.xml")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The .xml of an older pair."""
    path = tmp_path / "model.xml"
    write_pair(path, "old")
    return path


def write_pair(path: Path, content: str) -> None:
    path.write_text(content)
    path.with_suffix(".bin").write_text(content)


def test_at_no_moment_a_graph_stands_beside_the_weights_of_another(pair, monkeypatch):
    replace = os.replace

    def looking(source: Path, target: Path) -> None:
        assert not pair.exists()
        replace(source, target)

    monkeypatch.setattr("os.replace", looking)
    with atomic_pair(pair) as temporary:
        write_pair(temporary, "new")
    assert {file.name: file.read_text() for file in pair.parent.iterdir()} == {"model.xml": "new", "model.bin": "new"}


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_rename_that_fails_leaves_no_half_pair(pair, monkeypatch, renamed):
    replace, done = os.replace, []

    def failing(source: Path, target: Path) -> None:
        if len(done) == renamed:
            raise PermissionError(13, "Permission denied")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(PermissionError), atomic_pair(pair) as temporary:
        write_pair(temporary, "new")
    assert list(pair.parent.iterdir()) == []


def test_what_fails_before_leaves_the_older_pair(pair):
    with pytest.raises(ExportError), atomic_pair(pair) as temporary:  # noqa: PT012
        write_pair(temporary, "new")
        raise ExportError("differs")
    assert {file.name: file.read_text() for file in pair.parent.iterdir()} == {"model.xml": "old", "model.bin": "old"}


def test_without_the_package_it_is_said_in_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match="OpenVINO files need openvino; pip install openvino"):
        make_openvino(onnx.ModelProto())
