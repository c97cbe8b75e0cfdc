"""What the processes of a run know of each other: which one keeps them waiting, and which one has ended, and why.

A process that raises, or is killed, leaves the others waiting for its numbers, on some devices for ten minutes and
more. So each of them says twice a second, in a store that the first one holds, where it stands, by a thread of its own.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # torch does not say that it has it

from asymseg.errors import AsymsegError, TrainingError
from asymseg.training.stopping import StoppedError

_BEAT = 0.5
"""Seconds between two words of a process."""
_SILENCE = 5.0
"""Seconds without a word after which a process is taken for gone."""
_GRACE = 10.0
"""Seconds that a process has to end by itself once another one has."""
_ENDED, _SEEN = "ended", "seen"
_FIRST_GONE = "the first process (rank 0) is gone without a word"


@dataclass(frozen=True)
class Word:
    """What a process says of itself."""

    rank: int
    name: str
    """Its machine and number there."""
    beat: int
    place: int
    """How many parts of the work it has begun; all processes go through the same ones."""
    doing: str
    seconds: float
    """Since when it has been at this part."""

    @property
    def who(self) -> str:
        """The process, for a reader."""
        return f"rank {self.rank} ({self.name})"


class Watch:
    """Which part of the work this process is at; see `watched`."""

    def __init__(self) -> None:
        self.place, self.doing, self.since = 0, "preparing", time.monotonic()

    def at(self, doing: str) -> None:
        """Say what this process begins now. All processes say the same, in the same order."""
        self.place, self.doing, self.since = self.place + 1, doing, time.monotonic()


@contextmanager
def watched(accelerator: Accelerator, late_after: float, say: Callable[[str], None]) -> Iterator[Watch]:
    """Let no process wait, for the length of the block, for one that does not come without a word on it.

    In the first process `say` is told which one has kept others waiting for `late_after` seconds, what it is at, and
    when it has caught up. Where a process ends by an error, or without a word, the others end too, within seconds.

    Raises TrainingError where another process has ended the run: which one, and by what.
    """
    watch = Watch()
    if accelerator.num_processes == 1:
        yield watch
        return
    ties = _Ties(accelerator, watch, late_after, say)
    ties.thread.start()
    try:
        yield watch
        watch.at("waiting for the others to end")
        accelerator.wait_for_everyone()
    except StoppedError:
        raise
    except BaseException as error:
        reason = ties.ended_by_another(error)
        if reason is None:
            raise
        raise TrainingError(reason) from None
    finally:
        ties.close()


class _Ties:
    """A process's part in the store, and the thread that speaks and listens there."""

    def __init__(self, accelerator: Accelerator, watch: Watch, late_after: float, say: Callable[[str], None]) -> None:
        self.rank, self.world = int(accelerator.process_index), int(accelerator.num_processes)
        self.watch, self.late, self.beat = watch, Lateness(late_after, say), 0
        host, patience = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=30)
        port = [0]
        if self.rank == 0:
            self.store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=patience)
            port = [self.store.port]
        broadcast_object_list(port)
        if self.rank:
            self.store = TCPStore(host, port[0], is_master=False, timeout=patience)
        self.name = f"{socket.gethostname()}, process {os.getpid()}"
        self.ended: dict[str, Any] = {}
        """Which process was the first to end, and by what, once that is known."""
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._run, name="asymseg-watch", daemon=True)
        self._speak()

    def ended_by_another(self, error: BaseException) -> str | None:
        """Say that `error` ends the run; where another process was first to end, what is to be said of it here."""
        try:
            if _is_of_network(error) and not self.ended:
                gone = self._silent()
                if gone:
                    return f"{gone[0].who} is gone without a word, at {gone[0].doing}; it may have run out of memory"
            if not self.ended:
                what = str(error) if isinstance(error, AsymsegError) else f"{type(error).__name__}: {error}"
                mine = {"rank": self.rank, "by": f"rank {self.rank} ({self.name})", "what": " ".join(what.split())}
                self.ended = json.loads(self.store.compare_set(_ENDED, "", json.dumps(mine)))
        except DistError:
            if not self.ended:
                return _FIRST_GONE
        return None if self.ended["rank"] == self.rank else _ended_by(self.ended)

    def close(self) -> None:
        """End the thread; the first process, with which the store goes, waits for the others to see why it ends."""
        self.closed.set()
        self.thread.join(_SILENCE)
        if self.rank == 0 and self.store.check([_ENDED]):
            deadline = time.monotonic() + _SILENCE
            while self.store.add(_SEEN, 0) < self.world - 1 and time.monotonic() < deadline:
                time.sleep(_BEAT / 5)

    def _run(self) -> None:
        try:
            while not self.closed.wait(_BEAT):
                self._speak()
                if self.store.check([_ENDED]):
                    self.ended = json.loads(self.store.get(_ENDED))
                    self.store.add(_SEEN, 1 if self.rank else 0)  # from now on the first process may leave
                    self._leave_unless_closed(_ended_by(self.ended))
                    return
                if self.rank == 0:
                    self.late.look(self._words())
        except DistError:
            self._leave_unless_closed(_FIRST_GONE)

    def _leave_unless_closed(self, reason: str) -> None:
        """End this process where it does not end by itself: it waits, where no error reaches it, for one that left."""
        if not self.closed.wait(_GRACE):
            sys.stderr.write(f"asymseg: {reason}\n")
            sys.stderr.flush()
            os._exit(2)

    def _speak(self) -> None:
        self.beat += 1
        watch = self.watch
        word = Word(self.rank, self.name, self.beat, watch.place, watch.doing, time.monotonic() - watch.since)
        self.store.set(str(self.rank), json.dumps(asdict(word)))

    def _words(self) -> list[Word]:
        """What each process said last; in the beginning some may not have spoken yet."""
        names = [str(rank) for rank in range(self.world)]
        return [Word(**json.loads(self.store.get(name))) for name in names if self.store.check([name])]

    def _silent(self) -> list[Word]:
        """The processes that say no word any more."""
        before = {word.rank: word for word in self._words() if word.rank != self.rank}
        deadline = time.monotonic() + _SILENCE
        while before and time.monotonic() < deadline and not self.store.check([_ENDED]):
            time.sleep(_BEAT / 5)
            for word in self._words():
                if word.rank in before and word.beat != before[word.rank].beat:
                    del before[word.rank]
        return [] if self.store.check([_ENDED]) else list(before.values())


