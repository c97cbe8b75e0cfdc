"""Whatever names a model finds it, and what names none says so in one line."""

import shutil
from functools import cache

import pytest
import torch
from torch import nn

from asymseg.classes import Classes
from asymseg.errors import CheckpointError
from asymseg.model import source
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import save_model
from asymseg.model.info import ModelInfo
from asymseg.model.source import open_model

INFO = ModelInfo(Classes(("sky", "road")), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@cache
def make(backbone="resnet10t"):
    torch.manual_seed(0)
    sizes = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0}
    return ANNNet(2, backbone, stages=(1, 2), **sizes)


def same(network, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "model"
    save_model(folder, make(), INFO)
    return folder


@pytest.fixture(autouse=True)
def nothing_from_afar(tmp_path, monkeypatch):
    """Each test begins in an empty folder, and what would be fetched is an error."""

    def fetching(*arguments, **settings):
        raise AssertionError("asked for a download")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "fetch", fetching)
    monkeypatch.setattr(source, "_from_hub", fetching)


@pytest.mark.parametrize("name", ["runs/first", "runs/first/best", "runs/first/best/model.safetensors"])
def test_a_folder_comes_before_the_hub(tmp_path, model, name):
    shutil.copytree(model, tmp_path / "runs" / "first" / "best")
    for named in (name, tmp_path / name):
        network, info = open_model(named)
        assert info == INFO
        assert same(network, make())


def test_a_folder_comes_before_published_weights(tmp_path, model):
    shutil.copytree(model, tmp_path / "ann-r50-cityscapes-512x1024-80k")
    assert same(open_model("ann-r50-cityscapes-512x1024-80k")[0], make())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("runs/first", "runs/first.previous"),
        ("runs/first", "runs/first/best.previous"),
        ("runs/first/best", "runs/first/best.previous"),
    ],
)
def test_what_an_interrupted_save_left_comes_before_the_hub(tmp_path, model, name, left):
    shutil.copytree(model, tmp_path / left)
    assert same(open_model(name)[0], make())


def test_a_file_is_a_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "x.pth").touch()
    asked = []

    def importing(path):
        asked.append(path)
        return make().train(), INFO

    monkeypatch.setattr(source, "import_checkpoint", importing)
    network, info = open_model(tmp_path / "x.pth")
    assert asked == [tmp_path / "x.pth"]
    assert info == INFO
    assert not network.training


def test_published_weights_by_name(model, monkeypatch):
    asked = []
    monkeypatch.setattr(source, "fetch", lambda entry: asked.append(entry.name) or model)
    assert same(open_model("ann-r101-ade20k-512x512-160k")[0], make())
    assert asked == ["ann-r101-ade20k-512x512-160k"]


def test_a_hub_id(model, monkeypatch):
    asked = []
    monkeypatch.setattr(source, "_from_hub", lambda *arguments: asked.append(arguments) or model)
    assert same(open_model("someone/roads", revision="v2", token="secret")[0], make())
    assert asked == [("someone/roads", "v2", "secret")]


class Own(nn.Module):
    channels = (4, 5)

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


def test_a_backbone_of_ones_own(tmp_path):
    network = make(Own())
    save_model(tmp_path / "model", network, INFO)
    assert same(open_model(tmp_path / "model", Own())[0], network)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere", "/nowhere: not a model folder"),
        ("roads", "roads: not a model folder"),
        (
            "ann-r50-cityscapes",
            "ann-r50-cityscapes: neither a folder or file here nor published weights; close: ann-r50",
        ),
        ("ann-r50-cityscapes-512x1024-90k", "close: ann-r50-cityscapes-512x1024-80k, .*asymseg models lists them all"),
    ],
)
def test_what_names_nothing(name, message):
    with pytest.raises(CheckpointError, match=message):
        open_model(name)
