"""ImageNet weights that torch wrote, for a backbone to begin with: torchvision's, mmsegmentation's and timm's."""

import pickle

import pytest
import timm
import torch
import torchvision

from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.backbone import make_backbone

NARROW = {"key_channels": 4, "value_channels": 4, "context_channels": 8, "aux_channels": 4}


def loaded(name, path, output_stride=32, in_channels=3):
    return make_backbone(name, path, (-2, -1), output_stride, in_channels).eval()


def test_torchvision(tmp_path):
    """The same maps at stride 8 as torchvision's own dilated network."""
    torch.manual_seed(0)
    block, dilated = torchvision.models.resnet.Bottleneck, (False, True, True)
    theirs = torchvision.models.ResNet(block, [1, 2, 1, 2], replace_stride_with_dilation=dilated).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "resnet50-11ad3fa6.pth")
    backbone = loaded("resnet50+blocks=1,2,1,2", tmp_path / "resnet50-11ad3fa6.pth", 8)
    images = torch.randn(1, 3, 49, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        low = theirs.layer3(theirs.layer2(theirs.layer1(x)))
        for ours, expected in zip(backbone(images), (low, theirs.layer4(low)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zipped", [True, False])
def test_mmsegmentation(tmp_path, zipped):
    """`resnet50_v1c`: the same network, its stem under other names."""
    torch.manual_seed(0)
    source = timm.create_model("resnet10t", stem_type="deep")
    names = {"conv1.0": "stem.0", "conv1.1": "stem.1", "conv1.3": "stem.3", "conv1.4": "stem.4"}
    names |= {"conv1.6": "stem.6", "bn1": "stem.7"}
    state = {}
    for key, tensor in source.state_dict().items():
        module, _, leaf = key.rpartition(".")
        state[f"{names.get(module, module)}.{leaf}"] = tensor
    path = tmp_path / "resnet_v1c-2cccc1ad.pth"
    torch.save({"meta": {}, "state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError):  # its stem is narrower
        loaded("resnet10t", path)
    features = loaded("resnet18d+blocks=1,1,1,1", path).features
    for key, tensor in features.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[key]), key


def test_timms_own_pickles_and_other_channels(tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("resnet10t").state_dict()
    torch.save(state, tmp_path / "x.pth")
    network = ANNNet(2, "resnet10t", pretrained=str(tmp_path / "x.pth"), **NARROW)
    assert torch.equal(network.backbone.features.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])
    first = loaded("resnet10t", tmp_path / "x.pth", in_channels=1).features.conv1[0].weight
    torch.testing.assert_close(first, state["conv1.0.weight"].sum(dim=1, keepdim=True))


def test_files_that_do_not_fit(tmp_path):
    state = timm.create_model("resnet10t").state_dict()
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: lacks 1 tensors of resnet10t, first layer3\.0\.conv1\.weight"):
        loaded("resnet10t", tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: could not be loaded into resnet18d \(.*size mismatch"):
        loaded("resnet18d", tmp_path / "x.pth")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match="asks for 'builtins.print'"):
        loaded("resnet10t", tmp_path / "bad.pth")
