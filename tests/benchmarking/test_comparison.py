"""Forms must agree before they are timed; what follows from the samples is arithmetic."""

import math
from dataclasses import replace

import pytest
import torch

from asymseg.benchmarking.comparison import Contestant, Trial, compare, trials
from asymseg.benchmarking.figures import Comparison, Figures, exponent, growth, paired_ratio
from asymseg.benchmarking.settings import BenchmarkSettings, command_line
from asymseg.errors import ConfigError

CPU = torch.device("cpu")
QUICK = BenchmarkSettings(quick=True)


def silent(_: str) -> None:
    pass


TRIAL = Trial(QUICK, 1, "fp32", CPU, silent)


def gives(value, name="theirs", **more):
    return Contestant(name, (2, 3), lambda: (torch.full((6,), value),), **more)


def test_forms_that_agree_are_measured():
    said = []
    contestants = [gives(1.0), gives(1.00001, "ours", like="theirs", parameters=7, traffic=8, note="new")]
    comparison = compare("made up", contestants, replace(TRIAL, say=said.append), ours="ours")
    theirs, ours = comparison.figures
    assert (theirs.name, theirs.error, ours.name, ours.size) == ("theirs", None, "ours", (2, 3))
    assert ours.error == pytest.approx(1e-5, rel=0.01)
    assert (ours.parameters, ours.traffic, ours.note) == (7, 8, "new")
    assert (ours.peak_bytes, ours.kept_bytes, ours.multiply_adds, ours.saved_bytes) == (0, 0, 0, None)
    assert len(ours.seconds) == len(theirs.seconds) == 2
    assert any("round 2 of 2" in line for line in said)


@pytest.mark.parametrize("value", [1.01, math.nan])
def test_forms_that_differ_are_refused_before_anything_is_timed(value):
    said = []
    contestants = [gives(1.0), gives(value, "ours", like="theirs")]
    with pytest.raises(RuntimeError, match="ours gives other outputs than theirs at 2x3: relative difference"):
        compare("made up", contestants, replace(TRIAL, say=said.append), ours="ours")
    assert not any("round" in line for line in said)


def test_half_precision_may_differ_by_its_rounding():
    contestants = [gives(1.0), gives(1.01, "ours", like="theirs")]
    compare("made up", contestants, replace(TRIAL, precision="bf16"), ours="ours")


def test_only_forms_of_the_same_size_are_compared():
    small = replace(gives(1.0), size=(1, 1))
    with pytest.raises(KeyError):
        compare("made up", [small, gives(1.0, "ours", like="theirs")], TRIAL, ours="ours")


def test_operations_and_activations_come_from_the_calls_named_for_it():
    x = torch.ones(4, 5, requires_grad=True)
    weight = torch.ones(3, 5)
    contestant = gives(
        1.0,
        count=lambda: (x @ weight.T,),
        forward=lambda: x.exp(),
        state=[weight],
    )
    (figures,) = compare("made up", [contestant], TRIAL, ours="theirs").figures
    assert figures.multiply_adds == 4 * 5 * 3
    assert figures.saved_bytes == 4 * 5 * 4


def test_a_trial_for_each_precision_and_batch():
    settings = BenchmarkSettings(precision=("fp32", "bf16"), batch=(1, 8))
    seen = [(one.precision, one.batch) for one in trials(settings, CPU, silent)]
    assert seen == [("fp32", 1), ("fp32", 8), ("bf16", 1), ("bf16", 8)]


def test_tf32_is_on_for_its_own_trial_alone():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    seen = {
        one.precision: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
        for one in trials(BenchmarkSettings(precision=("fp32", "tf32")), CPU, silent)
    }
    assert seen == {"fp32": (False, False), "tf32": (True, True)}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_an_exact_power(power):
    pixels = [64, 96, 256, 1024]
    assert exponent(pixels, [3e-5 * count**power for count in pixels]) == pytest.approx(power)


def test_the_ratio_is_paired_by_round():
    """The machine was three times slower in the second round: the median of each side alone would say 3."""
    assert paired_ratio([2.0, 6.0, 6.0], [1.0, 3.0, 3.0]) == 2.0
    assert paired_ratio([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == 2.0
    assert paired_ratio([1.0, 30.0, 2.0], [0.5, 10.0, 2.0]) == 2.0


def test_median_and_spread():
    figures = Figures("ours", (1, 1), seconds=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert figures.median == 3
    assert figures.spread == pytest.approx((4 - 2) / 2 / 3)
    assert Figures("ours", (1, 1), seconds=(1.0,)).spread == 0


def over_sizes(power, peak_power):
    sizes = [(4, 4), (4, 8), (8, 8)]
    return Comparison(
        "made up",
        "ours",
        1,
        "fp32",
        tuple(
            Figures(
                "ours",
                size,
                seconds=((size[0] * size[1]) ** power, 2 * (size[0] * size[1]) ** power),
                peak_bytes=round((size[0] * size[1]) ** peak_power),
            )
            for size in sizes
        ),
    )


def test_growth_fits_and_pairs_sizes_of_four_times_the_pixels():
    (found,) = growth(over_sizes(1.5, 2.0))
    assert found.time_exponent == pytest.approx(1.5)
    assert found.memory_exponent == pytest.approx(2.0)
    assert found.fourfold == (((4, 4), (8, 8), pytest.approx(4**1.5)),)


def test_growth_needs_three_sizes_and_memory_at_each():
    comparison = over_sizes(1.5, 2.0)
    assert growth(replace(comparison, figures=comparison.figures[:2])) == []
    without = (replace(comparison.figures[0], peak_bytes=None), *comparison.figures[1:])
    assert growth(replace(comparison, figures=without))[0].memory_exponent is None


def test_times_slower_and_roofline():
    ours = Figures("ours", (2, 2), seconds=(1.0,), traffic=600, multiply_adds=100)
    theirs = Figures("theirs", (2, 2), seconds=(2.5,))
    comparison = Comparison("made up", "ours", 1, "fp32", (ours, theirs), copy_rate=1000.0, product_rate=500.0)
    assert comparison.times_slower(theirs) == 2.5
    assert comparison.times_slower(replace(theirs, size=(9, 9))) is None
    assert comparison.roofline_share(ours) == pytest.approx(0.6)  # the copy alone takes 0.6 s, the products 0.2 s
    assert comparison.roofline_share(replace(ours, multiply_adds=400)) == pytest.approx(0.8)
    assert comparison.roofline_share(theirs) is None


def test_the_command_line_names_what_differs_from_the_defaults():
    assert command_line("head", BenchmarkSettings()) == "asymseg benchmark head"
    settings = BenchmarkSettings(size=((96, 96), (64, 128)), batch=(1, 8), precision=("bf16",), threads=2, quick=True)
    assert command_line("network", settings, "--backbone", "resnet101") == (
        "asymseg benchmark network --backbone resnet101 --size 96 96 64 128 --batch 1 8 --precision bf16 --threads 2 "
        "--quick"
    )


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"size": ((96, 0),)}, "--size"),
        ({"batch": (0,)}, "--batch"),
        ({"threads": -1}, "--threads"),
        ({"seconds": 0.0}, "--seconds"),
    ],
)
def test_settings_that_cannot_be(wrong, word):
    with pytest.raises(ConfigError, match=word):
        BenchmarkSettings(**wrong)
