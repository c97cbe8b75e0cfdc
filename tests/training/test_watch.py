"""Processes that keep others waiting are named, and one that ends takes the others with it, in one line."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tiny_processes import shown, train_together
from tiny_runs import at_step, tiny

from asymseg.data.loader import Batch, TimedBatches
from asymseg.data.sample import write_sample
from asymseg.errors import DataError
from asymseg.training.watch import Lateness, Word

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, so that torch is not loaded once more"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


class Story:
    """What Lateness says over time; each word is a place and the seconds since it was reached."""

    def __init__(self, after: float) -> None:
        self.said: list[str] = []
        self.now, self.beat = 0.0, 0
        self.lateness = Lateness(after, self.said.append, lambda: self.now)

    def at(self, now: float, *words: tuple[int, float], silent: int | None = None) -> list[str]:
        """What is said at this time; `silent` is a process whose word is an old one."""
        self.now, self.beat = now, self.beat + 1
        self.said.clear()
        self.lateness.look(
            [
                Word(
                    rank, f"node{rank}, process 7", 1 if rank == silent else self.beat, place, f"part {place}", seconds
                )
                for rank, (place, seconds) in enumerate(words)
            ]
        )
        return list(self.said)


def test_who_is_behind_is_named_once_then_when_it_is_twice_as_long():
    story = Story(after=60.0)
    assert story.at(10.0, (5, 3.0), (5, 2.0)) == []
    assert story.at(60.0, (6, 50.0), (5, 52.0)) == []
    assert story.at(71.0, (6, 61.0), (5, 63.0)) == [
        "rank 1 (node1, process 7) keeps the others waiting: 63 s at part 5; they have been at part 6 for 61 s"
    ]
    assert story.at(72.0, (6, 62.0), (5, 64.0)) == []
    assert story.at(131.0, (6, 121.0), (5, 123.0)) == []
    assert len(story.at(132.5, (6, 122.5), (5, 124.5))) == 1
    assert story.at(140.0, (6, 130.0), (6, 1.0)) == ["rank 1 (node1, process 7) has caught up"]
    assert story.at(141.0, (6, 131.0), (6, 2.0)) == []


def test_the_first_process_may_be_the_late_one_and_several_may_be():
    story = Story(after=5.0)
    told = story.at(10.0, (2, 9.0), (3, 6.0), (2, 8.0))
    assert [line.partition(" (")[0] for line in told] == ["rank 0", "rank 2"]


def test_time_that_all_need_for_the_same_part_is_not_lateness():
    assert Story(after=5.0).at(1000.0, (4, 900.0), (4, 950.0)) == []


def test_a_process_that_says_nothing_is_told_from_one_that_is_slow():
    story = Story(after=5.0)
    assert story.at(1.0, (4, 0.0), (4, 0.5)) == []
    assert story.at(12.0, (5, 10.0), (4, 0.5), silent=1) == [
        "rank 1 (node1, process 7) keeps the others waiting: 12 s at part 4, and has said nothing for 11 s; "
        "they have been at part 5 for 10 s"
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_sample(folder, train=4, val=3, test=1)
    return folder


def raising(patch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise DataError("b.png: not readable; copy it again")

    at_step(3, wrong, patch)


def buggy(patch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise KeyError("no such thing")

    at_step(3, wrong, patch)


def dying(patch: pytest.MonkeyPatch) -> None:
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL), patch)


def sleeping(patch: pytest.MonkeyPatch) -> None:
    """The disk of the fourth batch is slow."""

    def slow(batches: TimedBatches) -> Batch:
        taken.append(batches)
        time.sleep(4 if len(taken) == 4 else 0)
        return original(batches)

    taken: list[TimedBatches] = []
    original = TimedBatches.__next__
    patch.setattr(TimedBatches, "__next__", slow)


def go(data: Path, out: Path, prepare: dict, **settings) -> list[int | None]:
    return train_together(2, data, tiny(steps=4, batch_size=4, **settings), out, prepare)


@pytest.mark.parametrize(
    ("what", "rank", "code", "words"),
    [
        (raising, 1, 2, "b.png: not readable; copy it again; the last good state is"),
        (buggy, 0, 1, "KeyError: 'no such thing'"),
    ],
    ids=["wrong data", "a bug"],
)
def test_an_error_in_one_process_ends_all_and_is_told_by_all(data, tmp_path, what, rank, code, words):
    codes = go(data, tmp_path / "run", {rank: what})
    assert codes[rank] == code
    assert codes[1 - rank] == 2
    line = shown(tmp_path / "run", 1 - rank).splitlines()[-1]
    assert line.startswith(f"rank {rank} (")
    assert " has ended the run: " in line
    assert words in line


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all(data, tmp_path, rank):
    codes = go(data, tmp_path / "run", {rank: dying})
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 2
    words = shown(tmp_path / "run", 1 - rank).splitlines()[-1]
    assert words.startswith("rank 1 (" if rank else "the first process (rank 0) is gone")


def test_a_sleeper_is_named_while_it_sleeps(data, tmp_path):
    assert go(data, tmp_path / "run", {1: sleeping}, late_after=1.0) == [0, 0]
    lines = [line for line in shown(tmp_path / "run", 0).splitlines() if line.startswith("late: ")]
    about = [line for line in lines if "step 4" in line]
    assert about[0].startswith("late: rank 1 (")
    assert "s at step 4: reading images; they have been at step 4: computing for" in about[0]
