"""How much is taken on, and that all of it is given back."""

import pytest

from asymseg.errors import ConfigError
from asymseg.serving.refusals import Refusal
from asymseg.serving.room import Limits, Room


def test_requests_beyond_the_queue_are_told_to_come_back():
    room = Room(Limits(queue=2))
    with room.place() as first, room.place() as second, room.place() as late:
        first.enter()
        second.enter()
        with pytest.raises(Refusal) as refusal, room.place():
            pass
        assert (refusal.value.status, refusal.value.code, refusal.value.headers) == (503, "busy", {"retry-after": "1"})
        with pytest.raises(Refusal, match="as many requests are in work as may be, 2;"):
            late.enter()
    with room.place() as next_one:
        assert room.requests == 0
        next_one.enter()
        assert room.requests == 1


def test_who_was_let_in_before_it_stops_is_finished():
    room = Room(Limits())
    with room.place() as place:
        room.stopping = True
        place.enter()
        assert room.requests == 1


def test_bytes_and_pixels_of_all_requests_together_are_bounded():
    room = Room(Limits(max_bytes=10, max_pixels=100))
    with room.place() as first, room.place() as second:
        first.take_bytes(75)
        second.take_pixels(790)
        for take, count in ((second.take_bytes, 6), (first.take_pixels, 11)):
            with pytest.raises(Refusal, match="memory"):
                take(count)
        second.take_bytes(5)
        assert (room.bytes, room.pixels) == (80, 790)
    assert (room.requests, room.bytes, room.pixels) == (0, 0, 0)


def test_a_fault_gives_its_place_back():
    room = Room(Limits(max_bytes=1))
    with pytest.raises(Refusal), room.place() as place:  # noqa: PT012
        place.take_bytes(5)
        place.take_bytes(5)
    assert (room.requests, room.bytes) == (0, 0)


def test_nothing_new_is_taken_while_it_stops():
    room = Room(Limits())
    room.stopping = True
    with pytest.raises(Refusal) as refusal, room.place():
        pass
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "stopping", 1)


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "queue", "batch", "timeout"])
def test_limits_are_above_zero(name):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: 0.0 if name == "timeout" else 0})


def test_no_number_is_no_limit():
    with pytest.raises(ConfigError, match="timeout"):
        Limits(timeout=float("nan"))
