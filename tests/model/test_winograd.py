"""Winograd's convolutions against the ordinary ones: values, every way to cut the work, and when they step aside."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asymseg.model import winograd as source
from asymseg.model.winograd import WinogradConv2d, transform_kernel, winograd, winograd_kernel_gradient

SIZES = [(1, 1, 1), (2, 1, 9), (1, 4, 4), (3, 5, 7), (1, 8, 12), (2, 13, 6), (1, 17, 31), (1, 33, 20)]


def one_tap(row, column):
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, row, column] = 1
    return transform_kernel(kernel)


def test_values_by_hand():
    """A kernel of ones counts each pixel's neighbours, itself included; a kernel of a single one moves the map."""
    ones = transform_kernel(torch.ones(1, 1, 3, 3, dtype=torch.float64))
    counts = [[4, 6, 6, 6, 4], [6, 9, 9, 9, 6], [6, 9, 9, 9, 6], [6, 9, 9, 9, 6], [4, 6, 6, 6, 4]]
    out = winograd(torch.ones(1, 1, 5, 5, dtype=torch.float64), ones, None)
    torch.testing.assert_close(out[0, 0], torch.tensor(counts, dtype=torch.float64), rtol=0, atol=1e-12)
    out = winograd(torch.ones(1, 1, 1, 2, dtype=torch.float64), ones, torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(out, torch.full((1, 1, 1, 2), 2.5, dtype=torch.float64), rtol=0, atol=1e-12)

    numbers = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(1, 1, 3, 4)
    moved = torch.tensor([[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0]], dtype=torch.float64)  # from above and the right
    torch.testing.assert_close(winograd(numbers, one_tap(0, 2), None)[0, 0], moved, rtol=0, atol=1e-12)
    two_steps = torch.tensor([[0, 0, 9, 10], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)  # below and the left
    torch.testing.assert_close(winograd(numbers, one_tap(2, 0), None, 2)[0, 0], two_steps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_any_size(dilation, bias):
    torch.manual_seed(0)
    for batch, height, width in SIZES:
        x = torch.randn(batch, 3, height, width, dtype=torch.float64)
        weight, summand = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
        summand = summand if bias else None
        expected = F.conv2d(x, weight, summand, padding=dilation, dilation=dilation)
        out = winograd(x, transform_kernel(weight), summand, dilation)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def gradients(x, weight, dilation, pull):
    """Of <pull, convolution of x> by x and by the weights, from PyTorch's own convolution."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = F.conv2d(x, weight, padding=dilation, dilation=dilation)
    return torch.autograd.grad((out * pull).sum(), (x, weight))


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_gradients_at_any_size(dilation):
    torch.manual_seed(1)
    for batch, height, width in SIZES:
        x = torch.randn(batch, 3, height, width, dtype=torch.float64)
        weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
        pull = torch.randn(batch, 5, height, width, dtype=torch.float64)
        for_x, for_weight = gradients(x, weight, dilation, pull)
        mirrored = transform_kernel(weight.flip(2, 3).transpose(0, 1))
        torch.testing.assert_close(winograd(pull, mirrored, None, dilation), for_x, rtol=0, atol=1e-11)
        torch.testing.assert_close(winograd_kernel_gradient(x, pull, dilation), for_weight, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("band", "step"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 5), (7, 2), (9, 9)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_in_portions(monkeypatch, dilation, band, step):
    """Seven rows of tiles, as many of them at once as are asked for; the last portion overlaps the one before."""
    torch.manual_seed(2)
    batch, channels, out_channels, rows, columns = 2, 3, 5, 7, 2
    numbers_of_row = batch * dilation**2 * columns * max(channels, out_channels)
    monkeypatch.setattr(source, "PRODUCTS_AT_ONCE", 36 * numbers_of_row * band)
    monkeypatch.setattr(source, "TRANSFORMED_AT_ONCE", 24 * numbers_of_row * step)
    products, multiply = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *pair, out: products.append(1) or multiply(*pair, out=out))
    for height, width in [
        (rows * 4 * dilation - 1, columns * 4 * dilation - 3),
        ((rows * 4 - 3) * dilation, 8 * dilation),
    ]:
        x = torch.randn(batch, channels, height, width, dtype=torch.float64)
        weight, bias = torch.randn(out_channels, channels, 3, 3, dtype=torch.float64), torch.randn(5).double()
        products.clear()
        out = winograd(x, transform_kernel(weight), bias, dilation)
        expected = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        assert len(products) == -(-rows // min(band, rows))
        _, for_weight = gradients(x, weight, dilation, expected)
        torch.testing.assert_close(winograd_kernel_gradient(x, expected, dilation), for_weight, rtol=1e-12, atol=1e-9)


def make(channels=128, dilation=1, bias=True):
    """A convolution as a folded network has it."""
    torch.manual_seed(3)
    convolution = WinogradConv2d(channels, 128, 3, padding=dilation, dilation=dilation, bias=bias)
    convolution.predicting = True
    return convolution


def ordinary(convolution, x):
    return F.conv2d(
        x, convolution.weight, convolution.bias, padding=convolution.padding, dilation=convolution.dilation
    ).detach()


@pytest.fixture
def calls(monkeypatch):
    """Grows by one at each convolution that is computed Winograd's way."""
    made = []
    plain = source.winograd
    monkeypatch.setattr(source, "winograd", lambda *arguments: made.append(1) or plain(*arguments))
    return made


@pytest.mark.parametrize("dilation", [1, 2])
def test_layouts_of_the_input(calls, dilation):
    convolution = make(dilation=dilation)
    wide = torch.randn(2, 256, 14, 15)
    layouts = {
        "in rows": wide[:, :128].contiguous(),
        "channels_last": wide[:, :128].contiguous(memory_format=torch.channels_last),
        "every other channel": wide[:, ::2],
        "turned": wide[:, 128:].transpose(2, 3),
        "a window": wide[:, :128, 1:14, 2:15],
        "one image for two": wide[:1, :128].expand(2, -1, -1, -1),
    }
    with torch.no_grad():
        for name, x in layouts.items():
            before = x.clone()
            out = convolution(x)
            assert torch.equal(x, before), name
            torch.testing.assert_close(out, ordinary(convolution, x), rtol=0, atol=2e-5, msg=name)
    assert len(calls) == len(layouts)


def test_rounding_in_float32():
    """After a ReLU, as maps are in a network, errors stay in the last bits: forward and backward."""
    convolution = make().train()
    x = torch.randn(1, 128, 40, 40).relu()
    pull = torch.randn(1, 128, 40, 40)
    expected = F.conv2d(x.double(), convolution.weight.double(), convolution.bias.double(), padding=1)
    expected = [expected, *gradients(x.double(), convolution.weight.detach().double(), 1, pull.double())]
    x.requires_grad_()
    out = convolution(x)
    given = [out, *torch.autograd.grad((out * pull).sum(), (x, convolution.weight))]
    for ours, exact in zip(given, expected, strict=True):
        error = (ours - exact).abs().max() / exact.abs().max()
        assert 1e-8 < error < 4e-6


@pytest.mark.parametrize("dilation", [1, 2])
def test_trains(calls, dilation):
    """Winograd's way forward and backward; the gradients are those of an ordinary convolution."""
    convolution = make(dilation=dilation).train()
    x = torch.randn(2, 128, 14, 15, requires_grad=True)
    pull = torch.randn(2, 128, 14, 15).to(memory_format=torch.channels_last)
    leaves = (x, convolution.weight, convolution.bias)
    out = convolution(x)
    given = torch.autograd.grad((out * pull).sum(), leaves)
    assert len(calls) == 2  # the result and the gradient by the input
    out = F.conv2d(x, *leaves[1:], padding=dilation, dilation=dilation)
    for ours, theirs in zip(given, torch.autograd.grad((out * pull).sum(), leaves), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_trains_what_is_not_frozen(calls):
    convolution = make(bias=False).train()
    x = torch.randn(1, 128, 8, 8)
    convolution(x).sum().backward()
    assert len(calls) == 1  # nobody wants the gradient by the input
    assert convolution.weight.grad.abs().max() > 0
    convolution.requires_grad_(False)
    for_x = torch.autograd.grad(convolution(x.requires_grad_()).sum(), x)[0]
    torch.testing.assert_close(for_x, gradients(x.detach(), convolution.weight, 1, torch.ones(1))[0], rtol=0, atol=1e-4)


def test_in_prediction_only_where_asked(calls):
    convolution, x = make().eval(), torch.randn(1, 128, 16, 16)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(convolution(x), ordinary(convolution, x), rtol=0, atol=2e-5)
    assert len(calls) == 2
    assert torch.equal(convolution(x), ordinary(convolution, x))  # gradients wanted, but not in training
    convolution.predicting = False
    with torch.no_grad():
        assert torch.equal(convolution(x), ordinary(convolution, x))
        assert torch.equal(convolution.train()(x), ordinary(convolution, x))
    assert len(calls) == 2


def test_where_it_steps_aside(calls):
    convolution, x = make(), torch.randn(1, 128, 16, 16)
    narrow, few = make(96), torch.randn(1, 96, 16, 16)
    for training in (True, False):
        with torch.set_grad_enabled(training):
            for size in [(1, 1), (2, 3), (1, 40)]:  # tiles would be mostly padding
                small = torch.randn(1, 128, *size)
                assert torch.equal(convolution(small), ordinary(convolution, small))
            with torch.autocast("cpu", torch.bfloat16):
                assert convolution(x).dtype == torch.bfloat16
            for dtype in (torch.float64, torch.bfloat16):
                other = copy.deepcopy(convolution).to(dtype)
                assert torch.equal(other(x.to(dtype)), ordinary(other, x.to(dtype)))
            assert torch.equal(narrow(few), ordinary(narrow, few))
            assert copy.deepcopy(convolution).to("meta")(x.to("meta")).shape == (1, 128, 16, 16)
    assert not calls


@pytest.mark.usefixtures("no_shape_checks")
def test_an_export_holds_an_ordinary_convolution():
    x = torch.randn(1, 128, 16, 16)
    with torch.no_grad():
        program = torch.export.export(make().eval(), (x,), dynamic_shapes=({2: torch.export.Dim.DYNAMIC},))
        assert [node.name for node in program.graph.nodes if node.op == "call_function"] == ["conv2d"]
        x = torch.randn(1, 128, 9, 16)
        torch.testing.assert_close(program.module()(x), ordinary(make(), x), rtol=0, atol=2e-5)


def stepping(convolution):
    optimizer = torch.optim.SGD(convolution.parameters(), lr=1e-3)
    with torch.enable_grad():
        convolution(torch.randn(1, 128, 8, 8)).square().sum().backward()
    optimizer.step()


def fresh():
    return {"weight": 0.03 * torch.randn(128, 128, 3, 3), "bias": torch.ones(128)}


CHANGES = {
    "in place": lambda convolution: convolution.weight.mul_(-2),
    "loaded": lambda convolution: convolution.load_state_dict(fresh()),
    "loaded by assignment": lambda convolution: convolution.load_state_dict(fresh(), assign=True),
    "another parameter": lambda convolution: setattr(convolution, "weight", nn.Parameter(fresh()["weight"])),
    "other data": lambda convolution: setattr(convolution.weight, "data", fresh()["weight"]),
    "laid out anew": lambda convolution: convolution.to(memory_format=torch.channels_last),
    "a training step": stepping,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_weights_are_noticed(change):
    convolution, x = make().eval(), torch.randn(1, 128, 8, 8)
    with torch.no_grad():
        convolution(x)
        for _ in range(3):
            change(convolution)
            torch.testing.assert_close(convolution(x), ordinary(convolution, x), rtol=0, atol=1e-4)


def test_weights_at_the_address_of_others():
    """Loading by assignment frees the weights before; the next ones may lie where they were, and be as new."""
    convolution, x = make().eval(), torch.randn(1, 128, 8, 8)
    with torch.no_grad():
        for round_ in range(12):
            convolution.load_state_dict(fresh(), assign=True)
            if round_ % 2 == 0:
                torch.testing.assert_close(convolution(x), ordinary(convolution, x), rtol=0, atol=1e-4)


def test_what_was_transformed_goes_when_the_weights_move():
    convolution = make().eval()
    with torch.no_grad():
        convolution(torch.randn(1, 128, 8, 8))
    assert convolution._transformed is not None
    assert convolution.to("meta")._transformed is None


def test_functional_gradients():
    torch.manual_seed(5)
    convolution, x = make().train(), torch.randn(1, 128, 8, 8)
    given = torch.func.grad(lambda x: convolution(x).sin().sum())(x)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(F.conv2d(x, convolution.weight, convolution.bias, padding=1).sin().sum(), x)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-4)


def test_the_kernel_is_transformed_once(monkeypatch):
    made = []
    monkeypatch.setattr(source, "transform_kernel", lambda weight: made.append(1) or transform_kernel(weight))
    convolution = make()
    with torch.inference_mode():
        for side in (8, 12, 8):
            convolution(torch.randn(1, 128, side, side))
    with torch.no_grad():
        convolution(torch.randn(1, 128, 9, 9))
    assert len(made) == 1


def test_weights_made_for_inference():
    x = torch.randn(1, 128, 8, 8)
    with torch.inference_mode():
        convolution = make()
        for _ in range(2):
            torch.testing.assert_close(convolution(x), ordinary(convolution, x), rtol=0, atol=2e-5)
            convolution.weight.mul_(-1)  # such tensors count no versions


def test_copies(calls):
    """What was transformed is not copied along, and copies go their own way."""
    convolution, x = make(), torch.randn(1, 128, 8, 8)
    size = len(pickle.dumps(convolution))
    with torch.no_grad():
        expected = convolution(x)
        assert len(pickle.dumps(convolution)) == size
        for twin in (copy.deepcopy(convolution), pickle.loads(pickle.dumps(convolution))):
            assert torch.equal(twin(x), expected)
            twin.weight.zero_()
            assert twin(x).sub(twin.bias[:, None, None]).abs().max() < 1e-6
            assert torch.equal(convolution(x), expected)
    assert len(calls) == 7
    assert list(convolution.state_dict()) == ["weight", "bias"]


def test_a_batch_without_images():
    assert make()(torch.zeros(0, 128, 8, 8)).shape == (0, 128, 8, 8)


def test_replaced_in_a_network(calls):
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(128, 128, 3, padding=1), nn.Sequential(nn.Conv2d(128, 160, 3, padding=2, dilation=2, bias=False))
    )
    network[0].requires_grad_(False)
    network[1].eval()
    parameters, names = list(network.parameters()), list(network.state_dict())
    x = torch.randn(1, 128, 12, 12)
    expected = network(x).detach()
    WinogradConv2d.replace_in(network)
    assert type(network[0]) is type(network[1][0]) is WinogradConv2d
    assert [network[0].training, network[1][0].training] == [True, False]
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert [parameter.requires_grad for parameter in parameters] == [False, False, True]
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network.train()(x), expected, rtol=0, atol=1e-5)
    assert len(calls) == 2


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(128, 127, 3, padding=1),  # too narrow to pay
        nn.Conv2d(64, 256, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding=2),
        nn.Conv2d(128, 128, 3, padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(128, 128, (3, 1), padding=(1, 0)),
        nn.Conv2d(128, 128, 5, padding=2),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(128, 128, 3, padding=1),
        Standardised(128, 128, 3, padding=1),
    ],
)
def test_others_are_left_alone(other):
    holder = nn.Sequential(nn.Sequential(other))
    WinogradConv2d.replace_in(holder)
    assert holder[0][0] is other


def test_a_convolution_that_someone_watches_is_left_alone():
    """Its hooks may change what goes in and what comes out, and would not be taken over."""
    holder = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1))
    holder[0].register_forward_hook(lambda module, inputs, result: 2 * result)
    x = torch.randn(1, 128, 8, 8)
    expected = holder(x).detach()
    WinogradConv2d.replace_in(holder)
    torch.testing.assert_close(holder(x), expected, rtol=0, atol=1e-5)
