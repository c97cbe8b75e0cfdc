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
    assert "timm's weights of resnet10t: could not be had or loaded (" in message
    assert message.endswith("set model.pretrained to false, or to a safetensors file of this model")
