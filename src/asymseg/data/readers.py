"""The processes that read images: which file each has in hand, and what is said when one of them dies."""

import os
import re
import signal
import threading
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import get_worker_info

from asymseg.data.pairing import Pair
from asymseg.data.shelf import share
from asymseg.errors import TrainingError
from asymseg.model.memory import keep_freed_memory


@dataclass(frozen=True)
class Readers:
    """The pair that each process reads, in memory that all of them see."""

    pairs: tuple[Pair, ...]
    in_hand: Int64[Tensor, "workers 2"]
    """By worker: its process, and the place of its pair among `pairs`."""

    def take(self, place: int) -> None:
        """Note in a worker what it reads now."""
        worker = get_worker_info()
        if worker is not None:
            self.in_hand[worker.id, 0], self.in_hand[worker.id, 1] = os.getpid(), place

    def death(self, error: RuntimeError) -> TrainingError | None:
        """What to say where `error` is torch's word that a worker died; None where it is about something else."""
        text = " ".join(str(error).split())
        found = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", text)
        if found is None:
            return None
        dead = {int(number) for number in found[1].split(",")}
        files = [str(self.pairs[place].image) for process, place in self.in_hand.tolist() if process in dead]
        return TrainingError(
            f"a process that reads images died ({text})"
            + (f" while it read {' and '.join(files)} and the mask" if files else "")
            + "; it may have run out of memory or shared memory: lower --data.workers"
        )


def make_readers(pairs: tuple[Pair, ...], workers: int) -> Readers:
    """Readers with nothing in hand."""
    in_hand = torch.full((workers, 2), -1)
    if workers:
        share(in_hand)
    return Readers(pairs, in_hand)


def begin_worker(_worker: int) -> None:
    """Make a worker keep the memory it frees, fresh pages cost more than the arithmetic; and outlive a wish to stop.

    Ctrl-C, and some systems' SIGTERM, reach all processes of a run: the main one still needs its workers until its
    state is saved. It ends them itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere nobody could tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_parent_asks, args=(os.getppid(),), daemon=True).start()
    keep_freed_memory()


def _end_when_parent_asks(parent: int) -> None:
    """End this process by the SIGTERM of its parent, and by nobody else's."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)
