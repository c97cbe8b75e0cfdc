"""A model folder: what comes back, what it holds, and every fault it can have."""

import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from asymseg.classes import IGNORE, Classes
from asymseg.errors import CheckpointError
from asymseg.model import checkpoint
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import load_model, parameter_count, save_model
from asymseg.model.folded import FoldedANNNet
from asymseg.model.folding import fold
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing

INFO = ModelInfo(
    classes=Classes(("sky", "road"), ((1, 2, 3), (4, 5, 6)), ignore=7, values={0: 0, 9: 1, 3: IGNORE}),
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    channel_order="BGR",
    seeing=Seeing("slide", (64, 96), (32, 40), "tapered", (0.75, 1.0), True, "mixed"),
    source="trained on two scenes",
    license="CC-BY-4.0",
    metrics={"miou": 0.5, "iou": [0.25, None]},
)


def make(seed=0, **settings):
    torch.manual_seed(seed)
    narrow = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 4, "stages": (1, 2)}
    network = ANNNet(2, settings.pop("backbone", "resnet10t"), **narrow | settings)
    network(torch.randn(2, 3, 16, 16))  # BatchNorm's averages are no longer 0 and 1
    return network.eval()


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", make(), INFO)
    return tmp_path / "model"


@pytest.mark.parametrize(
    "settings", [{}, {"context": "psp", "pool_sizes": (1, 2), "stages": (2, 3)}, {"merge": "add", "aux_channels": 0}]
)
def test_round_trip(tmp_path, settings):
    network = make(**settings).to(memory_format=torch.channels_last)
    save_model(tmp_path / "a" / "model", network, INFO)
    again, info = load_model(tmp_path / "a" / "model")
    assert info == INFO
    assert again.settings == network.settings
    assert not again.training
    images = torch.randn(1, 3, 33, 47)
    assert torch.equal(again.to(memory_format=torch.channels_last)(images), network(images))
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_plain_information_comes_back(tmp_path):
    info = ModelInfo(Classes(("a", "b")), (0.5,), (0.5,))
    save_model(tmp_path / "model", make(), info)
    assert load_model(tmp_path / "model")[1] == info


def test_made_up_colours_are_written_and_stay_made_up(tmp_path):
    """Whoever draws the masks elsewhere needs them; they do not say what colours in RGB masks mean."""
    save_model(tmp_path / "model", make(), ModelInfo(Classes(("a", "b")), (0.5,), (0.5,)))
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["palette"] == [[128, 0, 0], [0, 128, 0]]
    classes = load_model(tmp_path / "model")[1].classes
    assert classes.palette == ((128, 0, 0), (0, 128, 0))
    assert not classes.declared_palette


def test_declared_colours_stay_declared(saved):
    assert load_model(saved)[1].classes.declared_palette
    assert "palette_declared" not in json.loads((saved / "config.json").read_text(encoding="utf-8"))


def test_what_lies_in_the_folder(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert os.listdir(saved.parent) == ["model"]
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "- classes (2): sky, road\n" in card
    assert "- licence: CC-BY-4.0\n" in card
    assert "- source: trained on two scenes\n" in card
    assert "- miou: 0.5\n" in card
    assert f"{parameter_count(make()):,} parameters" in card
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert (config["format"], config["version"]) == ("asymseg-model", 1)
    assert config["preprocessing"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "channel_order": "BGR"}
    assert config["prediction"] == {
        "mode": "slide",
        "window": [64, 96],
        "stride": [32, 40],
        "weighting": "tapered",
        "scales": [0.75, 1.0],
        "flip": True,
        "average": "mixed",
    }


def test_an_unstated_licence_is_said_to_be_so(tmp_path):
    save_model(tmp_path / "model", make(), dataclasses.replace(INFO, license="", source=""))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "- licence: not stated\n- source: not stated\n" in card


def first_weight(network):
    return network.classifier.weight


def test_an_older_folder_is_replaced(saved):
    (saved / "left over").touch()
    newer = make(seed=1)
    save_model(saved, newer, dataclasses.replace(INFO, source="newer"))
    again, info = load_model(saved)
    assert info.source == "newer"
    assert torch.equal(first_weight(again), first_weight(newer))
    assert not (saved / "left over").exists()
    assert os.listdir(saved.parent) == ["model"]


def test_a_kill_between_the_two_renames(saved):
    saved.rename(saved.with_name("model.previous"))
    assert torch.equal(first_weight(load_model(saved)[0]), first_weight(make()))
    save_model(saved, make(seed=1), INFO)
    assert os.listdir(saved.parent) == ["model"]
    assert torch.equal(first_weight(load_model(saved)[0]), first_weight(make(seed=1)))


def test_a_failure_leaves_the_older_one(saved, monkeypatch):
    def full(*arguments, **settings):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, make(seed=1), INFO)
    assert os.listdir(saved.parent) == ["model"]
    assert torch.equal(first_weight(load_model(saved)[0]), first_weight(make()))


