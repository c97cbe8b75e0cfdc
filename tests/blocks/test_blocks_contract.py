"""What every block promises: shapes, weights, merges, names of its parameters, export, and helpful errors."""

import inspect

import pytest
import torch
from torch import nn

from asymseg.blocks import AFNB, APNB, NonLocalBlock
from asymseg.errors import ConfigError

KINDS = [APNB, AFNB, NonLocalBlock]
CHANNELS = {APNB: (6,), AFNB: (5, 6), NonLocalBlock: (6,)}

PROJECTION = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
QUERY = [f"query.{name}" for name in PROJECTION]
KEY = [f"key.{name}" for name in PROJECTION]
VALUE_AND_OUTPUT = ["value.weight", "value.bias", "output.weight", "output.bias"]
MERGE = [f"merge.{name}" for name in PROJECTION]


def make(kind, **settings):
    torch.manual_seed(0)
    return kind(*CHANNELS[kind], **{"key_channels": 4, "value_channels": 3} | settings)


def maps(kind, high=(5, 4), low=(9, 7)):
    high_map = torch.randn(2, 6, *high)
    return (torch.randn(2, 5, *low), high_map) if kind is AFNB else (high_map,)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (APNB, [*QUERY, *VALUE_AND_OUTPUT, *MERGE]),
        (AFNB, [*QUERY, *KEY, *VALUE_AND_OUTPUT, *MERGE]),
        (NonLocalBlock, [*QUERY, *VALUE_AND_OUTPUT, *MERGE]),
    ],
)
def test_names_in_a_checkpoint(kind, expected):
    assert list(make(kind).state_dict()) == expected
    without = [name for name in expected if not name.startswith("merge")]
    assert list(make(kind, merge="add").state_dict()) == without
    assert list(make(kind, merge="none").state_dict()) == without


def test_shapes_of_parameters():
    shapes = {name: tuple(tensor.shape) for name, tensor in make(AFNB, out_channels=7).named_parameters()}
    assert shapes["query.0.weight"] == (4, 6, 1, 1)
    assert shapes["key.0.weight"] == (4, 5, 1, 1)
    assert shapes["value.weight"] == (3, 5, 1, 1)
    assert shapes["output.weight"] == (7, 3, 1, 1)
    assert shapes["merge.0.weight"] == (7, 13, 1, 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (APNB, "in_channels out_channels key_channels value_channels pool_sizes merge"),
        (AFNB, "low_channels high_channels out_channels key_channels value_channels pool_sizes merge"),
        (NonLocalBlock, "in_channels out_channels key_channels value_channels merge"),
    ],
)
def test_names_of_settings(kind, expected):
    parameters = inspect.signature(kind).parameters
    assert list(parameters) == expected.split()
    defaults = {
        name: value.default for name, value in parameters.items() if value.default is not inspect.Parameter.empty
    }
    papers = {"out_channels": None, "key_channels": 256, "value_channels": 256, "pool_sizes": (1, 3, 6, 8)}
    assert defaults == {name: (papers | {"merge": "concat"})[name] for name in defaults}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_attention_weights(kind, training):
    block = make(kind).train(training)
    out, weights = block(*maps(kind), return_attention=True)
    assert out.shape == (2, 6, 5, 4)
    assert weights.shape == (2, 20, 20 if kind is NonLocalBlock else 110)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 20))
    assert (weights >= 0).all()
    assert weights.std(dim=1).max() > 0  # pixels differ in what they look at


