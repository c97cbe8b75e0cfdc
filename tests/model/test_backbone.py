"""Backbones from timm: shapes of many families, and where their weights come from."""

import logging

import pytest
import timm
import torch
from safetensors.torch import save_file

from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.backbone import backbone_normalisation, make_backbone

NARROW = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 4}


@pytest.mark.parametrize(
    ("name", "output_stride", "channels", "strides", "multiple"),
    [
        ("resnet18", 8, (256, 512), (8, 8), 1),
        ("resnet50", 8, (1024, 2048), (8, 8), 1),
        ("resnet50c", 16, (1024, 2048), (16, 16), 1),
        ("resnet50d", 32, (1024, 2048), (16, 32), 1),
        ("resnet101s", 8, (1024, 2048), (8, 8), 1),
        ("mobilenetv2_100", 8, (96, 320), (8, 8), 1),
        ("convnext_atto", 8, (160, 320), (8, 8), 8),  # its patches do not overlap, so sizes are rounded down
        ("hrnet_w18_small", 32, (512, 1024), (16, 32), 32),
        ("swin_tiny_patch4_window7_224", 32, (384, 768), (16, 32), 32),
        ("vit_tiny_patch16_224", 16, (192, 192), (16, 16), 16),
    ],
)
def test_families(name, output_stride, channels, strides, multiple):
    torch.manual_seed(0)
    backbone = make_backbone(name, False, (-2, -1), output_stride, 3)
    assert backbone.training
    assert (backbone.channels, backbone.strides) == (channels, strides)
    assert (backbone.stride, backbone.size_multiple) == (output_stride, multiple)
    shapes = []
    backbone.register_forward_hook(lambda module, images, maps: shapes.append([tuple(map_.shape) for map_ in maps]))
    network = ANNNet(2, backbone, **NARROW).eval()
    with torch.no_grad():
        for height, width in [(37, 53), (64, 96)]:
            assert network(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)
    assert shapes[-1] == [(1, c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)]


@pytest.mark.parametrize(
    ("name", "stages", "output_stride", "channels", "strides"),
    [
        ("resnet10t", (2, 3), 8, (128, 256), (8, 8)),
        ("resnet10t", (1, 2), 8, (64, 128), (4, 8)),
        ("resnet10t", (1, -1), 16, (64, 512), (4, 16)),
        ("hrnet_w18_small", (1, 2), 8, (128, 256), (4, 8)),
    ],
)
def test_stages(name, stages, output_stride, channels, strides):
    torch.manual_seed(0)
    network = ANNNet(2, name, stages=stages, output_stride=output_stride, **NARROW)
    assert (network.backbone.channels, network.backbone.strides) == (channels, strides)
    for height, width in [(3, 5), (16, 16), (40, 72)]:  # one image in training, even where HRNet is one pixel inside
        assert network(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


def test_normalisation_of_the_weights():
    assert backbone_normalisation("resnet50") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert backbone_normalisation("vit_tiny_patch16_224") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Made-up weights of whole timm models, classifier included, as files."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(5)
            save_file(timm.create_model(name).state_dict(), path)
        return path

    return write


def plain(name):
    return name.removeprefix("model.").replace(".", "_")


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [
        ("resnet10t", 8),
        ("mobilenetv2_100", 16),
        ("convnext_atto", 32),
        ("hrnet_w18_small", 32),
        ("vit_tiny_patch16_224", 16),
    ],
)
def test_weights_from_a_file(weights, name, output_stride, capfd, caplog):
    path = weights(name)
    torch.manual_seed(6)
    backbone = make_backbone(name, path, (-2, -1), output_stride, 3)
    torch.manual_seed(5)
    source = {plain(key): tensor for key, tensor in timm.create_model(name).state_dict().items()}
    for key, tensor in backbone.features.state_dict().items():
        assert torch.equal(tensor, source[plain(key)]), key
    # Surplus keys of the classifier are as they should be, and nobody needs to read of them.
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("timm.models._builder").filters


def test_a_path_as_text(weights):
    network = ANNNet(2, "resnet10t", pretrained=str(weights("resnet10t")), **NARROW)
    torch.manual_seed(5)
    expected = timm.create_model("resnet10t").layer1[0].conv1.weight
    assert torch.equal(network.backbone.features.layer1[0].conv1.weight, expected)


def test_weights_for_other_channels(weights):
    """timm sums RGB for one channel; for five it repeats RGB in turn, and scales so that grey images look the same."""
    path = weights("resnet10t")

    def stem(in_channels):
        features = make_backbone("resnet10t", path, (-2, -1), 8, in_channels).features
        return next(parameter for parameter in features.parameters() if parameter.dim() == 4)

    colour = stem(3)
    torch.testing.assert_close(stem(1), colour.sum(dim=1, keepdim=True))
    torch.testing.assert_close(stem(5), colour[:, [0, 1, 2, 0, 1]] * 3 / 5)


