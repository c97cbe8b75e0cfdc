"""What a checkpoint says beside its weights, and every way in which its keys can be wrong."""

from collections import OrderedDict

import foreign_checkpoints as made
import foreign_reference as plain
import pytest
import torch
from torch import nn

from asymseg.classes import Classes
from asymseg.errors import CheckpointError
from asymseg.model.annnet import ANNNet
from asymseg.model.foreign.importing import import_checkpoint, read_foreign
from asymseg.model.foreign.known_classes import CITYSCAPES, PASCAL_CONTEXT, VOC2012
from asymseg.model.foreign.mmseg import translate
from asymseg.model.seeing import Seeing

ANN = made.filled(made.mmseg_ann())
AUTHORS = made.filled(made.authors())
DEPTH_50 = made.Size((3, 4, 6, 3), width=2, stem=2)


@pytest.fixture
def write(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "x.pth")
        return tmp_path / "x.pth"

    return save


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def model(head="ANNHead", backbone="", decode="", rest=""):
    index = "[2, 3]" if head == "ANNHead" else "3"
    stages = "strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True"
    return (
        f"model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=50, {backbone or stages}), "
        f"decode_head=dict(type='{head}', in_index={index}, {decode})){rest}\n"
    )


# Sizes are read off the keys.


def test_depths_have_timms_names():
    sizes = {
        "resnet50c": made.Size((3, 4, 6, 3), width=64, stem=32),
        "resnet101c": made.Size((3, 4, 23, 3), width=64, stem=32),
        "resnet152s": made.Size((3, 8, 36, 3), width=64, stem=64),
        "resnet50c+stem=3+blocks=1,2,2,3+width=4": made.SMALL,
    }
    for name, size in sizes.items():
        tensors = {key: torch.empty(shape, device="meta") for key, shape in made.mmseg_psp(size).items()}
        assert translate(tensors, {}, "x").settings["backbone"] == name


def test_a_stem_of_one_convolution(write):
    """mmsegmentation's `r50b`, torchvision's network."""
    shapes = made.mmseg_psp(DEPTH_50, deep=False)
    tensors = made.filled(shapes)
    network, _ = import_checkpoint(write({"state_dict": tensors}))
    assert network.settings["backbone"] == "resnet50+width=2"
    agree(network, lambda images: plain.mmseg(tensors, images, "PSPHead"))


def test_pooled_shortcuts(write):
    """mmsegmentation's ResNetV1d: they pool where they stride, and nowhere else."""
    tensors = made.filled(made.mmseg_psp(made.SMALL, shortcut=1))
    network, _ = import_checkpoint(write({"state_dict": tensors}))
    assert network.settings["backbone"].startswith("resnet50d+unpooled+")
    agree(network, lambda images: plain.mmseg(tensors, images, "PSPHead"))


def test_dilation_that_is_not_contracted(write):
    tensors = made.filled(made.mmseg_ann())
    config = model(backbone="strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)")
    network, _ = import_checkpoint(write({"meta": {"config": config}, "state_dict": tensors}))
    agree(network, lambda images: plain.mmseg(tensors, images, "ANNHead", even=True))


def agree(network, reference):
    images = torch.randn(2, 3, 65, 80)
    with torch.no_grad():
        for ours, theirs in zip(network(images, with_aux=True), reference(images), strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    ("strides", "dilations", "stride"),
    [("(1, 2, 1, 1)", "(1, 1, 2, 4)", 8), ("(1, 2, 2, 1)", "[1, 1, 1, 2]", 16), ("(1, 2, 2, 2)", "(1, 1, 1, 1)", 32)],
)
def test_strides(write, strides, dilations, stride):
    config = model(backbone=f"strides={strides}, dilations={dilations}, contract_dilation=True")
    network, _ = import_checkpoint(write({"meta": {"config": config}, "state_dict": ANN}))
    assert network.settings["output_stride"] == stride
    assert network.backbone.stride == stride


def test_without_an_auxiliary_head(write):
    for tensors, reference in ((ANN, lambda t, x: plain.mmseg(t, x, "ANNHead")), (AUTHORS, plain.authors)):
        bare = {k: v for k, v in tensors.items() if not k.startswith(("auxiliary_head.", "dsn."))}
        network, _ = import_checkpoint(write(bare))
        assert network.aux_classifier is None
        images = torch.randn(1, 3, 40, 40)
        torch.testing.assert_close(network(images), reference(tensors, images)[0], rtol=1e-4, atol=1e-5)


