"""One timer for many waits: it must end the one that is over, and no other."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.alarm import Alarm

CLOCK = SystemClock()


class Ends:
    """A connected pair: what its watcher sees is said by `say`."""

    def __init__(self) -> None:
        self.near, self.far = gevent.socket.socketpair()
        self.watcher = self.near._read_event
        self.alarm = Alarm()

    def wait(self, seconds: float) -> None:
        self.alarm.wait(self.watcher, Deadline(CLOCK, seconds))

    def say(self) -> None:
        self.far.sendall(b"x")

    def hear(self) -> None:
        self.near.recv(1)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.alarm.close()
    ends.near.close()
    ends.far.close()


def took(ends: Ends, seconds: float) -> float:
    """How long a wait for nothing took."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ends.wait(seconds)
    return time.monotonic() - began


def test_a_wait_that_nothing_ends(ends: Ends) -> None:
    assert 0.02 <= took(ends, 0.02) < 10.0


def test_a_wait_that_has_what_it_waits_for(ends: Ends) -> None:
    ends.say()
    ends.wait(5.0)


def test_a_shorter_wait_behind_a_longer_one(ends: Ends) -> None:
    ends.say()
    ends.wait(5.0)
    ends.hear()
    assert 0.02 <= took(ends, 0.02) < 10.0


def test_a_longer_wait_behind_a_shorter_one_is_not_cut(ends: Ends) -> None:
    ends.say()
    ends.wait(0.02)
    ends.hear()
    assert 0.06 <= took(ends, 0.06) < 10.0


def test_nobody_is_thrown_at_between_two_waits(ends: Ends) -> None:
    ends.say()
    ends.wait(0.02)
    ends.hear()
    gevent.sleep(0.04)
    assert 0.02 <= took(ends, 0.02) < 10.0


def test_what_has_arrived_when_the_time_runs_out_has_arrived(ends: Ends) -> None:
    gevent.spawn(ends.say)
    busy = gevent.spawn_later(0.0, lambda: _spin(0.03))
    ends.wait(0.02)
    busy.join()


def test_a_time_that_is_over(ends: Ends) -> None:
    assert took(ends, 0.0) < 10.0


def test_it_may_be_closed_twice_and_used_again(ends: Ends) -> None:
    ends.alarm.close()
    ends.alarm.close()
    assert 0.02 <= took(ends, 0.02) < 10.0


def _spin(seconds: float) -> None:
    """The hub gets no turn meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
