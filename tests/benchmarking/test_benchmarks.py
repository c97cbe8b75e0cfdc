"""Each benchmark runs whole at tiny sizes, from the command line to its files."""

import json

import pytest
import torch

from asymseg.benchmarking.blocks import benchmark_blocks
from asymseg.benchmarking.machine import facts, highest_rates, prepared
from asymseg.benchmarking.settings import BenchmarkSettings
from asymseg.cli import main
from asymseg.errors import ConfigError

CPU = torch.device("cpu")


def silent(_: str) -> None:
    pass


def by_name(comparison, size):
    return {one.name: one for one in comparison.figures if one.size == size}


def test_blocks():
    settings = BenchmarkSettings(quick=True, size=((8, 8), (20, 20)), precision=("fp32", "bf16"), batch=(2,))
    exact, rounded = benchmark_blocks(settings, CPU, silent)
    assert (exact.precision, rounded.precision, exact.batch) == ("fp32", "bf16", 2)
    assert exact.sizes == [(8, 8), (20, 20)]
    found = by_name(exact, (20, 20))
    assert list(found) == ["plain APNB", "APNB", "non-local, plain", "non-local, fused attention"]
    assert found["APNB"].error < 1e-5 < by_name(rounded, (20, 20))["APNB"].error
    assert found["non-local, fused attention"].like == "non-local, plain"
    # Of the symmetric block: queries, values, N x N scores and contexts, output, and merge over twice the channels.
    pixels, channels, keys = 400, 32, 8
    each = 2 * channels * keys + 2 * pixels * keys + keys * channels + 2 * channels * channels
    assert found["non-local, plain"].multiply_adds == 2 * pixels * each
    weights, output = 2 * pixels * pixels * 4, 2 * channels * pixels * 4  # of two images
    assert 2 * weights - output < found["non-local, plain"].peak_bytes < 3 * weights
    assert found["APNB"].peak_bytes < found["non-local, plain"].peak_bytes / 2


@pytest.fixture
def command(tmp_path, capsys):
    """Run a benchmark's command; give the comparisons that it wrote, each as figures by name."""

    def running(*arguments):
        main(["benchmark", *arguments, "--quick", "--device", "cpu", "--out", str(tmp_path)])
        output = capsys.readouterr().err
        content = json.loads((tmp_path / "results.json").read_text())
        words = content["command"].split()
        assert words[:3] == ["asymseg", "benchmark", arguments[0]]
        assert {*arguments, "--quick"} <= set(words)
        assert str(tmp_path) not in content["command"]
        assert len(list(tmp_path.glob("*.png"))) == len(content["comparisons"])
        for comparison in content["comparisons"]:
            assert comparison["title"] in output
        return [{one["name"]: one for one in comparison["figures"]} for comparison in content["comparisons"]]

    return running


def test_blocks_command(command):
    (figures,) = command("blocks", "--size", "8", "8", "--threads", "1")
    assert all(len(one["seconds"]) == 2 for one in figures.values())
    assert {tuple(one["size"]) for one in figures.values()} == {(8, 8)}


def test_head_command(command):
    prediction, training = command("head")
    assert {"plain", "ours", "folded", "folded, as predicted", "bare 3x3"} <= prediction.keys()
    assert all(one["error"] < 1e-5 for one in prediction.values() if one["like"])
    assert prediction["bare 3x3"]["multiply_adds"] == 64 * 9 * 16 * 16
    assert prediction["bare 3x3"]["traffic"] is None
    # Two maps of 8 and 16 channels in, 19 classes out, and the weights, in float32.
    assert prediction["plain"]["traffic"] == 4 * (64 * (8 + 16 + 19) + prediction["plain"]["parameters"])
    assert training["ours"]["error"] < 1e-4
    assert training["ours"]["saved_bytes"] > 64 * 2 * (8 + 16) * 4  # at least the two maps, of two images
    # Of two images; for each product forward there are two backward, and none is saved by a trick of ours.
    assert training["plain"]["multiply_adds"] == 2 * 3 * prediction["plain"]["multiply_adds"]


def test_network_command(command):
    arguments = ["--backbone", "resnet10t", "--no-compile", "--training", "--size", "33", "40"]
    prediction, training = command("network", *arguments)
    assert list(prediction) == [
        *("plain, eager, NCHW", "ours, eager, NCHW", "ours, channels_last", "folded, channels_last", "as predicted"),
    ]
    assert all(one["error"] < 1e-4 for one in [*prediction.values(), *training.values()] if one["like"])
    assert list(training) == ["plain, eager, NCHW", "ours, channels_last"]


def test_highest_rates_are_those_of_the_work_done():
    copied, products = highest_rates(CPU, "fp32", quick=True)
    assert copied > 1e6
    assert products > 1e6


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with prepared(BenchmarkSettings(threads=before + 1)) as device:
        assert device.type == "cpu" or torch.cuda.is_available()
        assert torch.get_num_threads() == before + 1
        assert facts(device, "x")["threads"] == str(before + 1)
    assert torch.get_num_threads() == before


def test_tf32_is_refused_on_a_cpu():
    with (
        pytest.raises(ConfigError, match="--precision tf32"),
        prepared(BenchmarkSettings(precision=("tf32",), device="cpu")),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["blocks", "--size", "0", "8"], ["--size", "at least 1"]),
        (["blocks", "--precision", "fp8"], ["fp8", "bf16"]),
        (["bloks"], ["bloks", "blocks"]),
        (["network", "--backbone", "resnet5o", "--quick"], ["resnet5o", "resnet50"]),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["benchmark", *arguments])
    assert leaving.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    for word in words:
        assert word in line
