"""Several forms of one computation: shown to give the same, then measured in turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asymseg.benchmarking.figures import Comparison, Figures
from asymseg.benchmarking.machine import arithmetic
from asymseg.benchmarking.measure import (
    Call,
    interleaved_seconds,
    memory_of,
    multiply_adds,
    relative_error,
    rounds_within,
    saved_bytes,
    seconds_of,
)
from asymseg.benchmarking.settings import BenchmarkSettings, Precision, Size

LEAST_ROUNDS, MOST_ROUNDS, QUICK_ROUNDS = 5, 50, 2

TOLERANCE = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 0.2, "fp16": 0.05}
"""Relative difference from which on two forms are not the same: several times what rounding alone gives."""

Say = Callable[[str], None]
"""Takes one line that says what is going on."""


@dataclass(frozen=True)
class Contestant:
    """One form of a computation."""

    name: str
    size: Size
    """Height and width of what it works on."""
    call: Call
    like: str | None = None
    """The contestant of the same size whose outputs it must give; None where it computes something else."""
    parameters: int = 0
    count: Call | None = None
    """What to count the operations of, where that is not `call`: the counter cannot look into compiled code."""
    forward: Callable[[], object] | None = None
    """The forward pass of a training step, to find what it saves."""
    state: Sequence[Tensor] = ()
    """Parameters and buffers, which are not counted as saved."""
    traffic: int | None = None
    """Bytes that must be read and written at the very least: inputs, parameters and outputs."""
    note: str = ""
    compared: int | None = None
    """How many of the first outputs must agree; None for all."""


@dataclass(frozen=True)
class Trial:
    """Under which circumstances contestants meet."""

    settings: BenchmarkSettings
    batch: int
    precision: Precision
    device: torch.device
    say: Say


def trials(settings: BenchmarkSettings, device: torch.device, say: Say) -> Iterator[Trial]:
    """One for each precision and batch size; as long as one lasts, arithmetic is what it says."""
    for precision in settings.precision:
        with arithmetic(precision):
            for batch in settings.batch:
                yield Trial(settings, batch, precision, device, say)


def compare(title: str, contestants: Sequence[Contestant], trial: Trial, *, ours: str) -> Comparison:
    """Check that the contestants agree, take what does not vary, then time them in turn.

    A contestant stands behind the one that it is compared with. Raises RuntimeError where outputs differ.
    """
    settings, device, say = trial.settings, trial.device, trial.say
    figures: list[Figures] = []
    outputs: dict[tuple[str, Size], Sequence[Tensor]] = {}
    for contestant in contestants:
        say(f"{title}: {contestant.name}, {_text(contestant.size)}: outputs, memory, operations")
        outputs = {key: value for key, value in outputs.items() if key[1] == contestant.size}
        known = None if contestant.like is None else outputs[contestant.like, contestant.size]
        found, outputs[contestant.name, contestant.size] = _look_at(contestant, known, trial)
        figures.append(found)
    outputs.clear()
    calls = [contestant.call for contestant in contestants]
    say(f"{title}: warming up")
    one_round = sum(seconds_of(call, device) for call in calls)
    rounds = QUICK_ROUNDS if settings.quick else rounds_within(settings.seconds, one_round, LEAST_ROUNDS, MOST_ROUNDS)

    def say_round(number: int) -> None:
        say(f"{title}: round {number + 1} of {rounds}, {one_round:.1f} s each")

    samples = interleaved_seconds(calls, rounds, device, say_round)
    timed = tuple(replace(one, seconds=taken) for one, taken in zip(figures, samples, strict=True))
    return Comparison(title, ours, trial.batch, trial.precision, timed)


def _look_at(
    contestant: Contestant, expected: Sequence[Tensor] | None, trial: Trial
) -> tuple[Figures, Sequence[Tensor]]:
    """All but the time of a contestant, and its outputs."""
    first, outputs = memory_of(contestant.call, trial.device)  # what is made once, is made now
    del outputs
    memory, outputs = memory_of(contestant.call, trial.device)
    error = (
        None if expected is None else relative_error(outputs[: contestant.compared], expected[: contestant.compared])
    )
    if error is not None and not error <= TOLERANCE[trial.precision]:
        raise RuntimeError(
            f"{contestant.name} gives other outputs than {contestant.like} at {_text(contestant.size)}: "
            f"relative difference {error:.1e}"
        )
    figures = Figures(
        contestant.name,
        contestant.size,
        peak_bytes=None if memory is None else memory.peak,
        kept_bytes=None if first is None or contestant.count is not None else first.kept,
        parameters=contestant.parameters,
        multiply_adds=multiply_adds(contestant.count or contestant.call),
        like=contestant.like,
        error=error,
        saved_bytes=None if contestant.forward is None else saved_bytes(contestant.forward, contestant.state),
        traffic=contestant.traffic,
        note=contestant.note,
    )
    return figures, outputs


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
