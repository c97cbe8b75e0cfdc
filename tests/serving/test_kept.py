"""Results kept for questions: for how long, how many, and of how many bytes."""

import asyncio

import numpy as np
import pytest

from asymseg.classes import Classes
from asymseg.prediction.result import Result
from asymseg.serving.kept import Kept
from asymseg.serving.loading import Loaded
from asymseg.serving.refusals import Refusal
from asymseg.serving.worker import Worker


def result(size):
    """One that holds so many bytes beside a pixel of mask and one of image."""
    mask, image = np.zeros((1, 1), np.uint8), np.zeros((1, 1, 1), np.uint8)
    return Result(mask, Classes(("all",)), image, lambda: np.ones((1, 1, 1), np.float32), held=size - 2)


class Blind:
    """A network that is never asked."""

    info = parameters = device = attends = None

    def several(self, images):
        raise NotImplementedError


MODEL = Loaded("model", Blind(), "1", ())


class Nobody(Worker):
    """A worker that is only remembered."""

    def __init__(self):
        self.model = MODEL


def is_there(kept, name):
    kept.tidy()
    return name in kept._entries and kept.get(name) is not None


def test_what_was_not_used_longest_goes_first():
    kept = Kept(most=2, most_bytes=100)
    first, second = kept.add(result(2), Nobody(), MODEL), kept.add(result(2), Nobody(), MODEL)
    assert is_there(kept, first)
    third = kept.add(result(2), Nobody(), MODEL)
    assert [is_there(kept, name) for name in (first, second, third)] == [True, False, True]


def test_so_many_bytes_and_no_more():
    kept = Kept(most=10, most_bytes=100)
    names = [kept.add(result(40), Nobody(), MODEL) for _ in range(3)]
    assert [is_there(kept, name) for name in names] == [False, True, True]
    assert kept.bytes == 80
    assert kept.add(result(101), Nobody(), MODEL) is None
    assert len(kept) == 2


def test_what_grows_pushes_others_out_and_stays_itself():
    kept = Kept(most=10, most_bytes=100)
    other, growing = kept.add(result(40), Nobody(), MODEL), kept.add(grown := result(40), Nobody(), MODEL)
    grown._held = 300
    kept.tidy()
    assert [is_there(kept, name) for name in (other, growing)] == [False, True]


def test_what_a_replaced_model_said_is_forgotten():
    kept, worker, newer = Kept(), Nobody(), Loaded("model", Blind(), "2", ())
    replaced, other = kept.add(result(2), worker, MODEL), kept.add(result(2), Nobody(), MODEL)
    worker.replace(newer)
    assert [is_there(kept, name) for name in (replaced, other)] == [False, True]
    assert kept.add(result(2), worker, MODEL) is None  # it came just before
    assert is_there(kept, kept.add(result(2), worker, newer))


def test_it_is_forgotten_some_time_after_it_was_last_used():
    now = 0.0
    kept = Kept(seconds=10.0, clock=lambda: now)
    name = kept.add(result(2), Nobody(), MODEL)
    now = 9.0
    assert is_there(kept, name)
    now = 18.0
    assert is_there(kept, name)
    now = 28.0
    assert not is_there(kept, name)
    assert len(kept) == 0


def test_it_is_forgotten_while_nobody_asks_for_anything():
    now = 0.0
    kept = Kept(seconds=10.0, clock=lambda: now)
    kept.add(result(2), Nobody(), MODEL)

    async def waiting():
        nonlocal now
        watching = asyncio.create_task(kept.watch(0.001))
        await asyncio.sleep(0.05)
        assert len(kept) == 1
        now = 11.0
        async with asyncio.timeout(10):
            while len(kept):
                await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(waiting())


def test_names_cannot_be_guessed():
    kept = Kept(most=50)
    names = {kept.add(result(2), Nobody(), MODEL) for _ in range(50)}
    assert len(names) == 50
    assert min(len(name) for name in names) >= 24
    with pytest.raises(Refusal) as refusal:
        kept.get("")
    assert (refusal.value.status, refusal.value.code) == (404, "expired")