def refused(name, path):
    with pytest.raises(CheckpointError) as caught:
        make_backbone(name, path, (-2, -1), 8, 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_do_not_fit(weights, tmp_path):
    path = weights("resnet10t")
    torch.manual_seed(5)
    tensors = timm.create_model("resnet10t").state_dict()
    del tensors["layer3.0.conv1.weight"], tensors["layer4.0.bn1.running_var"]
    save_file(tensors, tmp_path / "holes.safetensors")
    message = refused("resnet10t", tmp_path / "holes.safetensors")
    assert f"{tmp_path / 'holes.safetensors'}: lacks 2 tensors of resnet10t" in message
    assert "layer3.0.conv1.weight, layer4.0.bn1.running_var" in message

    message = refused("regnetx_002", path)
    assert message.startswith(f"{path}: lacks ")
    assert "stem.conv.weight" in message
    # Some families of timm look for names of their own in the file.
    assert refused("convnext_atto", path).startswith(f"{path}: could not be loaded into convnext_atto ('fc.weight')")

    message = refused("resnet18", path)  # the same names, other shapes
    assert message.startswith(f"{path}: could not be loaded into resnet18 (")
    assert "size mismatch for layer2.0.downsample.1.weight" in message

    assert "no such file; model.pretrained takes" in refused("resnet10t", tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    assert "not a safetensors file (" in refused("resnet10t", tmp_path / "text.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:5000])
    assert "not a safetensors file (" in refused("resnet10t", tmp_path / "cut.safetensors")
    (tmp_path / "weights.bin").write_bytes(path.read_bytes())
    assert "rename it to weights.safetensors" in refused("resnet10t", tmp_path / "weights.bin")


@pytest.mark.parametrize("error", [ConnectionError("Network is\nunreachable"), FileNotFoundError("not in the cache")])
def test_weights_without_a_network(monkeypatch, error):
    def download(*arguments, **settings):
        raise error

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    with pytest.raises(CheckpointError) as caught:
        ANNNet(2, "resnet10t", pretrained=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "could not be loaded into resnet10t (" in message
    assert message.endswith("set model.pretrained to false, or to a safetensors file of this model")


CHECKPOINTED = [
    ("test_resnet", 8),
    ("resnet10t", 8),  # a stem of several layers, some of which overwrite what they get
    ("test_efficientnet", 16),  # in one piece
    ("regnetx_002", 32),
    ("test_convnext", 32),  # without BatchNorm, with its own order of memory
    ("hrnet_w18_small", 32),
]


def a_step(name, output_stride, checkpointing, prepare=lambda backbone: None, steps=2):
    """Maps, gradients and buffers of two steps in training."""
    torch.manual_seed(0)
    backbone = make_backbone(name, False, (-2, -1), output_stride, 3).train()
    backbone.checkpointing = checkpointing
    prepare(backbone)
    images = torch.randn(2, 3, 2 * output_stride + 1, 64, requires_grad=True)
    found = []
    for _ in range(steps):
        low, high = backbone(images)
        found += [low.detach(), high.detach()]
        (low.square().mean() + high.sin().mean()).backward()
    found += [images.grad, *(parameter.grad for parameter in backbone.parameters())]
    return found, {name: buffer.clone() for name, buffer in backbone.named_buffers()}


def assert_equal_steps(name, output_stride, prepare=lambda backbone: None):
    plain, checkpointed = (a_step(name, output_stride, checkpointing, prepare) for checkpointing in (False, True))
    for ours, theirs in zip(checkpointed[0], plain[0], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    for buffer, ours in checkpointed[1].items():
        assert torch.equal(ours, plain[1][buffer]), buffer


@pytest.mark.parametrize(("name", "output_stride"), CHECKPOINTED)
def test_checkpointing_changes_nothing(name, output_stride):
    """Maps, gradients and BatchNorm's averages, bit for bit."""
    assert_equal_steps(name, output_stride)


def frozen_norms(backbone):
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def frozen_stem(backbone):
    for parameter in list(backbone.parameters())[:3]:
        parameter.requires_grad_(False)


def cumulative_averages(backbone):
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None


def smooth_activations(backbone):
    """In place, and such that twice is not once."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.SiLU(inplace=True))


def with_dropout(backbone):
    backbone.features.layer3.append(torch.nn.Dropout(0.5))


@pytest.mark.parametrize(
    "prepare",
    [frozen_norms, frozen_stem, cumulative_averages, smooth_activations, with_dropout],
    ids=lambda f: f.__name__,
)
def test_checkpointing_changes_nothing_whatever_is_trained(prepare):
    assert_equal_steps("resnet10t", 8, prepare)


def test_checkpointing_serves_several_backward_passes():
    torch.manual_seed(0)
    backbone = make_backbone("test_resnet", False, (-2, -1), 8, 3).train()
    backbone.checkpointing = True
    images = torch.randn(2, 3, 17, 33)
    low, high = backbone(images)
    loss = low.square().mean() + high.square().mean()
    first = torch.autograd.grad(loss, list(backbone.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(backbone.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    norm = next(module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked == 1


def test_checkpointing_is_for_training_alone(monkeypatch):
    backbone = make_backbone("test_resnet", False, (-2, -1), 8, 3)
    backbone.checkpointing = True
    monkeypatch.setattr("asymseg.model.backbone.checkpoint", lambda *arguments, **settings: pytest.fail("checkpointed"))
    images = torch.randn(2, 3, 17, 33)
    with torch.no_grad():
        backbone.train()(images)
    backbone.eval()(images)
    with pytest.raises(pytest.fail.Exception, match="checkpointed"):
        backbone.train()(images)


@pytest.mark.parametrize(
    ("name", "output_stride", "share"),
    [("test_resnet", 8, 0.5), ("resnet10t", 8, 0.5), ("test_efficientnet", 16, 0.5), ("regnetx_002", 32, 0.5)],
)
def test_checkpointing_keeps_less(name, output_stride, share):
    """Of the memory that a forward pass leaves behind for the backward pass."""
    kept = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = make_backbone(name, False, (-2, -1), output_stride, 3).train()
        backbone.checkpointing = checkpointing
        images = torch.randn(2, 3, 96, 96)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            maps = backbone(images)
        events = [event for event in profile.events() if event.name != "[memory]"]
        frees = [event for event in profile.events() if event.name == "[memory]"]
        kept.append(sum(event.self_cpu_memory_usage for event in events + frees))
        del maps
    assert kept[1] < share * kept[0]
