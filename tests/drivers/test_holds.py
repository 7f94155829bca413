"""Greenlets in line: woken in order, at once, and all of them when the process drains."""

from __future__ import annotations

import time

import gevent
import pytest
from turns import turns

from smtpgate.drivers.holds import Lines, Place

SOON = 15.0
"""Seconds for what happens at once, on a busy machine."""


def stand(lines: Lines, key: str, served: list[int], number: int, *, patient: bool = True) -> None:
    """Wait for the turn, note it, and let everybody else run before leaving."""
    place = lines.join(key, patient=patient)
    assert place is not None
    try:
        while not place.first:
            if not place.rest(SOON):
                return
        served.append(number)
        gevent.sleep(0)
    finally:
        place.leave()


def test_they_are_served_in_the_order_in_which_they_came() -> None:
    lines, served = Lines(), list[int]()
    waiters = [gevent.spawn(stand, lines, "k", served, n) for n in range(20)]
    gevent.joinall(waiters, timeout=30, raise_error=True)
    assert served == list(range(20))
    assert len(lines) == 0
    assert not lines.waiting("k")


def test_the_first_rests_for_as_long_as_it_says() -> None:
    place = Lines().join("k")
    began = time.monotonic()
    assert place.rest(0.05)
    assert 0.05 <= time.monotonic() - began < SOON
    assert place.first


def test_whoever_comes_to_the_front_is_woken_at_once() -> None:
    lines = Lines()
    first, second = lines.join("k"), lines.join("k")
    gevent.spawn_later(0.01, first.leave)
    began = time.monotonic()
    assert second.rest(60.0)
    assert time.monotonic() - began < SOON
    assert second.first


def test_one_that_came_to_the_front_before_it_rested_does_not_rest() -> None:
    lines = Lines()
    first, second = lines.join("k"), lines.join("k")
    first.leave()
    began = time.monotonic()
    assert second.rest(60.0)
    assert time.monotonic() - began < SOON
    # Only once: from now on it waits for its tokens.
    began = time.monotonic()
    assert second.rest(0.02)
    assert time.monotonic() - began >= 0.02


def test_whoever_is_killed_leaves_its_place_to_the_next() -> None:
    lines, served = Lines(), list[int]()
    first = lines.join("k")
    second = gevent.spawn(stand, lines, "k", served, 2)
    third = gevent.spawn(stand, lines, "k", served, 3)
    turns()
    second.kill()
    first.leave()
    third.join(SOON)
    assert served == [3]
    assert len(lines) == 0


def test_a_drain_ends_the_waiting_of_those_who_are_not_patient() -> None:
    lines = Lines()
    patient, other = lines.join("k", patient=True), lines.join("j", patient=False)
    gevent.spawn_later(0.01, lines.drain)
    began = time.monotonic()
    assert not other.rest(60.0)
    assert time.monotonic() - began < SOON
    assert not other.rest(60.0)  # and it stays so
    assert patient.rest(0.01)
    # Whoever comes afterwards need not begin to wait.
    late = lines.join("j", patient=False)
    assert not late.rest(60.0)


def test_too_many_are_not_let_in() -> None:
    lines = Lines(most=3, most_a_key=2)
    places = [lines.join("k"), lines.join("k"), lines.join("j")]
    assert all(isinstance(place, Place) for place in places)
    assert lines.join("k") is None
    assert lines.join("i") is None
    places[0].leave()
    places[0].leave()
    assert lines.join("i") is not None
    assert lines.join("h") is None


def test_what_is_thrown_into_a_rest_comes_out() -> None:
    class Gone(Exception):
        pass

    place = Lines().join("k")
    resting = gevent.spawn(place.rest, 60.0)
    gevent.sleep(0)
    resting.kill(Gone, block=True)
    with pytest.raises(Gone):
        resting.get()


def test_each_place_that_is_taken_is_told_of() -> None:
    joined: list[str] = []
    lines = Lines(most=2, joined=joined.append)
    assert [lines.join(key) is None for key in ("a", "b", "c")] == [False, False, True]
    assert joined == ["a", "b"]
