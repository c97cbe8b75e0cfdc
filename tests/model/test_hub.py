"""Onto the hub and back: what is uploaded, and that the same network comes down. The hub is played by a folder."""

import shutil
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

import asymseg
from asymseg.classes import Classes
from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import load_model, save_model
from asymseg.model.hub import from_pretrained, push_to_hub
from asymseg.model.info import ModelInfo
from asymseg.prediction.predict import Predictor

INFO = ModelInfo(
    Classes(("sky", "road")),
    (0.1, 0.2, 0.3),
    (0.4, 0.5, 0.6),
    source="street scenes",
    license="Apache-2.0",
    metrics={"split": "val", "step": 7, "miou": 0.123456, "pixel_accuracy": 0.5},
)


@cache
def make():
    torch.manual_seed(0)
    sizes = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 0}
    network = ANNNet(2, "resnet10t", stages=(1, 2), **sizes)
    network(torch.randn(2, 3, 16, 16))
    return network.eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of repositories behind the calls of huggingface_hub, and the arguments of those calls."""
    folder = SimpleNamespace(path=tmp_path / "hub", calls=[])

    def create_repo(api, repo_id, **settings):
        folder.calls.append(("create", repo_id, api.token, settings))

    def upload_folder(api, *, repo_id, folder_path, **settings):
        shutil.copytree(folder_path, folder.path / repo_id)
        folder.calls.append(("upload", repo_id, api.token, settings))
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")

    def snapshot_download(repo_id, **settings):
        folder.calls.append(("download", repo_id, settings))
        return str(folder.path / repo_id)

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("kind", ["predictor", "folder", "run"])
def test_what_goes_up_comes_down(hub, tmp_path, kind):
    network = make()
    if kind == "predictor":
        model = Predictor(network, INFO, "cpu", fold=False)
    else:
        save_model(tmp_path / "run" / "best", network, INFO)
        model = str(tmp_path / "run") if kind == "run" else tmp_path / "run" / "best"
    address = push_to_hub(model, "someone/roads", private=True, revision="v2", message="First", token="secret")
    assert address == "https://hub.example/someone/roads/commit/1"
    assert hub.calls == [
        ("create", "someone/roads", "secret", {"private": True, "exist_ok": True}),
        ("upload", "someone/roads", "secret", {"revision": "v2", "commit_message": "First"}),
    ]
    uploaded = sorted(path.name for path in (hub.path / "someone" / "roads").iterdir())
    assert uploaded == ["README.md", "config.json", "model.safetensors"]

    again = from_pretrained("someone/roads", revision="v2", token="secret")
    assert hub.calls[2][2]["revision"] == "v2"
    assert hub.calls[2][2]["token"] == "secret"
    assert not again.training
    images = torch.randn(1, 3, 33, 47)
    assert torch.equal(again(images), network(images))
    assert load_model(hub.path / "someone" / "roads")[1] == INFO


def test_a_folder_needs_no_hub(hub, tmp_path):
    save_model(tmp_path / "model", make(), INFO)
    network = asymseg.from_pretrained(tmp_path / "model")
    assert isinstance(network, ANNNet)
    assert not network.training
    assert hub.calls == []


def card_of(hub, info, **settings):
    push_to_hub(Predictor(make(), info, "cpu", fold=False), "someone/roads", **settings)
    return ModelCard.load(hub.path / "someone" / "roads" / "README.md")


def test_the_card_is_one_that_the_hub_can_read(hub):
    card = card_of(hub, INFO)
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "asymseg"
    assert data["pipeline_tag"] == "image-segmentation"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("mean_iou", 0.1235)
    assert (result.dataset_name, result.dataset_split) == ("street scenes", "val")
    assert "- classes (2): sky, road\n" in card.text
    assert "- licence: Apache-2.0\n" in card.text
    assert "- miou: 0.123456\n" in card.text
    assert "asymseg predict someone/roads IMAGE -o OUT" in card.text
    assert 'asymseg.load("someone/roads")' in card.text
    assert "THIS_FOLDER" not in card.text


def test_what_others_reported_is_no_result_of_ours(hub):
    card = card_of(hub, replace(INFO, metrics={"reported_miou": 0.7734}))
    assert card.data.eval_results is None
    assert "- reported_miou: 0.7734\n" in card.text


@pytest.mark.parametrize(
    ("stated", "given", "license", "name"),
    [
        ("Apache-2.0", "", "apache-2.0", None),
        ("Apache-2.0", "MIT", "mit", None),
        ("", "cc-by-4.0", "cc-by-4.0", None),
        ("Cityscapes terms", "", "other", "Cityscapes terms"),
        ("", "", None, None),
    ],
)
def test_the_licence(hub, stated, given, license, name):
    data = card_of(hub, replace(INFO, license=stated), license=given).data.to_dict()
    assert data.get("license") == license
    assert data.get("license_name") == name
    assert load_model(hub.path / "someone" / "roads")[1].license == (given or stated)


def test_a_hub_that_does_not_take_it(monkeypatch):
    def refusing(*_, **__):
        raise HfHubHTTPError("401 Unauthorized\nInvalid token", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(HfApi, "create_repo", refusing)
    with pytest.raises(
        CheckpointError, match="someone/roads: the hub did not take the model .*hf auth login"
    ) as caught:
        push_to_hub(Predictor(make(), INFO, "cpu", fold=False), "someone/roads")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["roads/by/someone", "-", "a--b/c"])
def test_a_name_that_the_hub_does_not_know(name):
    with pytest.raises(CheckpointError, match="OWNER/NAME"):
        push_to_hub(Predictor(make(), INFO, "cpu", fold=False), name)


def test_a_folded_network_stays_here(hub):
    with pytest.raises(CheckpointError, match="fold=False"):
        push_to_hub(Predictor(make(), INFO, "cpu"), "roads/small")
    assert not hub.calls


def test_the_network_of_an_exported_file_stays_here(hub):
    exported = Predictor(torch.nn.Conv2d(3, 2, 1), INFO, "cpu", fold=False)
    with pytest.raises(CheckpointError, match="holds an exported file, whose weights are not to be had"):
        push_to_hub(exported, "roads/small")
