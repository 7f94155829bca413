"""Greenlets that serve again and again: each call in one of its own, and none that is kept too long."""

from __future__ import annotations

import gc
import weakref

import gevent
import pytest
from gevent.event import Event

from smtpgate.drivers.servants import Servants


class Work:
    """What is served: waits until it is told to go on, if it is to wait at all."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.began: list[tuple[object, ...]] = []
        self.by: list[object] = []
        self.cut = 0

    def __call__(self, *arguments: object) -> None:
        self.began.append(arguments)
        self.by.append(gevent.getcurrent())
        try:
            self.go_on.wait()
        except gevent.GreenletExit:
            self.cut += 1  # and it ends in order, as a Gate does

    def turn(self) -> None:
        """Whoever is ready runs, and whoever that makes ready."""
        for _ in range(3):
            gevent.sleep(0)


@pytest.fixture
def work() -> Work:
    return Work()


def test_a_call_does_not_run_at_once_and_has_its_arguments(work: Work) -> None:
    servants = Servants(work)
    servants.call(1, "a")
    assert (work.began, len(servants)) == ([], 1)
    work.turn()
    assert work.began == [(1, "a")]


def test_calls_at_once_have_a_greenlet_each_and_the_next_ones_have_the_same(work: Work) -> None:
    servants = Servants(work)
    for number in range(3):
        servants.call(number)
    work.turn()
    assert (len(servants), servants.resting, len(set(work.by))) == (3, 0, 3)
    work.go_on.set()
    work.turn()
    assert (len(servants), servants.resting) == (0, 3)
    for number in range(3, 5):
        servants.call(number)
    assert (len(servants), servants.resting) == (2, 1)
    work.turn()
    assert work.began == [(number,) for number in range(5)]
    assert set(work.by[3:]) < set(work.by[:3])


def test_no_more_rest_than_may(work: Work) -> None:
    servants = Servants(work, most_resting=2)
    for number in range(5):
        servants.call(number)
    work.turn()
    work.go_on.set()
    work.turn()
    assert (len(servants), servants.resting) == (0, 2)
    assert [one.dead for one in work.by].count(True) == 3  # type: ignore[attr-defined]


def test_what_was_served_does_not_stay_in_memory(work: Work) -> None:
    class Connection:
        """Something that can be referred to weakly."""

    def serve(connection: Connection) -> None:
        """Ends at once."""

    servants = Servants(serve)
    connection = Connection()
    alive = weakref.ref(connection)
    servants.call(connection)
    del connection
    work.turn()
    gc.collect()
    assert (servants.resting, alive()) == (1, None)


def test_join_waits_for_those_who_serve_and_no_longer_than_it_may(work: Work) -> None:
    servants = Servants(work)
    servants.join(5.0)  # nobody serves
    servants.call()
    work.turn()
    servants.join(0.01)
    assert len(servants) == 1
    gevent.spawn(work.go_on.set)
    with gevent.Timeout(5.0):
        servants.join(60.0)
    assert len(servants) == 0


def test_kill_ends_those_who_serve_and_nobody_rests_afterwards(work: Work) -> None:
    servants = Servants(work)
    for _ in range(3):
        servants.call()
    work.turn()
    with gevent.Timeout(5.0):
        servants.kill(60.0)
    assert (work.cut, len(servants), servants.resting) == (3, 0, 0)
    assert all(one.dead for one in work.by)  # type: ignore[attr-defined]


def test_one_that_was_woken_for_a_call_serves_it_before_it_is_killed(work: Work) -> None:
    servants = Servants(work)
    work.go_on.set()
    servants.call("first")
    work.turn()
    work.go_on.clear()
    servants.call("second")
    servants.kill(5.0)
    assert (work.began, work.cut, len(servants)) == ([("first",), ("second",)], 1, 0)
