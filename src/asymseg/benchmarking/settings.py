"""The knobs of a benchmark, with a sentence each; flags of the command line. Nothing heavy is imported here."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from asymseg.errors import ConfigError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Size = tuple[int, int]


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured, where and for how long."""

    size: tuple[Size, ...] | None = None
    """Height and width, in feature pixels for blocks and head and in image pixels for the network; may be repeated."""
    batch: tuple[int, ...] = (1,)
    """Images at a time; several numbers give a table each."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: tuple[Precision, ...] = ("fp32",)
    """Arithmetic: fp32, tf32 (CUDA alone), bf16 or fp16; several give a table each."""
    threads: int | None = None
    """CPU threads; by default torch's choice."""
    seconds: float = 60.0
    """Time to spend on each table; at least five rounds are made, however long they take."""
    quick: Annotated[bool, Parameter(negative=())] = False
    """Tiny sizes and two rounds: shows that all works, and measures nothing."""

    def __post_init__(self) -> None:
        for name, numbers in (
            ("size", [side for size in self.size or () for side in size]),
            ("batch", self.batch),
            ("threads", [] if self.threads is None else [self.threads]),
        ):
            if min(numbers, default=1) < 1:
                raise ConfigError(f"--{name} must be at least 1, not {min(numbers)}")
        if not self.seconds > 0:
            raise ConfigError(f"--seconds must be above 0, not {self.seconds}")


def command_line(name: str, settings: BenchmarkSettings, *more: str) -> str:
    """What to type for the same benchmark again: flags that differ from the defaults, without folders."""
    typed = ["asymseg", "benchmark", name, *more]
    for knob in fields(settings):
        value = getattr(settings, knob.name)
        if value == knob.default:
            continue
        typed.append(f"--{knob.name}")
        if value is not True:
            typed += words(value)
    return shlex.join(typed)


def words(value: object) -> list[str]:
    """A value as it is typed; of files and folders the names alone."""
    if isinstance(value, tuple):
        return [word for part in value for word in words(part)]
    if isinstance(value, Path):
        return [value.name]
    return ["none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)]
