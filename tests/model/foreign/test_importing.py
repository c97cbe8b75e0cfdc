"""Checkpoints of every dialect give the logits of a plain network written from the same tables of keys."""

import math
import pickle
from collections import OrderedDict

import foreign_checkpoints as made
import foreign_reference as plain
import pytest
import torch

from asymseg.model.checkpoint import load_model, save_model
from asymseg.model.folding import fold
from asymseg.model.foreign.importing import import_checkpoint

SIZES = [(97, 97), (128, 256), (129, 257)]

BACKBONE = "type='ResNetV1c', depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True"
"""Of mmsegmentation's configurations for ANN, FCN, PSPNet and the non-local network at stride 8."""


def settings(head: str, align_corners: bool = False, backbone: str = BACKBONE) -> str:
    """A configuration as mmcv writes it into a checkpoint, cut down to what tells something."""
    index = "[2, 3]" if head == "ANNHead" else "3"
    return (
        "norm_cfg = dict(type='SyncBN', requires_grad=True)\n"
        "model = dict(\n"
        "    type='EncoderDecoder',\n"
        f"    backbone=dict({backbone}, norm_cfg=dict(type='SyncBN', requires_grad=True)),\n"
        f"    decode_head=dict(type='{head}', in_index={index}, dropout_ratio=0.1, align_corners={align_corners}))\n"
        "img_norm_cfg = dict(\n"
        "    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)\n"
    )


def write_pdparams(path, tensors, *, pairs=False, protocol=4):
    arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
    content = {key: (f"name_{key}", array) if pairs else array for key, array in arrays.items()}
    content["StructuredToParameterName@@"] = {key: f"name_{key}" for key in arrays}
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def assert_equal_logits(network, reference, sizes=SIZES):
    folded = fold(network)
    for height, width in sizes:
        images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            ours, theirs = (*network(images, with_aux=True), folded(images)), reference(images)
        for logits, expected in zip(ours, (*theirs, theirs[0]), strict=True):
            assert logits.shape == expected.shape
            assert expected.std() > 0.01
            assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def assert_saved_and_loaded(network, info, folder):
    """A model folder holds all that shapes the network."""
    save_model(folder, network, info)
    again, same = load_model(folder)
    images = torch.randn(1, 3, 65, 72)
    assert same == info
    assert again.settings == network.settings
    assert torch.equal(again(images), network(images))


def test_the_tables_have_the_published_numbers():
    """Entries and parameters of the real networks."""

    def count(shapes):
        learnt = ("weight", "bias")
        shared = tuple(made.SHARED)
        parameters = [s for k, s in shapes.items() if k.endswith(learnt) and not k.startswith(shared)]
        return len(shapes), sum(map(math.prod, parameters))

    assert count(made.authors(made.AUTHORS_101)) == (704, 67_694_310)
    assert count(made.mmseg_ann(made.MMSEG_50)) == (390, 46_228_614)
    assert count(made.mmseg_ann(made.MMSEG_101)) == (696, 65_220_742)
    assert len(made.paddle(made.PADDLE_50)) == 335


@pytest.mark.parametrize("size", [made.SMALL, made.Size((3, 4, 6, 3), 2, 64, 9, 4, 10, 5, 19)])
def test_authors(tmp_path, size):
    tensors = made.filled(made.authors(size))
    path = tmp_path / "anything.bin"
    state = OrderedDict((f"module.{key}", tensor) for key, tensor in tensors.items())
    torch.save({"config_dict": {"dataset": "cityscapes"}, "state_dict": state, "runner_state": {"iters": 3}}, path)
    network, info = import_checkpoint(path)
    assert not network.training
    assert network.align_corners
    assert_equal_logits(network, lambda images: plain.authors(tensors, images))
    assert info.channel_order == "BGR"
    torch.testing.assert_close(torch.tensor(info.mean) * 255, torch.tensor([102.9801, 115.9465, 122.7717]))
    torch.testing.assert_close(torch.tensor(info.std) * 255, torch.ones(3))
    assert info.source == "anything.bin, a checkpoint of the authors' code"
    assert_saved_and_loaded(network, info, tmp_path / "model")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("head", "shapes"),
    [
        ("ANNHead", made.mmseg_ann()),
        ("PSPHead", made.mmseg_psp()),
        ("FCNHead", made.mmseg_fcn()),
        ("NLHead", made.mmseg_non_local()),
    ],
)
def test_mmseg(tmp_path, head, shapes, align_corners):
    tensors = made.filled(shapes)
    path = tmp_path / "model.pth"
    names = ("road", "sky", "car", "tree")
    meta = {
        "mmseg_version": "0.5.0",
        "config": settings(head, align_corners),
        "CLASSES": names,
        "PALETTE": [[1, 2, 3]] * 4,
    }
    torch.save({"meta": meta, "state_dict": tensors}, path)
    network, info = import_checkpoint(path)
    assert network.align_corners == align_corners
    assert_equal_logits(network, lambda images: plain.mmseg(tensors, images, head, align_corners=align_corners))
    assert (info.classes.names, info.classes.palette) == (names, ((1, 2, 3),) * 4)
    assert info.channel_order == "RGB"
    torch.testing.assert_close(info.mean, (0.485, 0.456, 0.406))
    torch.testing.assert_close(info.std, (0.229, 0.224, 0.225))
    assert info.source == "model.pth, a checkpoint of mmsegmentation 0.5.0"
    assert_saved_and_loaded(network, info, tmp_path / "model")


def test_paddle(tmp_path):
    tensors = made.filled(made.paddle())
    write_pdparams(tmp_path / "model.pdparams", tensors)
    network, info = import_checkpoint(tmp_path / "model.pdparams")
    assert not network.align_corners
    assert_equal_logits(network, lambda images: plain.paddle(tensors, images))
    assert (info.mean, info.std, info.channel_order) == ((0.5,) * 3, (0.5,) * 3, "RGB")
    assert_saved_and_loaded(network, info, tmp_path / "model")
