"""Training with maps computed again: the same step, bit for bit, in less memory."""

import pytest
import torch

from asymseg.model.backbone import make_backbone

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
    images = torch.randn(2, 3, 2 * output_stride + backbone.size_multiple, 64, requires_grad=True)
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
    monkeypatch.setattr(
        "asymseg.model.recomputing.checkpoint", lambda *arguments, **settings: pytest.fail("checkpointed")
    )
    images = torch.randn(2, 3, 17, 33)
    with torch.no_grad():
        backbone.train()(images)
    backbone.eval()(images)
    with pytest.raises(pytest.fail.Exception, match="checkpointed"):
        backbone.train()(images)


@pytest.mark.parametrize(
    ("name", "output_stride", "share"),
    [
        ("test_resnet", 8, 0.5),
        ("resnet10t", 8, 0.5),
        ("test_efficientnet", 16, 0.5),
        ("regnetx_002", 32, 0.5),
        ("test_convnext", 32, 0.5),
    ],
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
