"""What a run shows and writes down: a progress line, `log.jsonl`, TensorBoard."""

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from asymseg.atomic import atomic_file

LOG = "log.jsonl"


class RunLog:
    """Writes a run's lines; on the screen a live bar where there is a terminal, else one line per entry.

    Use as a context manager. `active` is false on all processes but the first, which stay silent.
    """

    def __init__(self, folder: Path, steps: int, first_step: int, console: Console, active: bool) -> None:
        self.active = active
        self.console = console
        self.steps = steps
        self.first_step = first_step
        self.started = time.monotonic()
        if not active:
            return
        _drop_lines_after(folder / LOG, first_step)
        self.file = (folder / LOG).open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self.bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("train", total=steps, completed=first_step, facts="")

    def __enter__(self) -> Self:
        if self.active:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active:
            self.bar.stop()
            self.file.close()
            self.board.close()

    def step(self, done: int, loss: float, images_per_second: float, wait_share: float) -> None:
        """Move the bar after a step."""
        if self.active:
            facts = f"loss {loss:.3f}  {images_per_second:.1f} images/s  waiting for data {wait_share:.0%}  {_memory()}"
            self.bar.update(self.task, completed=done, facts=facts)

    def train(self, done: int, loss: float, rate: float, images_per_second: float, wait_share: float) -> None:
        """Write a training line: mean loss since the last one, learning rate, speed, share of time waiting for data."""
        if not self.active:
            return
        entry = {
            "kind": "train",
            "step": done,
            "loss": loss,
            "learning_rate": rate,
            "images_per_second": round(images_per_second, 3),
            "wait_share": round(wait_share, 4),
        }
        self._write(entry)
        if not self.console.is_terminal:
            eta = (time.monotonic() - self.started) / (done - self.first_step) * (self.steps - done)
            self.console.print(
                f"step {done}/{self.steps}  loss {loss:.4f}  rate {rate:.2e}  {images_per_second:.1f} images/s  "
                f"waiting for data {wait_share:.0%}  {_memory()}  ETA {_clock(eta)}"
            )

    def validation(self, done: int, miou: float, pixel_accuracy: float, best: bool) -> None:
        """Write a validation line."""
        if not self.active:
            return
        self._write(
            {"kind": "validation", "step": done, "miou": _finite(miou), "pixel_accuracy": _finite(pixel_accuracy)}
        )
        self.console.print(
            f"step {done}/{self.steps}  validation mIoU {miou:.4f}  pixel accuracy {pixel_accuracy:.4f}"
            + ("  (best so far)" if best else "")
        )

    def _write(self, entry: dict[str, Any]) -> None:
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        for name, value in entry.items():
            if isinstance(value, float):
                self.board.add_scalar(f"{entry['kind']}/{name}", value, entry["step"])


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`; a line that a kill cut short is left out."""
    path = folder / LOG
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def _drop_lines_after(path: Path, step: int) -> None:
    """Forget what a killed run logged after its last checkpoint: those steps are done again."""
    kept = [entry for entry in read_log(path.parent) if entry["step"] <= step]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")


def _memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