def test_pool_sizes_decide_the_tokens():
    for block in (make(APNB, pool_sizes=(2, 5)), make(AFNB, pool_sizes=(2, 5))):
        _, weights = block(*maps(type(block)), return_attention=True)
        assert weights.shape == (2, 20, 29)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_block_adds_nothing_yet_learns(kind):
    """f_o starts at zero: the context half of merge cannot matter, but f_o's own gradient is alive."""
    block = make(kind)
    inputs = maps(kind)
    before = block(*inputs)
    before.square().sum().backward()
    assert block.output.weight.grad.abs().max() > 0
    with torch.no_grad():
        block.merge[0].weight[:, :6].mul_(100)
    assert torch.equal(block(*inputs), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_sum_gives_its_input_back(kind):
    inputs = maps(kind)
    assert torch.equal(make(kind, merge="add")(*inputs), inputs[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_context_alone_is_not_dead(kind):
    inputs = [tensor.requires_grad_() for tensor in maps(kind)]
    out = make(kind, merge="none", out_channels=7)(*inputs)
    assert out.shape == (2, 7, 5, 4)
    out.square().sum().backward()
    assert all(tensor.grad.abs().max() > 1e-6 for tensor in inputs)


def identity_block(kind, **settings):
    """One channel, every convolution the identity, BatchNorm out of the way: a block that a person can follow."""
    channels = (1, 1) if kind is AFNB else (1,)
    block = kind(*channels, key_channels=1, value_channels=1, **settings).eval()
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1)
                if module.bias is not None:
                    module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return block.double()


def test_hand_computed_values():
    # Pixels 0 and log 2 (as query, key and value); tokens of one row of two cells by two: each pixel twice.
    log2 = 0.6931471805599453
    x = torch.tensor([[[[0.0, log2]]]], dtype=torch.float64)
    # Pixel 0 has scores 0 and weighs its tokens alike. Pixel log 2 has scores 0 and log(2)^2.
    share = 2.718281828459045 ** (log2**2)
    share = share / (1 + share)
    context = torch.tensor([[[[log2 / 2, log2 * share]]]], dtype=torch.float64)
    for block in (
        identity_block(APNB, pool_sizes=(2,), merge="none"),
        identity_block(NonLocalBlock, merge="none"),
    ):
        torch.testing.assert_close(block(x), context, rtol=0, atol=1e-12)
    torch.testing.assert_close(identity_block(AFNB, pool_sizes=(2,), merge="none")(x, x), context, rtol=0, atol=1e-12)
    torch.testing.assert_close(identity_block(APNB, pool_sizes=(2,), merge="add")(x), x + context, rtol=0, atol=1e-12)
    # One output channel, so the merge convolution sums context and input as well.
    torch.testing.assert_close(identity_block(APNB, pool_sizes=(2,))(x), x + context, rtol=0, atol=1e-12)


def test_channel_order_of_merge_is_context_then_input():
    block = identity_block(APNB, pool_sizes=(1,))
    x = torch.tensor([[[[1.0, 3.0]]]], dtype=torch.float64)
    with torch.no_grad():
        block.merge[0].weight.copy_(torch.tensor([10.0, 1.0]).reshape(1, 2, 1, 1))
    assert block(x).tolist() == [[[[21.0, 23.0]]]]  # ten times the mean, plus the input


def test_relu_after_merge_in_apnb_but_not_in_afnb():
    x = torch.tensor([[[[-1.0, -3.0]]]], dtype=torch.float64)
    assert identity_block(APNB, pool_sizes=(1,))(x).tolist() == [[[[0.0, 0.0]]]]
    assert identity_block(NonLocalBlock)(x).tolist() == [[[[0.0, 0.0]]]]
    assert identity_block(AFNB, pool_sizes=(1,))(x, x).tolist() == [[[[-3.0, -5.0]]]]


@pytest.mark.parametrize("merge", ["concat", "add", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_shape_checks")
def test_exported_with_free_sizes(kind, merge):
    """At each size the graph gives what the block gives, with as many tokens; AFNB's two maps vary on their own."""
    block = make(kind, merge=merge).eval()
    nn.init.normal_(block.output.weight)
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    inputs = maps(kind, (12, 16), (24, 31))
    program = torch.export.export(block, (*inputs, True), dynamic_shapes=(*[free for _ in inputs], None)).module()
    for high, low in [((12, 16), (24, 31)), ((3, 5), (2, 7)), ((17, 31), (33, 61)), ((8, 8), (5, 9))]:
        inputs = maps(kind, high, low)
        out, weights = program(*inputs, True)
        expected, expected_weights = block(*inputs, return_attention=True)
        assert weights.shape[2] == (high[0] * high[1] if kind is NonLocalBlock else 110)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_shape_checks")
def test_impossible_settings_are_refused(kind):
    with pytest.raises(ConfigError, match='merge must be "concat", "add" or "none", not \'sum\''):
        make(kind, merge="sum")
    with pytest.raises(ConfigError, match='out_channels is 7, the input has 6; make them equal or use "concat"'):
        make(kind, merge="add", out_channels=7)
    with pytest.raises(ConfigError, match="key_channels must be at least 1, not 0"):
        make(kind, key_channels=0)
    if kind is not NonLocalBlock:
        with pytest.raises(ConfigError, match="pool_sizes"):
            make(kind, pool_sizes=())
