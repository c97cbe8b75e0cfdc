"""Every published recipe learns for two steps on a miniature of its data set, in the layout of its download."""

import re

import pytest
import torch
from catalog_miniatures import ade20k, cityscapes, pascal_context, sbd, voc2012

from asymseg.config import RECIPES, make_config, read_config, recipe_names
from asymseg.data.dataset import DataSet, open_dataset
from asymseg.data.loader import TimedBatches
from asymseg.model.backbone import make_backbone
from asymseg.model.zoo import ZOO
from asymseg.training.optimizer import learning_rate, set_learning_rate
from asymseg.training.plan import make_accelerator
from asymseg.training.step import optimizer_step, prepare, remaining_batches
from asymseg.training.watch import Watch

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
    work = prepare(dataset, config, tmp_path, make_accelerator(settings), None, Watch())
    network = work.run.network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batches = TimedBatches(remaining_batches(work), settings.batch_size)
    for step in range(settings.steps):
        set_learning_rate(work.run.optimizer, learning_rate(step, settings))
        loss, skipped = optimizer_step(work, batches, step)
        assert 0 < loss < 100
        assert skipped == ()
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
