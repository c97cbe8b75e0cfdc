"""Results kept for questions: for how long, how many, and of how many bytes."""

from types import SimpleNamespace

import pytest

from asymseg.serving.kept import Kept
from asymseg.serving.refusals import Refusal


def result(size):
    return SimpleNamespace(nbytes=size)


def is_there(kept, name):
    try:
        kept.get(name)
    except Refusal as refusal:
        assert (refusal.status, refusal.code) == (404, "expired")
        return False
    return True


def test_what_was_not_used_longest_goes_first():
    kept = Kept(most=2, most_bytes=100)
    first, second = kept.add(result(1), None), kept.add(result(1), None)
    assert is_there(kept, first)
    third = kept.add(result(1), None)
    assert [is_there(kept, name) for name in (first, second, third)] == [True, False, True]


def test_so_many_bytes_and_no_more():
    kept = Kept(most=10, most_bytes=100)
    names = [kept.add(result(40), None) for _ in range(3)]
    assert [is_there(kept, name) for name in names] == [False, True, True]
    assert kept.bytes == 80
    assert kept.add(result(101), None) is None
    assert len(kept) == 2


def test_what_grows_pushes_others_out_and_stays_itself():
    kept = Kept(most=10, most_bytes=100)
    other, growing = kept.add(result(40), None), kept.add(grown := result(40), None)
    grown.nbytes = 300
    kept.tidy()
    assert [is_there(kept, name) for name in (other, growing)] == [False, True]


def test_it_is_forgotten_some_time_after_it_was_last_used():
    now = 0.0
    kept = Kept(seconds=10, clock=lambda: now)
    name = kept.add(result(1), None)
    now = 9.0
    assert is_there(kept, name)
    now = 18.0
    assert is_there(kept, name)
    now = 28.0
    assert not is_there(kept, name)
    assert len(kept) == 0


def test_names_cannot_be_guessed():
    kept = Kept(most=50)
    names = {kept.add(result(0), None) for _ in range(50)}
    assert len(names) == 50
    assert min(len(name) for name in names) >= 24
    with pytest.raises(Refusal):
        kept.get("")
