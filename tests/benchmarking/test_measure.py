"""Memory, work and differences against what can be worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from asymseg.benchmarking.measure import (
    Memory,
    interleaved_seconds,
    memory_of,
    multiply_adds,
    relative_error,
    rounds_within,
    saved_bytes,
)

CPU = torch.device("cpu")
KILO = 1000 * 4
"""Bytes of a thousand float32."""


def peak(call):
    return memory_of(call, CPU)[0].peak


def test_every_call_has_its_turn_in_every_round():
    turns, rounds = [], []
    calls = [lambda name=name: (turns.append(name), (torch.zeros(1),))[1] for name in "ABC"]
    samples = interleaved_seconds(calls, 2, CPU, rounds.append)
    assert turns == list("ABCABC")
    assert rounds == [0, 1]
    assert [len(taken) for taken in samples] == [2, 2, 2]
    assert all(second > 0 for taken in samples for second in taken)


def test_rounds_fill_the_time_between_bounds():
    assert rounds_within(60.0, 5.0, least=5, most=50) == 12
    assert rounds_within(60.0, 45.0, least=5, most=50) == 5
    assert rounds_within(60.0, 0.01, least=5, most=50) == 50


def test_the_peak_is_the_most_that_is_held_at_once():
    def call():
        first = torch.ones(1000)
        second = first.neg()
        del first
        return (second.neg(),)

    assert peak(call) == KILO  # two of three at a time, less the output


def test_what_is_freed_before_the_output_comes_counts_where_it_is_larger():
    def call():
        torch.ones(5000)
        return (torch.ones(1000),)

    assert peak(call) == 4 * KILO


def test_nothing_beyond_the_output():
    x = torch.ones(1000)
    assert peak(lambda: (x.neg().sin_(),)) == 0
    assert peak(lambda: (out := x.sin(), out[:10], out.view(10, 100))) == 0  # one storage however many views


def test_memory_within_an_operation_is_seen():
    """A convolution in float64 unfolds its input: 2 x 3 x 3 values for each of 6 x 6 pixels."""
    x, weight = torch.ones(1, 2, 8, 8, dtype=torch.float64), torch.ones(4, 2, 3, 3, dtype=torch.float64)
    with torch.inference_mode():
        assert peak(lambda: (F.conv2d(x, weight),)) == 2 * 3 * 3 * 6 * 6 * 8


def test_blocks_from_before_the_call_neither_add_nor_hide():
    """Also those that an earlier measurement saw come."""
    before = [torch.ones(10_000), memory_of(lambda: (torch.ones(10_000),), CPU)[1]]

    def call():
        before.clear()
        inner = torch.ones(1000)
        return (inner.neg(),)

    assert memory_of(call, CPU)[0] == Memory(peak=KILO, kept=0)


def test_the_last_call_s_outputs_are_not_counted_again():
    results = [memory_of(lambda: (torch.ones(1000).neg(),), CPU) for _ in range(3)]
    assert [found for found, _ in results] == [Memory(peak=KILO, kept=0)] * 3
    assert torch.equal(results[0][1][0], torch.full((1000,), -1.0))


def test_what_a_first_call_keeps():
    cache = []

    def call():
        if not cache:
            cache.append(torch.ones(3000))
        return (cache[0][:1000].neg(),)

    assert memory_of(call, CPU)[0] == Memory(peak=3 * KILO, kept=3 * KILO)
    assert memory_of(call, CPU)[0] == Memory(peak=0, kept=0)


def test_memory_of_the_backward_pass_is_seen():
    x = torch.ones(1000, requires_grad=True)

    def call():
        return torch.autograd.grad((x.exp() * 3.0).sum(), [x])

    # exp(x), which is saved, and exp(x) * 3 make the forward pass. In the backward pass the gradient of the sum is an
    # expanded number, so beside exp(x) there are its triple and the output.
    assert KILO <= peak(call) < 3 * KILO


def test_saved_is_each_storage_once_without_parameters():
    x, weight = torch.ones(10, 100, requires_grad=True), torch.ones(7, 100, requires_grad=True)

    def forward():
        hidden = F.linear(x, weight)  # keeps x and the weight
        grown = hidden.exp()  # keeps its result
        return grown.sin() * grown.view(7, 10).view(10, 7).cos()  # sin and cos keep `grown`; the product both factors

    known = 10 * 100 * 4 + 3 * 10 * 7 * 4
    assert saved_bytes(forward, [weight]) == known
    assert saved_bytes(forward, []) == known + 7 * 100 * 4
    assert saved_bytes(forward, [weight, x]) == known - 10 * 100 * 4


def test_a_view_keeps_its_whole_storage():
    x = torch.ones(1000, requires_grad=True)
    whole = x.detach().clone()
    assert saved_bytes(lambda: x[:10] * whole[:10], [x]) == KILO


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: F.conv2d(torch.ones(2, 3, 9, 8), torch.ones(4, 3, 3, 3), padding=1), 2 * 9 * 8 * 4 * 3 * 9),
        (lambda: F.conv2d(torch.ones(1, 6, 5, 5), torch.ones(6, 1, 1, 1), groups=6), 25 * 6),
        (lambda: torch.bmm(torch.ones(2, 3, 5), torch.ones(2, 5, 7)), 2 * 3 * 5 * 7),
        (lambda: torch.baddbmm(torch.ones(2, 3, 7), torch.ones(2, 3, 5), torch.ones(2, 5, 7)), 2 * 3 * 5 * 7),
        (lambda: torch.ones(2, 3, 7).baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 7)), 2 * 3 * 5 * 7),
        (lambda: F.scaled_dot_product_attention(*[torch.ones(1, 1, 11, 8)] * 3), 2 * 11 * 11 * 8),
    ],
    ids=["conv", "depthwise", "bmm", "baddbmm", "baddbmm in place", "attention"],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_multiply_adds(function, expected, mode):
    with mode():
        assert multiply_adds(lambda: (function(),)) == expected


def test_multiply_adds_of_a_step_are_three_times_those_of_the_forward_pass():
    x, weight = torch.ones(5, 6, requires_grad=True), torch.ones(7, 6, requires_grad=True)

    def step():
        torch.autograd.backward(F.linear(x, weight).sum())
        return (x.grad,)

    assert multiply_adds(step) == 3 * 5 * 6 * 7


def test_relative_error_is_the_worst_tensor_by_its_own_measure():
    expected = [torch.tensor([100.0, 50.0]), torch.tensor([2.0, -4.0])]
    assert relative_error(expected, expected) == 0
    assert relative_error([torch.tensor([100.0, 51.0]), expected[1]], expected) == pytest.approx(0.01)
    assert relative_error([expected[0], torch.tensor([2.0, -4.2])], expected) == pytest.approx(0.05)


def test_relative_error_does_not_divide_noise_by_noise():
    expected = [torch.tensor([100.0]), torch.tensor([1e-9])]
    assert relative_error([torch.tensor([100.0]), torch.tensor([-1e-9])], expected) == pytest.approx(2e-9)
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0


def test_relative_error_of_nan_is_nan_wherever_it_stands():
    nan, one = torch.tensor([math.nan]), torch.tensor([1.0])
    assert math.isnan(relative_error([nan, one], [one, one]))
    assert math.isnan(relative_error([one, nan], [one, one]))
    assert math.isnan(relative_error([one], [nan]))