# What else may be in a file, and what it means.


def test_forms_of_a_checkpoint(write):
    """With and without meta, optimiser, moving average, counters and second names: the same network."""
    images = torch.randn(1, 3, 40, 48)
    expected = import_checkpoint(write(ANN))[0](images)
    averages = {f"ema_{key.replace('.', '_')}": tensor + 1 for key, tensor in ANN.items()}
    twin = "decode_head.context.stages.0.query_project."
    for content in (
        {"state_dict": ANN},
        {"meta": {}, "state_dict": ANN, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}},
        {"meta": None, "state_dict": ANN | averages},
        {"state_dict": ANN, "ema_state_dict": {key: tensor + 1 for key, tensor in ANN.items()}, "param_schedulers": []},
        {"state_dict": {f"module.{key}": tensor for key, tensor in ANN.items()}},
        {key: tensor for key, tensor in ANN.items() if "num_batches_tracked" not in key},
        {key: tensor for key, tensor in ANN.items() if not key.startswith(twin)},
        {key: tensor.double() for key, tensor in ANN.items() if "num_batches_tracked" not in key},
    ):
        assert torch.equal(import_checkpoint(write(content))[0](images), expected)


def test_what_is_left_out_is_named(write):
    content = {"state_dict": ANN | {"ema_backbone_conv1": torch.zeros(1)}, "optimizer": {}, "meta": {}}
    dropped = read_foreign(write(content)).dropped
    assert dropped["optimizer"] == "state of the optimiser"
    assert "ema_backbone_conv1" in dropped
    twin = "decode_head.context.stages.0.query_project."
    assert {key for key in dropped if key.startswith("decode")} == {key for key in ANN if key.startswith(twin)}
    assert all(reason for reason in dropped.values())


