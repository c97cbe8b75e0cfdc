"""A wish to stop, by SIGTERM or Ctrl-C: noted, so that a run ends after a step and with its state saved."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator

from asymseg.errors import TrainingError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(TrainingError):
    """A run that was asked to stop and has saved its state; `code` is what a shell gives such a process."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Stopping:
    """Notes the first SIGTERM or SIGINT while it is entered; a second one ends the process at once.

    Signals reach the main thread alone: in another one nothing is changed.
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal that came; 0 where none did."""
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def agreed(self, accelerator: Accelerator) -> int:
        """The signal that any of the processes was sent; all know the same, so that all leave after the same step."""
        if accelerator.num_processes == 1:
            return self.number
        sent = accelerator.gather(torch.tensor([self.number], device=accelerator.device))
        return int(sent.max())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        # Not by way of Python's streams: the signal may have come while one of them is being written to.
        os.write(2, b"\nstopping: the state is saved after this step; the same signal again leaves at once\n")
