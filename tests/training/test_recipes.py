"""Every published recipe learns for two steps on a miniature of its data set, in the layout of its download."""

import re

import pytest
import torch
from catalog_miniatures import ade20k, cityscapes, pascal_context, sbd, voc2012

from asymseg.config import RECIPES, make_config, read_config, recipe_names
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.data.loader import TimedBatches, training_loader
from asymseg.model.backbone import make_backbone
from asymseg.model.zoo import ZOO
from asymseg.training.loss import make_loss
from asymseg.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from asymseg.training.plan import class_weights, make_accelerator, make_network, model_info
from asymseg.training.state import Progress, Run
from asymseg.training.train import _optimizer_step

PUBLISHED = [name for name in recipe_names() if name.startswith("ann-")]

MINIATURES = {
    "cityscapes": ("cityscapes", cityscapes),
    "ade20k": ("ade20k", ade20k),
    "voc2012": ("voc2012-aug", lambda root: sbd(voc2012(root))),
    "context": ("pascal-context", pascal_context),
}

TINY = {
    "model": {
        "backbone": "test_resnet", "pretrained": False, "output_stride": 16, "key_channels": 4, "value_channels": 4,
        "context_channels": 8, "aux_channels": 4,
    },
    "data": {"crop_size": (24, 32), "short_side": None, "workers": 0},
    "train": {"steps": 2, "batch_size": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[str, DataSet]:
    """A miniature of each data set that recipes are for, opened as a user would."""
    return {
        data: open_dataset(f"{name}:{make(tmp_path_factory.mktemp(data) / 'data')}")
        for data, (name, make) in MINIATURES.items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_steps(datasets, tmp_path, name):
    """All settings of the recipe are in force but for sizes: network, crops, batch and steps are small."""
    dataset = datasets[name.split("-")[2]]
    config = make_config(read_config(name), TINY)
    settings = config.train
    torch.manual_seed(settings.seed)
    network, info = make_network(config, len(dataset.classes)), model_info(config, dataset)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loader = training_loader(
        dataset.splits["train"], dataset.classes, config.data, 3, info.mean, info.std,
        batch_size=settings.batch_size, first_batch=0, num_batches=settings.steps, seed=settings.seed,
    )  # fmt: skip
    accelerator = make_accelerator(settings)
    run = Run(network, network, make_optimizer(network, settings), None, accelerator, Progress())
    losses = make_loss(settings, class_weights(config, None, dataset))
    batches = TimedBatches(loader, settings.batch_size)
    for step in range(settings.steps):
        set_learning_rate(run.optimizer, learning_rate(step, settings))
        assert 0 < _optimizer_step(run, batches, losses, step, config, tmp_path) < 100
    after = network.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert all(not torch.equal(before[key], after[key]) for key in before if key.endswith("conv1.weight"))


def test_the_networks_can_be_built():
    """Their backbones are such as timm knows, at the stride asked for, and the changes to them fit."""
    models = {name: make_config(read_config(name)).model for name in PUBLISHED}
    for name, model in models.items():
        assert (model.pretrained, model.output_stride) == (True, 8)
        assert ("101" in model.backbone) == ("r101" in name)
    for backbone in {model.backbone for model in models.values()}:
        with torch.device("meta"):
            assert make_backbone(backbone, False, (-2, -1), 8, 3).strides == (8, 8)


def test_what_was_reported_is_what_the_zoo_says():
    """Recipes of published weights name the score that is listed with these."""
    reported = {
        name: tuple(float(number) for number in re.findall(r"\b\d\d\.\d\d\b", (RECIPES / f"{name}.yaml").read_text()))
        for name in PUBLISHED
        if name.endswith(("-mmseg", "-paddle"))
    }
    listed = {(published.miou, published.miou_multi_scale) for published in ZOO.values()}
    assert {(numbers[0], numbers[-1]) for numbers in reported.values()} == listed
    assert len(reported) == 20
