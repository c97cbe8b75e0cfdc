"""What people do with torch networks: keys that stay, copies, pickles, timm's weights in and out."""

import copy
import io
import pickle

import pytest
import timm
import torch

from asymseg.model.annnet import ANNNet

NARROW = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 4}
CONVOLUTION, BIASED = ("weight",), ("weight", "bias")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
FUSION = {
    "fusion.query.0": CONVOLUTION,
    "fusion.query.1": NORM,
    "fusion.key.0": CONVOLUTION,
    "fusion.key.1": NORM,
    "fusion.value": BIASED,
    "fusion.output": BIASED,
    "fusion.merge.0": CONVOLUTION,
    "fusion.merge.1": NORM,
}
PROJECT = {"project.0": CONVOLUTION, "project.1": NORM}
CONTEXT = {
    "context.query.0": CONVOLUTION,
    "context.query.1": NORM,
    "context.value": BIASED,
    "context.output": BIASED,
    "context.merge.0": CONVOLUTION,
    "context.merge.1": NORM,
}
PYRAMID = {
    f"pyramid.projections.{scale}.{place}": kind for scale in range(4) for place, kind in ((0, CONVOLUTION), (1, NORM))
}
CLASSIFIERS = {
    "classifier": BIASED,
    "aux_classifier.0": CONVOLUTION,
    "aux_classifier.1": NORM,
    "aux_classifier.4": BIASED,
}


def make(backbone="resnet10t", **settings):
    torch.manual_seed(0)
    network = ANNNet(3, backbone, **{"output_stride": 32} | NARROW | settings)
    network(torch.randn(2, 3, 64, 64))  # BatchNorm's averages are no longer 0 and 1
    return network.eval()


@pytest.mark.parametrize(
    ("settings", "modules"),
    [
        ({}, FUSION | PROJECT | CONTEXT | CLASSIFIERS),
        ({"merge": "add"}, None),
        ({"fusion": "none", "context": "nonlocal"}, PROJECT | CONTEXT | CLASSIFIERS),
        ({"fusion": "none", "context": "psp"}, PYRAMID | PROJECT | CLASSIFIERS),
        ({"fusion": "none", "context": "none"}, PROJECT | CLASSIFIERS),
    ],
)
def test_the_keys_are_frozen(settings, modules):
    """Weights on users' disks have these names: a key may come with a new switch, none may go or change."""
    if modules is None:  # the residual of the original block has no convolution of its own after the output's
        modules = {
            name: kind
            for name, kind in (FUSION | PROJECT | CONTEXT | CLASSIFIERS).items()
            if not name.startswith(("fusion.merge", "context.merge"))
        }
    expected = {f"{module}.{name}" for module, names in modules.items() for name in names}
    keys = set(ANNNet(3, "resnet10t", output_stride=32, **NARROW | settings).state_dict())
    assert {key for key in keys if not key.startswith("backbone.")} == expected


def test_the_backbone_keeps_the_keys_of_timm():
    theirs = timm.create_model("resnet18").state_dict()
    ours = ANNNet(3, "resnet18", **NARROW).state_dict()
    known = {key for key in theirs if not key.startswith("fc.")}
    assert {key.removeprefix("backbone.features.") for key in ours if key.startswith("backbone.")} == known


def test_weights_go_in_by_their_plain_keys():
    network, other = make(), ANNNet(3, "resnet10t", output_stride=32, **NARROW).eval()
    assert str(other.load_state_dict(dict(network.state_dict()))) == "<All keys matched successfully>"
    images = torch.randn(1, 3, 65, 33)
    assert torch.equal(other(images), network(images))


def test_weights_of_timm_go_into_the_backbone_by_their_plain_keys():
    torch.manual_seed(1)
    whole = timm.create_model("resnet18").eval()
    network = ANNNet(3, "resnet18", output_stride=32, **NARROW).eval()
    outcome = network.backbone.features.load_state_dict(whole.state_dict(), strict=False)
    assert outcome.missing_keys == []
    assert outcome.unexpected_keys == ["fc.weight", "fc.bias"]
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network.backbone(images)[1], whole.forward_features(images))


@pytest.mark.parametrize(("name", "stride"), [("resnet10t", 8), ("mobilenetv2_035", 16)])
def test_a_feature_network_of_timm_is_a_backbone(name, stride):
    torch.manual_seed(1)
    features = timm.create_model(name, features_only=True, output_stride=stride)
    passed = make(features, output_stride=stride)
    named = ANNNet(3, name, output_stride=stride, **NARROW).eval()
    named.load_state_dict(passed.state_dict())
    images = torch.randn(1, 3, 33, 65)
    assert torch.equal(named(images), passed(images))
    assert passed.settings["backbone"] is None


def saved_and_loaded(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network)), saved_and_loaded]
)
@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv2_035"])
def test_a_copy_is_the_same_network_and_another_one(copied, backbone):
    network = make(backbone)
    images = torch.randn(1, 3, 33, 65)
    before = network(images)
    twin = copied(network)
    assert twin.settings == network.settings
    assert not twin.training
    assert torch.equal(twin(images), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(network(images), before)
    assert not torch.equal(twin(images), before)


def test_a_deep_copy_trains_on_its_own():
    network = make()
    twin = copy.deepcopy(network).train()
    logits, aux = twin(torch.randn(2, 3, 33, 65), with_aux=True)
    (logits.square().mean() + aux.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