def test_every_key_is_used_or_named(write):
    """A change of any one tensor changes the network, unless the key is named as left out."""
    imported = read_foreign(write(AUTHORS))
    state = {key: tensor.clone() for key, tensor in imported.network.state_dict().items()}
    for key in [*list(AUTHORS)[:: len(AUTHORS) // 6], *list(imported.dropped)[:2]]:
        changed = AUTHORS | {key: AUTHORS[key] + 1}
        if key in imported.dropped:
            assert "in two values" in refused(write(changed))
        elif not key.startswith("context.2.stages.0.f_key."):
            network, _ = import_checkpoint(write(changed))
            assert any(not torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items()), key


def test_counters_travel(write):
    network, _ = import_checkpoint(write(ANN))
    counters = {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counters == {40_000}


@pytest.mark.parametrize(
    ("meta", "corners", "said"),
    [
        ({"config": model(decode="align_corners=True")}, None, True),
        ({"cfg": model(decode="align_corners=True")}, False, True),  # what it says itself goes first
        ({"config": model(decode="align_corners=False")}, True, False),
        ({}, True, True),
        ({}, None, None),
        ({"config": "model = build(anything)"}, None, None),
        ({"config": "not python ("}, None, None),
        ({"config": 7}, None, None),
    ],
)
def test_align_corners(write, meta, corners, said):
    network, info = import_checkpoint(write({"meta": meta, "state_dict": ANN}), align_corners=corners)
    assert network.align_corners == bool(said)
    assert ("align_corners is not in it and was taken to be false" in info.source) == (said is None)


@pytest.mark.parametrize(
    ("config", "mean", "std", "order"),
    [
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[4.0, 5, 6], to_rgb=False)", (1, 2, 3), (4, 5, 6), "BGR"),
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[4.0, 5, 6])", (1, 2, 3), (4, 5, 6), "RGB"),
        ("data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)", (1, 2, 3), (4, 5, 6), "RGB"),
        ("data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6])", (1, 2, 3), (4, 5, 6), "BGR"),
        ("", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB"),
    ],
)
def test_preprocessing(write, config, mean, std, order):
    for text in (config, model() + config):
        _, info = import_checkpoint(write({"meta": {"config": text}, "state_dict": ANN}))
        torch.testing.assert_close(torch.tensor(info.mean) * 255, torch.tensor(mean, dtype=torch.float32))
        torch.testing.assert_close(torch.tensor(info.std) * 255, torch.tensor(std, dtype=torch.float32))
        assert info.channel_order == order


def test_preprocessing_of_the_authors(write):
    config = {"data": {"normalize": {"div_value": 2.0, "mean": [1, 2, 3], "std": [4, 5, 6]}, "input_mode": "RGB"}}
    _, info = import_checkpoint(write({"config_dict": config, "state_dict": AUTHORS}))
    # (x / 2 - m) / s = (x - 2 m) / (2 s)
    torch.testing.assert_close(torch.tensor(info.mean) * 255, torch.tensor([2.0, 4, 6]))
    torch.testing.assert_close(torch.tensor(info.std) * 255, torch.tensor([8.0, 10, 12]))
    assert info.channel_order == "RGB"


NAMES, COLOURS = ["a", "b", "c", "d"], [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]


@pytest.mark.parametrize(
    ("meta", "classes"),
    [
        ({"CLASSES": tuple(NAMES), "PALETTE": COLOURS}, Classes(tuple(NAMES), tuple(map(tuple, COLOURS)))),
        ({"dataset_meta": {"classes": NAMES, "palette": COLOURS}}, Classes(tuple(NAMES), tuple(map(tuple, COLOURS)))),
        ({"dataset_meta": {"CLASSES": NAMES}}, Classes(tuple(NAMES))),
        ({"CLASSES": NAMES, "PALETTE": None}, Classes(tuple(NAMES))),
        ({"CLASSES": NAMES, "PALETTE": COLOURS[:2]}, Classes(tuple(NAMES))),
        ({"CLASSES": ["a", "b", "a", "c"]}, Classes(("a", "b", "a (2)", "c"))),
        ({}, Classes(("class 0", "class 1", "class 2", "class 3"))),
    ],
)
def test_classes(write, meta, classes):
    _, info = import_checkpoint(write({"meta": meta, "state_dict": ANN}))
    assert info.classes == classes
    assert info.classes.declared_palette == classes.declared_palette


def test_classes_from_elsewhere(write):
    known = Classes(("one", "two", "three", "four"))
    assert import_checkpoint(write(ANN), classes=known)[1].classes == known
    named = write({"meta": {"CLASSES": NAMES}, "state_dict": ANN})
    assert import_checkpoint(named, classes=known)[1].classes.names == tuple(NAMES)
    with pytest.raises(CheckpointError, match="its classifier has 4 classes, not 2"):
        import_checkpoint(write(ANN), classes=Classes(("one", "two")))


@pytest.mark.parametrize(
    ("name", "count", "classes"), [("cityscapes", 19, CITYSCAPES), ("pascal_context", 59, PASCAL_CONTEXT)]
)
def test_classes_of_the_authors(write, name, count, classes):
    tensors = made.filled(made.authors(made.Size(classes=count)))
    assert import_checkpoint(write({"config_dict": {"dataset": name}, "state_dict": tensors}))[1].classes == classes
    bare = import_checkpoint(write(tensors))[1].classes
    assert bare.names[:2] == ("class 0", "class 1")


def test_known_classes():
    assert (len(CITYSCAPES), len(VOC2012), len(PASCAL_CONTEXT)) == (19, 21, 59)
    assert (CITYSCAPES.names[13], CITYSCAPES.palette[13]) == ("car", (0, 0, 142))
    assert VOC2012.palette[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert VOC2012.names[15] == "person"
    assert PASCAL_CONTEXT.names == tuple(sorted(PASCAL_CONTEXT.names))


# Keys that are not as they should be.


def test_missing_and_surplus_keys_are_listed_with_the_nearest(write):
    tensors = dict(ANN)
    for leaf in ("weight", "bias"):
        tensors[f"decode_head.conv_segm.{leaf}"] = tensors.pop(f"decode_head.conv_seg.{leaf}")
    del tensors["backbone.layer3.1.conv2.weight"]
    message = refused(write(tensors))
    assert "not quite a checkpoint of mmsegmentation (ANNHead)" in message
    assert "it lacks 3 keys: " in message
    assert "backbone.layer3.1.conv2.weight" in message
    assert "decode_head.conv_seg.{weight, bias} (it has decode_head.conv_segm)" in message
    assert "it has unknown 2 keys: decode_head.conv_segm.{weight, bias} (perhaps decode_head.conv_seg)" in message


def test_long_lists_are_cut(write):
    message = refused(write({key: tensor for key, tensor in ANN.items() if not key.startswith("backbone.layer")}))
    assert " and " in message
    assert message.count("backbone.layer") == 5
    assert "more modules" in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "decode_head.bottleneck.conv.weight",
            lambda t: t[:, :, :1],
            "conv.weight is (7, 128, 1, 3)",
        ),
        (
            "backbone.layer2.0.bn1.running_var",
            lambda t: t[:3],
            "running_var is (3,) and not (8,)",
        ),
        ("backbone.stem.0.weight", lambda t: t.long(), "backbone.stem.0.weight is of torch.int64 and not of floats"),
        ("backbone.stem.1.num_batches_tracked", lambda t: torch.zeros(5).long(), "unknown 1 key"),
        (
            "decode_head.conv_seg.weight",
            lambda t: torch.zeros(300, 7, 1, 1),
            "has 300 classes, and asymseg's masks",
        ),
        ("decode_head.conv_seg.weight", lambda t: torch.zeros(0, 7, 1, 1), "has 0 channels"),
        ("auxiliary_head.convs.0.conv.weight", lambda t: torch.zeros(40_000, 1, 1, 1), "has 40000 channels"),
        ("decode_head.conv_seg.bias", lambda t: t.reshape(4, 1), "decode_head.conv_seg.bias is (4, 1) and not (4,)"),
    ],
)
def test_shapes(write, key, change, message):
    assert message in refused(write(ANN | {key: change(ANN[key])}))


