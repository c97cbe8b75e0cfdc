"""Groups, the schedule by hand, and frozen normalisation."""

import pytest
import torch
from torch import nn

from asymseg.config import TrainConfig
from asymseg.model.annnet import ANNNet
from asymseg.training.optimizer import freeze_batchnorm, learning_rate, make_optimizer, set_learning_rate


class TwoMaps(nn.Module):
    """The smallest backbone there is, with a normalisation layer."""

    channels = (4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images):
        x = self.norm(self.convolution(images))
        return x, x


@pytest.fixture
def network() -> ANNNet:
    return ANNNet(2, TwoMaps(), key_channels=4, value_channels=4, context_channels=4, aux_channels=4, pool_sizes=(1,))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_groups(network, kind):
    settings = TrainConfig(optimizer=kind, weight_decay=0.02, backbone_factor=0.1, momentum=0.8, learning_rate=0.5)
    optimizer = make_optimizer(network, settings)
    assert isinstance(optimizer, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)
    assert [(group["factor"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.1, 0.02),
        (0.1, 0.0),
        (1.0, 0.02),
        (1.0, 0.0),
    ]
    backbone, backbone_vectors, head, head_vectors = (set(group["params"]) for group in optimizer.param_groups)
    assert backbone == {network.backbone.convolution.weight}
    assert backbone_vectors == {
        network.backbone.convolution.bias,
        network.backbone.norm.weight,
        network.backbone.norm.bias,
    }
    assert network.classifier.weight in head
    assert network.classifier.bias in head_vectors
    assert backbone | backbone_vectors | head | head_vectors == set(network.parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    if kind == "sgd":
        assert all(group["momentum"] == 0.8 for group in optimizer.param_groups)


def test_decay_on_all(network):
    optimizer = make_optimizer(network, TrainConfig(weight_decay=0.02, decay_all=True))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02] * 4


def test_frozen_parameters_are_in_no_group(network):
    network.backbone.requires_grad_(False)
    optimizer = make_optimizer(network, TrainConfig())
    given = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    assert given == set(network.parameters()) - set(network.backbone.parameters())


def test_every_group_gets_its_share_of_the_rate(network):
    optimizer = make_optimizer(network, TrainConfig(backbone_factor=0.25))
    set_learning_rate(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.4, 0.4]


def test_poly_schedule_by_hand():
    settings = TrainConfig(steps=4, learning_rate=0.2, power=2)
    assert [learning_rate(step, settings) for step in range(4)] == pytest.approx([0.2, 0.1125, 0.05, 0.0125])


def test_poly_schedule_of_the_paper():
    settings = TrainConfig(steps=60_000, learning_rate=0.01)
    assert learning_rate(0, settings) == 0.01
    assert learning_rate(30_000, settings) == pytest.approx(0.01 * 0.5**0.9)


def test_warm_up_by_hand():
    settings = TrainConfig(steps=8, learning_rate=1.0, power=1, warmup_steps=3)
    assert [learning_rate(step, settings) for step in range(5)] == pytest.approx(
        [1 / 4, 2 / 4 * 7 / 8, 3 / 4 * 6 / 8, 5 / 8, 4 / 8]
    )


def test_schedule_ends_at_the_final_factor():
    settings = TrainConfig(steps=1000, learning_rate=2.0, power=1, final_factor=0.1)
    assert learning_rate(0, settings) == 2.0
    assert learning_rate(500, settings) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert learning_rate(999, settings) == pytest.approx(0.2, rel=0.01)


def test_freeze_batchnorm_keeps_statistics_and_scale(network):
    network.train()
    freeze_batchnorm(network.backbone)
    before = {name: tensor.clone() for name, tensor in network.backbone.norm.state_dict().items()}
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.backbone.norm.state_dict().items())
    assert network.backbone.norm.weight.grad is None
    assert network.backbone.convolution.weight.grad is not None
    assert network.project[1].training  # the head's own normalisation goes on learning