class Own(nn.Module):
    channels = (4, 5)

    def __init__(self, width=4):
        super().__init__()
        self.low, self.high = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 5, 3, padding=1)

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


def test_a_backbone_of_ones_own(tmp_path):
    network = make(backbone=Own())
    save_model(tmp_path / "model", network, INFO)
    with pytest.raises(CheckpointError, match=r"load it with load_model\(folder, backbone\)"):
        load_model(tmp_path / "model")
    again, _ = load_model(tmp_path / "model", Own())
    images = torch.randn(1, 3, 9, 7)
    assert torch.equal(again(images), network(images))
    assert "backbone of its own" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    wider = Own(6)
    with pytest.raises(CheckpointError, match=r"backbone\.low\.bias is \(4,\) and not \(6,\)"):
        load_model(tmp_path / "model", wider)


def refused(folder):
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_faults_of_the_weights(saved):
    path = saved / "model.safetensors"
    good, content = load_file(path), path.read_bytes()

    save_file({name: tensor for name, tensor in good.items() if name != "project.0.weight"}, path)
    assert "(1 faults, first: lacks project.0.weight)" in refused(saved)
    save_file(good | {"classifier.bias": torch.zeros(3)}, path)
    assert "classifier.bias is (3,) and not (2,)" in refused(saved)
    save_file(good | {"surplus": torch.zeros(1)}, path)
    assert "has an unknown surplus" in refused(saved)
    path.write_bytes(content[: len(content) // 2])
    assert "damaged (" in refused(saved)
    path.write_bytes(b"")
    assert "damaged (" in refused(saved)
    path.unlink()
    assert "the model folder is not complete" in refused(saved)


def test_what_is_no_model_folder(tmp_path):
    assert "not a model folder (no config.json in it)" in refused(tmp_path)
    assert "not a model folder" in refused(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert "not a model folder" in refused(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe\x00"])
def test_a_config_that_is_no_json(saved, text):
    (saved / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "not readable as JSON" in refused(saved)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), "other", "not the description of an asymseg model"),
        (("version",), 2, "format version 2, this program reads 1; upgrade asymseg"),
        (("version",), None, "format version None"),
        (("network",), [], 'lacks "network" or "preprocessing"'),
        (("preprocessing",), "x", 'lacks "network" or "preprocessing"'),
        (("prediction",), [1.0], "prediction: not of the kind"),
        (("metrics",), "high", "metrics: not of the kind"),
        (("source",), {}, "source: not of the kind"),
        (("license",), 3, "license: not of the kind"),
        (("classes",), {"a": 1}, 'expected an object with a list "classes"'),
        (("classes",), ["sky", "road", "car"], "3 classes but 2 palette colours"),
        (("palette",), [[1, 2]], "palette"),
        (("network", "speed"), 11, "speed"),
        (("network", "pretrained"), True, "pretrained"),  # would ask the network for weights
        (("network", "backbone"), "no_such_net", "is no timm model"),
        (("network", "backbone"), ["resnet10t"], "backbone"),
        (("network", "backbone"), "hf-hub:someone/something", "is no timm model"),
        (("network", "num_classes"), "2", "does not describe a model"),
        (("network", "num_classes"), 3, "lists 2 classes for a network of 3"),
        (("network", "fusion"), {}, "is not one of 'afnb', 'none'"),
        (("network", "merge"), ["concat"], "is not one of 'concat'"),
        (("network", "dropout"), 2, "dropout probability"),
        (("network", "key_channels"), "4", "does not describe a model"),
        (("network", "key_channels"), 0, "key_channels must be at least 1"),
        (("network", "context_channels"), -1, "does not describe a model"),
        (("network", "context_channels"), 1.5, "does not describe a model"),
        (("network", "pool_sizes"), 3, "does not describe a model"),
        (("network", "pool_sizes"), [-1], "pool_sizes must be"),
        (("network", "stages"), "ab", "does not describe a model"),
        (("network", "align_corners"), None, "align_corners = 'None' is neither true nor false"),
        (("network", "stages"), [7, 8], "does not describe a model"),
        (("preprocessing", "mean"), "abc", "mean must be a list of numbers, not 'abc'"),
        (("preprocessing", "mean"), [0.5, "0.5", 0.5], "mean must be a list of numbers"),
        (("preprocessing", "mean"), [0.5, 10**400, 0.5], "mean must be a list of numbers"),
        (("preprocessing", "std"), [1, float("inf"), 1], "std must be a list of numbers above 0"),
        (("preprocessing", "mean"), [0.5], "mean and std differ in length"),
        (("preprocessing", "std"), [1, 0, 1], "std must be a list of numbers above 0"),
        (("preprocessing", "channel_order"), "GRB", "channel_order"),
        (("prediction", "scales"), [], "scales must be a list of numbers"),
        (("prediction", "scales"), [0], "scales must be a list of numbers above 0"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_faults_of_the_config(config_only, place, value, message):
    path = config_only / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    *outer, last = place
    target = config[outer[0]] if outer else config
    target[last] = value
    path.write_text(json.dumps(config), encoding="utf-8")
    assert message in refused(config_only)


@pytest.fixture
def config_only(tmp_path, config_text):
    (tmp_path / "config.json").write_text(config_text, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def config_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config") / "model"
    save_model(folder, make(), INFO)
    return (folder / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("lost", [("network", "stages"), ("network", "num_classes"), ("preprocessing", "std")])
@pytest.mark.usefixtures("no_shape_checks")
def test_a_config_that_lacks_something(config_only, lost):
    path = config_only / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config[lost[0]][lost[1]]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert lost[1] in refused(config_only)


def lively(**settings):
    """A network whose contexts and BatchNorms matter."""
    network = make(**settings)
    for block in (network.fusion, network.context):
        if block is not None:
            nn.init.normal_(block.output.weight)
            nn.init.normal_(block.output.bias)
    return network


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"merge": "none", "align_corners": True},
        {"context": "psp", "pool_sizes": (1, 2), "aux_channels": 0},
        {"context": "nonlocal", "fusion": "none", "context_channels": 128},
        {"backbone": "test_efficientnet"},
        {"backbone": "resnetv2_18"},
    ],
)
def test_a_folded_network(tmp_path, settings):
    folded = fold(lively(**settings))
    save_model(tmp_path / "model", folded, INFO)
    again, info = load_model(tmp_path / "model")
    assert isinstance(again, FoldedANNNet)
    assert info == INFO
    assert again.settings == folded.settings
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert again.state_dict().keys() == folded.state_dict().keys()
    for name, tensor in folded.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    for size in [(33, 47), (1, 1)]:
        images = torch.randn(2, 3, *size)
        assert torch.equal(again(images), folded(images))
        with torch.no_grad():
            assert torch.equal(again(images), folded(images))
    save_model(tmp_path / "once more", again, INFO)
    config = [(tmp_path / name / "config.json").read_text(encoding="utf-8") for name in ("model", "once more")]
    assert config[0] == config[1]


def test_a_folded_network_with_a_backbone_of_ones_own(tmp_path):
    folded = fold(lively(backbone=Own()))
    save_model(tmp_path / "model", folded, INFO)
    with pytest.raises(CheckpointError, match=r"load it with load_model\(folder, backbone\)"):
        load_model(tmp_path / "model")
    backbone = Own()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    again, _ = load_model(tmp_path / "model", backbone)
    images = torch.randn(1, 3, 9, 7)
    assert torch.equal(again(images), folded(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_weights_of_a_folded_network_do_not_pass_for_plain_ones(tmp_path):
    save_model(tmp_path / "plain", lively(), INFO)
    save_model(tmp_path / "folded", fold(lively()), INFO)
    (tmp_path / "plain" / "model.safetensors").write_bytes((tmp_path / "folded" / "model.safetensors").read_bytes())
    assert "does not fit the network of config.json" in refused(tmp_path / "plain")


@pytest.mark.parametrize("value", ["yes", 1, None, [True]])
@pytest.mark.usefixtures("no_shape_checks")
def test_folded_is_a_plain_truth_value(config_only, value):
    path = config_only / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["network"]["folded"] = value
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "folded" in refused(config_only)
