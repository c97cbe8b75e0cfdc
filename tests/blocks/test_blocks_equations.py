"""Every block agrees with the paper's equations, forward and backward, at every size and in both modes."""

from functools import partial

import pytest
import reference
import torch
from torch import nn

from asymseg.blocks import AFNB, APNB, NonLocalBlock
from asymseg.blocks.attention import MaskReLU

# Batch, high-resolution size of the single map or of the deep map, size of the shallow map.
SIZES = [
    (3, (1, 1), (1, 1)),
    (2, (1, 7), (2, 14)),
    (2, (2, 3), (2, 3)),
    (1, (5, 4), (9, 7)),
    (2, (8, 8), (8, 8)),
    (1, (9, 13), (9, 13)),
    (1, (17, 31), (33, 61)),
    (1, (33, 20), (17, 10)),
]
MERGES = ["concat", "add", "none"]
PLAIN = {APNB: reference.apnb, AFNB: reference.afnb, NonLocalBlock: reference.non_local}


def make(kind, merge, dtype):
    """A block of odd channel counts in which nothing is zero, one or equal by accident."""
    out = 6 if merge == "add" else 7
    channels = (5, 6) if kind is AFNB else (6,)
    block = kind(*channels, out_channels=out, key_channels=4, value_channels=3, merge=merge)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
    return block.to(dtype)