def test_widths_that_would_take_memory_are_compared_first(write):
    """A few small tensors that name wide layers: nothing of that size is made."""
    wide = {
        "decode_head.fusion.stages.0.key_project.conv.weight": torch.zeros(2**15, 1, 1, 1),
        "decode_head.bottleneck.conv.weight": torch.zeros(2**15, 1, 1, 1),
        "backbone.layer1.0.conv1.weight": torch.zeros(2**15, 1, 1, 1),
    }
    assert "of another shape" in refused(write(ANN | wide))


@pytest.mark.parametrize("leaf", ["conv.weight", "bn.running_mean", "bn.num_batches_tracked"])
def test_one_module_in_two_values(write, leaf):
    twin = f"decode_head.context.stages.0.query_project.{leaf}"
    message = refused(write(ANN | {twin: ANN[twin] + 1}))
    assert f"one module in two values, so that none can be chosen: {twin} and " in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": {"multi_grid": [1, 2, 4]}}, "multi_grid other than 1, 1, 1"),
        ({"network": {"stride": 16}}, "a stride other than 8"),
        ({"network": {"backbone": "deepbase_resnet101_dilated16"}}, "a stride other than 8"),
        ({"data": {"normalize": {"mean": [1, 2]}}}, "no mean of 3 numbers"),
        ({"data": {"normalize": {"std": [1, 0, 1]}}}, "no std of 3 numbers"),
        ({"data": {"normalize": {"div_value": "x"}}}, "no div_value of 1 number"),
    ],
)
def test_settings_of_the_authors_that_cannot_be_had(write, settings, message):
    assert message in refused(write({"config_dict": settings, "state_dict": AUTHORS}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model("OtherHead"), "decode_head.type = OtherHead"),
        (model(decode="query_scales=(1, 2)"), "decode_head.query_scales = (1, 2)"),
        (model(decode="act_cfg=dict(type='GELU')"), "decode_head.act_cfg"),
        (model(decode="norm_cfg=dict(type='GN')"), "decode_head.norm_cfg.type = GN"),
        (model(decode="norm_cfg=dict(type='BN', eps=1e-3)"), "decode_head.norm_cfg.eps = 0.001"),
        (model(decode="key_pool_scales=(1, 0)"), "pool scales (1, 0)"),
        (model(decode="dropout_ratio='much'"), "no dropout_ratio of 1 number"),
        (model(backbone="style='caffe'"), "backbone.style = caffe"),
        (model(backbone="multi_grid=(1, 2, 4)"), "backbone.multi_grid = (1, 2, 4)"),
        (model(backbone="dcn=dict(type='DCN')"), "backbone.dcn"),
        (model(backbone="strides=(1, 1, 1, 1)"), "backbone strides (1, 1, 1, 1) and dilations (1, 1, 1, 1)"),
        (model(backbone="out_indices=(0, 1)"), "backbone.out_indices = (0, 1)"),
        ("model = dict(neck=dict(type='FPN'))", "model.neck"),
        ("img_norm_cfg = dict(mean=[1, 2], std=[1, 1, 1])", "no mean of 3 numbers"),
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 0, 1])", "no std of 3 numbers"),
    ],
)
def test_settings_of_mmsegmentation_that_cannot_be_had(write, config, message):
    """Each would be another network with the same keys."""
    assert message in refused(write({"meta": {"config": config}, "state_dict": ANN}))


