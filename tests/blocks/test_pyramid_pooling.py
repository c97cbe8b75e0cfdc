"""PyramidPooling equals adaptive average pooling at every size, and stays itself in an exported graph."""

import itertools
import math

import pytest
import reference
import torch

from asymseg.blocks import PyramidPooling
from asymseg.errors import ConfigError

SIDES = (1, 2, 3, 5, 7, 8, 9, 13, 24, 31, 97)


@pytest.mark.parametrize("pool_sizes", [(1, 3, 6, 8), (1,), (5, 2), (1, 2, 3, 6), (64,)])
def test_equals_adaptive_average_pooling(pool_sizes):
    pool = PyramidPooling(pool_sizes)
    generator = torch.Generator().manual_seed(0)
    for height, width in itertools.product(SIDES, SIDES):
        x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(pool(x), reference.pyramid(x, pool_sizes), rtol=0, atol=1e-14)


def test_hand_computed():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    # One cell: the mean. Two by two over three pixels: cells overlap, and each covers a 2 x 2 corner.
    assert PyramidPooling((1, 2))(x).tolist() == [[[4.0, 2.0, 3.0, 5.0, 6.0]]]


def test_grid_finer_than_the_map_repeats_pixels():
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert PyramidPooling((4,))(x).tolist() == [[[1.0, 1.0, 2.0, 2.0] * 4]]


def test_gradient_equals_that_of_adaptive_average_pooling():
    x = torch.randn(2, 3, 11, 7, dtype=torch.float64, requires_grad=True)
    pool = PyramidPooling()
    pull = torch.randn(2, 3, 110, dtype=torch.float64)
    ours = torch.autograd.grad((pool(x) * pull).sum(), x)[0]
    theirs = torch.autograd.grad((reference.pyramid(x, pool.pool_sizes) * pull).sum(), x)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_memory_layout_does_not_matter():
    pool = PyramidPooling()
    for shape in [(2, 5, 9, 6), (1, 5, 1, 7), (2, 1, 4, 4), (2, 5, 1, 1)]:
        x = torch.randn(shape, dtype=torch.float64)
        last = x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(pool(last), pool(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_map_is_not_copied(layout):
    x = torch.randn(2, 32, 40, 50).to(memory_format=layout)
    pool = PyramidPooling()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        pool(x)
    copies = [event.input_shapes[0] for event in profile.events() if event.name == "aten::copy_"]
    assert all(math.prod(shape) < x.numel() for shape in copies)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision(dtype, tolerance):
    x = (torch.rand(1, 4, 50, 70) * 1000).to(dtype)  # a plain float16 sum of 3500 such pixels would be infinite
    tokens = PyramidPooling()(x)
    assert tokens.dtype == dtype
    exact = reference.pyramid(x.double(), (1, 3, 6, 8))
    assert ((tokens.double() - exact).abs() <= tolerance * exact.abs()).all()


@pytest.mark.usefixtures("no_shape_checks")
def test_exported_with_free_sizes_keeps_its_tokens():
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        PyramidPooling(), (torch.randn(2, 3, 24, 40),), dynamic_shapes=({2: free, 3: free},)
    ).module()
    for height, width in [(24, 40), (2, 5), (8, 8), (33, 20), (97, 3)]:
        x = torch.randn(2, 3, height, width, dtype=torch.float32)
        tokens = program(x)
        assert tokens.shape == (2, 3, 110)
        torch.testing.assert_close(tokens, reference.pyramid(x, (1, 3, 6, 8)), rtol=0, atol=1e-6)


def test_has_nothing_to_save():
    assert PyramidPooling().state_dict() == {}
    assert PyramidPooling().num_tokens == 110


def test_a_list_is_as_good_as_a_tuple():
    assert PyramidPooling([1, 2]).pool_sizes == (1, 2)


@pytest.mark.parametrize("pool_sizes", [(), (0,), (1, -3), (1, 2.0), (True,), ("8",)])
@pytest.mark.usefixtures("no_shape_checks")
def test_impossible_sizes_are_refused(pool_sizes):
    with pytest.raises(ConfigError, match="pool_sizes must be one or more whole numbers above 0"):
        PyramidPooling(pool_sizes)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_costs_no_more_than_rounding_the_result(autocast):
    x = torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(0)) + 1
    low = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens = PyramidPooling()(low)
    assert tokens.dtype == torch.bfloat16
    exact = PyramidPooling()(low.double())
    torch.testing.assert_close(tokens.double(), exact, rtol=2**-8, atol=0)


@pytest.mark.parametrize("pool_sizes", [(1, 3, 6, 8), (5, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_add_up_to_the_whole(pool_sizes, layout):
    """A map cut at any places."""
    pool = PyramidPooling(pool_sizes)
    generator = torch.Generator().manual_seed(0)
    for size, downs, rights in [((7, 9), (0, 7), (0, 1, 9)), ((31, 40), (0, 2, 30, 31), (0, 13, 14, 40))]:
        x = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator).contiguous(memory_format=layout)
        total = torch.zeros(2, 3, pool.num_tokens, dtype=torch.float64)
        for top, bottom in itertools.pairwise(downs):
            for left, right in itertools.pairwise(rights):
                total += pool.part(x[:, :, top:bottom, left:right], size, (top, left))
        torch.testing.assert_close(total, pool(x), rtol=0, atol=1e-13)


def test_parts_of_half_precision_are_summed_in_float32():
    pool, x = PyramidPooling(), torch.randn(1, 2, 9, 9).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        part = pool.part(x, (9, 9), (0, 0))
    assert part.dtype == torch.float32
    torch.testing.assert_close(part, pool(x.float()))


def test_cells_are_those_that_are_averaged():
    pool, x = PyramidPooling(), torch.randn(1, 1, 13, 30, dtype=torch.float64)
    means = [x[0, 0, rows, columns].mean() for rows, columns in pool.cells((13, 30))]
    torch.testing.assert_close(torch.stack(means), pool(x)[0, 0])
