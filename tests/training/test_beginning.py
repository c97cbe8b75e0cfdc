"""A run may begin with a trained network, whatever its classes and the order of its channels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, run, tiny
from torch import Tensor

from asymseg.classes import Classes
from asymseg.config import make_config
from asymseg.data.sample import write_sample
from asymseg.errors import CheckpointError, ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.checkpoint import load_model, save_model
from asymseg.model.folding import fold
from asymseg.model.info import ModelInfo
from asymseg.training.beginning import begin_with, names_model

SMALL = TINY["model"]
INFO = ModelInfo(Classes(("sky", "road", "tree")), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), license="cc-by-4.0")


def network(seed: int, classes: int, **settings) -> ANNNet:
    """One whose every number is other than those of a fresh one."""
    torch.manual_seed(seed)
    made = ANNNet(classes, **{**SMALL, **settings}).eval()
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return made


@pytest.fixture
def trained(tmp_path: Path) -> ANNNet:
    made = network(0, 3)
    save_model(tmp_path / "model", made, INFO)
    return made


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(7))


def test_of_the_same_classes_it_is_the_same_network(trained, image, tmp_path):
    mine = network(1, 3, dropout=0.5)
    assert begin_with(tmp_path / "model", mine, INFO.classes) == INFO
    for one, other in zip(mine(image, with_aux=True), trained(image, with_aux=True), strict=True):
        assert torch.equal(one, other)


def test_classes_are_known_again_by_their_names(trained, image, tmp_path):
    mine = network(1, 4)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    begin_with(tmp_path / "model", mine, Classes(("tree", "lake", "sky", "wall")))
    for one, other in zip(mine(image, with_aux=True), trained(image, with_aux=True), strict=True):
        torch.testing.assert_close(one[:, [0, 2]], other[:, [2, 0]])
    for name in ("classifier.weight", "classifier.bias", "aux_classifier.4.weight", "aux_classifier.4.bias"):
        assert torch.equal(mine.state_dict()[name][[1, 3]], before[name][[1, 3]]), name


def test_another_auxiliary_classifier_or_none(trained, image, tmp_path):
    for width in (0, 4):
        mine = network(1, 3, aux_channels=width)
        begin_with(tmp_path / "model", mine, INFO.classes)
        assert torch.equal(mine(image), trained(image))


def test_a_network_of_bgr_sees_rgb_alike(trained, image, tmp_path):
    save_model(tmp_path / "bgr", trained, replace(INFO, channel_order="BGR"))
    mine = network(1, 3)
    info = begin_with(tmp_path / "bgr", mine, INFO.classes)
    assert (info.channel_order, info.mean, info.std) == ("RGB", INFO.mean[::-1], INFO.std[::-1])
    torch.testing.assert_close(mine(image), trained(image.flip(1)))


def test_what_does_not_fit_is_told_with_the_flags_that_do(trained, tmp_path):
    with pytest.raises(ConfigError) as error:
        begin_with(tmp_path / "model", network(1, 3, pool_sizes=(1, 3), refine=True), INFO.classes)
    flags = "--model.pool_sizes 1 2 --model.refine false"
    assert str(error.value) == f"{tmp_path / 'model'}: its network is built otherwise; begin with it by {flags}"
    save_model(tmp_path / "folded", fold(trained), INFO)
    with pytest.raises(CheckpointError, match="a folded network, which cannot be trained"):
        begin_with(tmp_path / "folded", network(1, 3), INFO.classes)


def test_what_names_a_model(tmp_path):
    assert names_model(tmp_path)
    assert names_model(Path("ann-r50-cityscapes-512x1024-80k"))
    assert not names_model(True)
    assert not names_model(Path("resnet50.safetensors"))


def test_a_run_goes_on_from_it_and_keeps_its_preprocessing(trained, tmp_path):
    write_sample(tmp_path / "data", train=2, val=1, test=1)
    config = make_config(
        tiny(learning_rate=1e-12, freeze_batchnorm=True).model_dump(), {"model": {"pretrained": tmp_path / "model"}}
    )
    _, shown = run(tmp_path / "data", config, tmp_path / "run")
    assert f"begins with {tmp_path / 'model'}" in shown
    found, info = load_model(tmp_path / "run" / "best")
    assert (info.mean, info.std, info.license) == (INFO.mean, INFO.std, INFO.license)
    assert info.source == f"trained by asymseg on 2 images, from {tmp_path / 'model'}"
    for name, tensor in found.backbone.state_dict().items():
        torch.testing.assert_close(tensor, trained.backbone.state_dict()[name])