def test_windows_as_mmsegmentation_tested_it():
    """Beside the model in early 0.x, in it later; windows are joined by logits there, views by probabilities."""
    windows = "test_cfg{}dict(mode='slide', crop_size=(769, 513), stride=(513, 342))"
    inside = model().rstrip()[:-1] + f", {windows.format('=')})"
    for config in (inside, model(rest=f"\n{windows.format(' = ')}")):
        seeing = translate(ANN, {"meta": {"config": config}}, "x").info.seeing
        assert seeing == Seeing("slide", (769, 513), (513, 342), "flat", (1.0,), False, "mixed")
    whole = model().rstrip()[:-1] + ", test_cfg=dict(mode='whole'))"
    for config in (model(), whole, model(rest="\ntest_cfg = dict(type='TestLoop')")):
        assert translate(ANN, {"meta": {"config": config}}, "x").info.seeing == Seeing()


@pytest.mark.parametrize(
    "windows", ["crop_size=(769, 769), stride=(800, 513)", "crop_size=769, stride=(1, 1)", "stride=(3, 3)"]
)
@pytest.mark.usefixtures("no_shape_checks")
def test_windows_that_cannot_be(write, windows):
    config = model().rstrip()[:-1] + f", test_cfg=dict(mode='slide', {windows}))"
    assert "its settings say test_cfg crop_size" in refused(write({"meta": {"config": config}, "state_dict": ANN}))


@pytest.mark.parametrize("option", ["mode='dot_product'", "use_scale=False", "concat_input=False"])
def test_other_non_local_networks(write, option):
    tensors = made.filled(made.mmseg_non_local())
    assert f"decode_head.{option.partition('=')[0]}" in refused(
        write({"meta": {"config": model("NLHead", decode=option)}, "state_dict": tensors})
    )


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"CLASSES": ["a", "b"]}, "names 2 classes, and its classifier has 4"),
        ({"CLASSES": ["a", 7, "c", "d"]}, "must be a non-empty text"),
        ({"CLASSES": NAMES, "PALETTE": [[1, 2, 999]] * 4}, "palette"),
    ],
)
def test_class_names_that_cannot_be(write, meta, message):
    assert message in refused(write({"meta": meta, "state_dict": ANN}))


def test_blocks_of_two_convolutions(write):
    """Their second convolution is not dilated there, and in timm it is."""
    tensors = {key: tensor for key, tensor in ANN.items() if ".conv3." not in key and ".bn3." not in key}
    assert "blocks of two convolutions" in refused(write(tensors))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "asymseg train --model.pretrained FILE"),
        (["backbone.features.conv1.weight", "classifier.weight"], "load the model folder, or build the ANNNet"),
        (["encoder.a", "encoder.b", "encoder.c"], "its keys begin with encoder.a, encoder.b, encoder.c"),
    ],
)
def test_other_weights(write, keys, message):
    assert message in refused(write(OrderedDict((key, torch.zeros(1)) for key in keys)))


def test_its_own_weights_are_told_apart(write):
    network = ANNNet(2, "resnet50c+width=2", key_channels=2, value_channels=2, context_channels=2, aux_channels=2)
    assert "weights of asymseg's own" in refused(write(network.state_dict()))
