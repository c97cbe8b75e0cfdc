"""The front door: a benchmark from its settings to tables and files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from asymseg.benchmarking.blocks import benchmark_blocks
from asymseg.benchmarking.comparison import Say
from asymseg.benchmarking.figures import Comparison
from asymseg.benchmarking.head import benchmark_head
from asymseg.benchmarking.machine import facts, prepared
from asymseg.benchmarking.network import benchmark_network
from asymseg.benchmarking.report import say_facts, show, write_comparisons
from asymseg.benchmarking.settings import BenchmarkSettings, command_line
from asymseg.benchmarking.tables import comparison_tables

Measure = Callable[[BenchmarkSettings, torch.device, Say], list[Comparison]]


def blocks(settings: BenchmarkSettings, out: Path | None, console: Console) -> list[Comparison]:
    """APNB against its rivals, over sizes."""
    return _run(benchmark_blocks, settings, command_line("blocks", settings), out, console)


def head(settings: BenchmarkSettings, out: Path | None, console: Console) -> list[Comparison]:
    """ANNNet's head against the plain one."""
    return _run(benchmark_head, settings, command_line("head", settings), out, console)


def network(
    settings: BenchmarkSettings,
    backbone: str,
    out: Path | None,
    console: Console,
    *,
    compiling: bool = True,
    training: bool = False,
) -> list[Comparison]:
    """ANNNet whole against the plain one."""
    words = ["--backbone", backbone, *["--no-compile"] * (not compiling), *["--training"] * training]
    measure = partial(benchmark_network, backbone=backbone, compiling=compiling, training=training)
    return _run(measure, settings, command_line("network", settings, *words), out, console)


def _run(
    measure: Measure, settings: BenchmarkSettings, command: str, out: Path | None, console: Console
) -> list[Comparison]:
    with prepared(settings) as device:
        known = facts(device, command)
        with console.status("starting") as status:
            comparisons = measure(settings, device, status.update)
    say_facts(known, console)
    for comparison in comparisons:
        show(comparison_tables(comparison), console)
    if out is not None:
        write_comparisons(out, comparisons, known)
        console.print(f"wrote {out / 'results.md'}, results.json and {len(comparisons)} pictures")
    return comparisons