class Lateness:
    """Says which process keeps the others waiting: once after some seconds, and whenever it is twice as many."""

    def __init__(self, after: float, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.after, self.say, self.clock = after, say, clock
        self.told: dict[int, float] = {}
        """By process that is late, the seconds that were said last."""
        self.heard: dict[int, tuple[int, float]] = {}
        """By process, its last word's beat, and when that was seen to change."""

    def look(self, words: list[Word]) -> None:
        """Judge by what each process says now."""
        now = self.clock()
        for word in words:
            if self.heard.get(word.rank, (0, 0.0))[0] != word.beat:
                self.heard[word.rank] = word.beat, now
        front = max(words, key=lambda word: (word.place, word.seconds))
        for word in words:
            silence = now - self.heard[word.rank][1]
            waited = front.seconds if word.place < front.place else 0.0
            if waited == 0.0:
                if word.rank in self.told:
                    del self.told[word.rank]
                    self.say(f"{word.who} has caught up")
            elif waited >= self.told.get(word.rank, self.after / 2) * 2:
                self.told[word.rank] = waited
                silent = f", and has said nothing for {silence:.0f} s" if silence > _SILENCE else ""
                self.say(
                    f"{word.who} keeps the others waiting: {word.seconds + silence:.0f} s at {word.doing}{silent}; "
                    f"they have been at {front.doing} for {waited:.0f} s"
                )


def _is_of_network(error: BaseException) -> bool:
    """Whether it is what torch says of processes that do not answer, and not a bug of this one."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _ended_by(first: dict[str, Any]) -> str:
    return f"{first['by']} has ended the run: {first['what']}"
