"""What a run shows and writes down: a progress line, `log.jsonl`, TensorBoard."""

import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from asymseg.atomic import atomic_file
from asymseg.evaluation.metrics import json_number

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
        self.known_bad = {entry["message"] for entry in read_log(folder) if entry["kind"] == "skipped"}
        self.board = Board(folder / "tensorboard", first_step)
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

    def validating(self, done: int, images: int) -> None:
        """Show beside the bar how far a validation is."""
        if self.active:
            self.bar.update(self.task, facts=f"validating: image {done} of {images}")

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
            {
                "kind": "validation",
                "step": done,
                "miou": json_number(miou),
                "pixel_accuracy": json_number(pixel_accuracy),
            }
        )
        self.console.print(
            f"step {done}/{self.steps}  validation mIoU {miou:.4f}  pixel accuracy {pixel_accuracy:.4f}"
            + ("  (best so far)" if best else "")
        )

    def skipped(self, done: int, messages: tuple[str, ...]) -> None:
        """Write a line for each training file that could not be read in this step; each is shown once."""
        if not self.active:
            return
        for message in messages:
            self._write({"kind": "skipped", "step": done, "message": message})
            if message not in self.known_bad:
                self.known_bad.add(message)
                self.console.print(f"skipped: {message}", highlight=False, markup=False)

    def _write(self, entry: dict[str, Any]) -> None:
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())  # the state of this step is saved later, and must not outlive its lines
        for name, value in entry.items():
            if isinstance(value, float):
                self.board.scalar(f"{entry['kind']}/{name}", value, entry["step"])


class Board:
    """What TensorBoard shows, written at once and by the caller's own thread.

    Torch's writer has a thread that writes minutes later: a kill would lose what the log says was done.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("wb")
        self.records = RecordWriter(self.file)
        self._write(Event(file_version="brain.Event:2"))
        if first_step:  # what a killed run wrote of later steps is not shown
            self._write(Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add a point to a curve."""
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)])))

    def close(self) -> None:
        """End the file."""
        self.file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
        self.file.flush()


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
