"""Networks leave for mmsegmentation: the same file for what came from there, the same logits for what did not."""

from dataclasses import replace

import foreign_checkpoints as made
import foreign_reference as plain
import pytest
import torch
from torch import nn

from asymseg.classes import Classes
from asymseg.errors import ConfigError
from asymseg.model.annnet import ANNNet
from asymseg.model.foreign.exporting import export_mmseg, to_mmseg
from asymseg.model.foreign.importing import import_checkpoint
from asymseg.model.info import ModelInfo
from asymseg.model.seeing import Seeing

INFO = ModelInfo(Classes(("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
NARROW = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 5}
HEADS = {
    "ANNHead": {"pool_sizes": (1, 3, 6, 8)},
    "PSPHead": {"fusion": "none", "context": "psp", "pool_sizes": (1, 2, 3, 6)},
    "FCNHead": {"fusion": "none", "context": "none", "refine": True},
    "NLHead": {"fusion": "none", "context": "nonlocal_wang", "refine": True},
}


def awake(**settings):
    """A network whose every part matters, with BatchNorm averages of its own."""
    torch.manual_seed(3)
    network = ANNNet(3, **{"backbone": "resnet50c+stem=3+width=4"} | NARROW | settings)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 0.9)
                module.bias.normal_(std=0.2)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Conv2d):
                module.weight.normal_(std=module.weight[0].numel() ** -0.5)
    return network.eval()


@pytest.mark.parametrize(
    "shapes", [made.mmseg_ann(made.Size(value=5)), made.mmseg_psp(), made.mmseg_fcn(), made.mmseg_non_local()]
)
def test_the_same_checkpoint_comes_back(tmp_path, shapes):
    """Every key in its place and every bit, counters and second names too."""
    shapes = {key: shape for key, shape in shapes.items() if "backbone.layer" not in key}
    shapes |= {k: s for k, s in made.mmseg_backbone(made.Size((3, 4, 6, 3))).items() if "backbone.layer" in k}
    if "decode_head.nl_block.theta.conv.weight" in shapes:
        shapes |= made.mmseg_non_local(made.Size((3, 4, 6, 3), key=3, value=3))
    state = made.filled({key: shapes[key] for key in [*made.mmseg_backbone(made.Size((3, 4, 6, 3))), *shapes]})
    names, colours = ("a", "b", "c", "d"), [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]
    torch.save({"meta": {"CLASSES": names, "PALETTE": colours}, "state_dict": state}, tmp_path / "in.pth")
    network, info = import_checkpoint(tmp_path / "in.pth")
    export_mmseg(network, info, tmp_path / "out.pth")
    again = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(again["state_dict"]) == list(state)
    for key, tensor in state.items():
        assert torch.equal(again["state_dict"][key], tensor), key
        assert again["state_dict"][key].dtype == tensor.dtype
    assert (again["meta"]["CLASSES"], again["meta"]["PALETTE"]) == (names, colours)
    assert again["meta"]["dataset_meta"] == {"classes": names, "palette": colours}


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_their_network_says_the_same(head, align_corners):
    network = awake(align_corners=align_corners, **HEADS[head])
    state = to_mmseg(network, INFO)["state_dict"]
    images = torch.randn(1, 3, 66, 97)
    with torch.no_grad():
        expected = plain.mmseg(state, images, head, align_corners=align_corners)
        for logits, theirs in zip(network(images, with_aux=True), expected, strict=True):
            assert theirs.std() > 0.01
            assert (logits - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    "settings",
    [
        HEADS["ANNHead"] | {"pool_sizes": (1, 2)},
        HEADS["PSPHead"] | {"pool_sizes": (1, 4)},
        HEADS["NLHead"] | {"aux_channels": 0},
        HEADS["FCNHead"] | {"refine": False},
        {"output_stride": 16, "backbone": "resnet50s+width=4"},
        {"output_stride": 32, "backbone": "resnet50d+width=4"},
        {"backbone": "resnet50d+even+unpooled+width=4", "dropout": 0.25},
        {"backbone": "resnet101+width=4", "align_corners": True},
    ],
)
def test_settings_and_preprocessing_travel(tmp_path, settings):
    """What the weights do not show is in the configuration, and the importer reads it there."""
    network = awake(**settings)
    seeing = Seeing("slide", (64, 48), average="mixed")
    info = ModelInfo(INFO.classes, INFO.mean, INFO.std, channel_order="BGR", seeing=seeing)
    export_mmseg(network, info, tmp_path / "model.pth")
    again, same = import_checkpoint(tmp_path / "model.pth")
    left_out = {"pool_sizes", "key_channels", "value_channels"} if network.settings["fusion"] == "none" else set()
    if network.settings["context"] == "psp":
        left_out -= {"pool_sizes"}
    for name, value in network.settings.items():
        assert name in left_out or again.settings[name] == value, name
    images = torch.randn(1, 3, 47, 64)
    assert torch.equal(again(images), network(images))
    assert (same.classes, same.channel_order) == (info.classes, "BGR")
    assert same.seeing == replace(seeing, stride=(43, 32))
    torch.testing.assert_close(same.mean, info.mean)
    torch.testing.assert_close(same.std, info.std)
    text = (tmp_path / "model.py").read_text(encoding="utf-8")
    assert "dict(type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor'" in text
    compile(text, "model.py", "exec")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": "none"}, "no network of fusion afnb, context none"),
        ({"fusion": "none", "context": "nonlocal"}, "no network of fusion none, context nonlocal and refine False"),
        ({"merge": "add"}, "joins by concat, this network by merge add"),
        ({"value_channels": 3}, "key_channels 4 and value_channels 3"),
        ({"backbone": "resnet50c+ceil+width=4"}, "its max-pooling rounds down"),
        ({"backbone": "resnet50d+width=4"}, "its shortcuts of dilated stages do not pool"),
        ({"backbone": "resnet50c+blocks=1,1,1,1+width=4"}, "no ResNet of (1, 1, 1, 1) blocks"),
        ({"backbone": "resnet10t"}, "have 50, 101 or 152 layers"),
        ({"stages": (2, 3)}, "give their last two stages"),
        (HEADS["NLHead"] | {"key_channels": 3, "value_channels": 3}, "divides its channels, 8, by a whole number"),
    ],
)
def test_what_mmsegmentation_cannot_build(settings, message):
    with pytest.raises(ConfigError) as caught:
        to_mmseg(ANNNet(3, **{"backbone": "resnet50c+width=4"} | NARROW | settings), INFO)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_backbone_of_ones_own_cannot_leave():
    class Own(nn.Module):
        channels = (4, 5)

    with pytest.raises(ConfigError, match="have 50, 101 or 152 layers"):
        to_mmseg(ANNNet(3, Own(), **NARROW), INFO)