def maps(kind, batch, high, low, dtype):
    shapes = [(batch, 5, *low), (batch, 6, *high)] if kind is AFNB else [(batch, 6, *high)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def results(function, block, inputs, pull, **settings):
    """Output, weights and the gradients of inputs and parameters for the loss <pull, output>."""
    out, weights = function(*inputs, **settings)
    leaves = {f"input {number}": tensor for number, tensor in enumerate(inputs)} | dict(block.named_parameters())
    gradients = torch.autograd.grad((out * pull).sum(), list(leaves.values()))
    return {"out": out, "weights": weights}, dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_agrees_with_the_equations(kind, merge, dtype, tolerance, training):
    torch.manual_seed(1)
    for batch, high, low in SIZES:
        block = make(kind, merge, dtype).train(training)
        inputs = maps(kind, batch, high, low, dtype)
        pull = torch.randn(batch, 6 if merge == "add" else 7, *high, dtype=dtype)
        ours, our_gradients = results(block, block, inputs, pull, return_attention=True)
        plain, plain_gradients = results(partial(PLAIN[kind], block), block, inputs, pull)
        for name in ours:
            scale = plain[name].abs().max()
            assert (ours[name] - plain[name]).abs().max() <= tolerance * scale, (name, high)
        # BatchNorm cancels some gradients to nothing but rounding, so the scale is that of all of them.
        scale = max(gradient.abs().max() for gradient in plain_gradients.values())
        for name in our_gradients:
            assert our_gradients[name].shape == plain_gradients[name].shape
            assert (our_gradients[name] - plain_gradients[name]).abs().max() <= tolerance * scale, (name, high)


@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_running_averages_move_once_per_step(kind):
    """As in the equations, where each projection runs once: mean <- 0.9 mean + 0.1 of the batch's."""
    torch.manual_seed(2)
    block = make(kind, "concat", torch.float64).train()
    inputs = maps(kind, 2, (5, 4), (3, 3), torch.float64)
    before = block.query[1].running_mean.clone()
    batch_mean = nn.functional.conv2d(inputs[-1], block.query[0].weight).mean(dim=(0, 2, 3))
    block(*inputs)
    torch.testing.assert_close(block.query[1].running_mean, 0.9 * before + 0.1 * batch_mean)
    assert all(module.num_batches_tracked == 1 for module in block.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_inputs_are_left_alone(kind):
    torch.manual_seed(3)
    for merge in MERGES:
        inputs = [tensor.detach() for tensor in maps(kind, 2, (5, 4), (3, 3), torch.float32)]
        copies = [tensor.clone() for tensor in inputs]
        block = make(kind, merge, torch.float32)
        with torch.no_grad():
            block(*inputs)
            block.eval()(*inputs)
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_memory_layout_does_not_matter(kind, merge):
    torch.manual_seed(4)
    block = make(kind, merge, torch.float64).eval()
    inputs = maps(kind, 2, (5, 4), (3, 3), torch.float64)
    expected = block(*inputs)
    last = block.to(memory_format=torch.channels_last)(*(x.to(memory_format=torch.channels_last) for x in inputs))
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_autocast_trains(kind, merge):
    torch.manual_seed(5)
    block = make(kind, merge, torch.float32).train()
    inputs = maps(kind, 2, (8, 8), (9, 7), torch.float32)
    expected, _ = PLAIN[kind](block, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(*inputs)
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()
    out.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels_last"])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_predicting_agrees_with_the_equations(kind, merge, layout, dtype, tolerance, training):
    """Without gradients other ways are taken, some of which write over maps: never over those that came in."""
    torch.manual_seed(6)
    for context in (torch.no_grad, torch.inference_mode):
        for batch, high, low in SIZES:
            block = make(kind, merge, dtype).train(training)
            inputs = [x.detach().contiguous(memory_format=layout) for x in maps(kind, batch, high, low, dtype)]
            copies = [x.clone() for x in inputs]
            expected, expected_weights = PLAIN[kind](block, *copies)
            with context():
                out, weights = block(*inputs, return_attention=True)
            scale = expected.abs().max()
            assert (out - expected).abs().max() <= tolerance * scale, (high, low)
            assert (weights - expected_weights).abs().max() <= tolerance
            assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_predicting_what_is_no_map_of_its_own(kind):
    """Windows of larger maps, as a user may cut them."""
    torch.manual_seed(7)
    block = make(kind, "concat", torch.float64).eval()
    for cut in (lambda x: x[:, :, 1:, ::2], lambda x: x.transpose(2, 3), lambda x: x[:1].expand(3, -1, -1, -1)):
        inputs = [cut(x.detach()) for x in maps(kind, 2, (8, 9), (6, 12), torch.float64)]
        expected, _ = PLAIN[kind](block, *inputs)
        with torch.no_grad():
            torch.testing.assert_close(block(*inputs), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_predicting_under_autocast(kind):
    torch.manual_seed(8)
    for merge in MERGES:
        block = make(kind, merge, torch.float32).eval()
        inputs = [x.detach() for x in maps(kind, 2, (8, 8), (9, 7), torch.float32)]
        expected, _ = PLAIN[kind](block, *inputs)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            out = block(*inputs)
        assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 7), nn.BatchNorm2d(7, affine=False), nn.Identity()], ids=str)
@pytest.mark.parametrize("kind", [APNB, AFNB])
def test_predicting_with_another_norm(kind, norm):
    """A user may put another in the place of BatchNorm after merge; prediction gives what training mode computes."""
    torch.manual_seed(9)
    block = make(kind, "concat", torch.float64)
    block.merge[1] = norm.double()
    block.eval()
    inputs = maps(kind, 2, (5, 4), (3, 3), torch.float64)
    expected = block(*inputs).detach()
    with torch.no_grad():
        torch.testing.assert_close(block(*inputs), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_a_result_is_not_changed_by_the_next_call(kind):
    torch.manual_seed(10)
    block = make(kind, "concat", torch.float32).eval()
    first, second = ([x.detach() for x in maps(kind, 2, (5, 4), (3, 3), torch.float32)] for _ in range(2))
    with torch.no_grad():
        out = block(*first)
        before = out.clone()
        block(*second)
        assert torch.equal(out, before)
        assert torch.equal(block(*first), before)


@pytest.mark.parametrize("kind", [APNB, AFNB])
def test_hooks_of_the_norm_are_called_in_prediction_too(kind):
    torch.manual_seed(11)
    block = make(kind, "concat", torch.float64).eval()
    inputs = [x.detach() for x in maps(kind, 2, (5, 4), (3, 3), torch.float64)]
    plain = block(*inputs).detach()
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        handle = getattr(block.merge[1], register)(lambda module, args, *result: torch.zeros_like(args[0]))
        expected = block(*inputs).detach()
        assert not torch.equal(expected, plain)
        with torch.no_grad():
            torch.testing.assert_close(block(*inputs), expected, rtol=0, atol=1e-10)
        handle.remove()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, by jvp
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_functional_transforms(kind, merge):
    """torch.func's gradients are those of autograd, and its directional derivatives are their products."""
    torch.manual_seed(12)
    block = make(kind, merge, torch.float64).eval()
    inputs = maps(kind, 1, (5, 4), (3, 3), torch.float64)
    pull = torch.randn_like(block(*inputs))
    expected = torch.autograd.grad(block(*inputs), inputs, pull)
    inputs = tuple(x.detach() for x in inputs)
    given = torch.func.vjp(block, *inputs)[1](pull)
    torch.testing.assert_close(given, tuple(expected), rtol=0, atol=1e-10)
    directions = tuple(torch.randn_like(x) for x in inputs)
    along = torch.func.jvp(block, inputs, directions)[1]
    slopes = sum((one * other).sum() for one, other in zip(given, directions, strict=True))
    torch.testing.assert_close((along * pull).sum(), slopes, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_second_derivatives(kind):
    torch.manual_seed(13)
    block = make(kind, "concat", torch.float64).eval()
    assert torch.autograd.gradgradcheck(block, maps(kind, 1, (3, 2), (2, 3), torch.float64))


@pytest.mark.parametrize("predicting", [False, True])
@pytest.mark.parametrize("kind", [APNB, AFNB, NonLocalBlock])
def test_shapes_alone(kind, predicting):
    """On the meta device, where autocast is not known."""
    block = make(kind, "concat", torch.float32).to("meta").eval()
    inputs = [x.detach().to("meta") for x in maps(kind, 2, (5, 4), (3, 3), torch.float32)]
    with torch.set_grad_enabled(not predicting):
        assert block(*inputs).shape == (2, 7, 5, 4)


def test_the_relu_that_keeps_a_mask():
    x = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 2.0, torch.inf, torch.nan], requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = MaskReLU()(x)
    assert [tensor.dtype for tensor in kept] == [torch.bool]
    torch.testing.assert_close(out, twin.relu(), equal_nan=True)
    pull = torch.arange(1.0, 8.0)
    torch.testing.assert_close(torch.autograd.grad(out, x, pull), torch.autograd.grad(twin.relu(), twin, pull))
