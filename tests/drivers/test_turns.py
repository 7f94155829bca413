"""drivers/turns.py: who is next, who is told to come back, and that no slot is lost."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent.event import Event

from smtpgate.drivers.turns import OverloadError, Turns, network_of


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::3", "2001:db8:1::/48"),
        ("2001:db8:2::3", "2001:db8:2::/48"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix:", "unix:"),
    ],
)
def test_whose_attempts_share_turns(client: str, network: str) -> None:
    assert network_of(client) == network


class Crowd:
    """Attempts that note when they get in, refuse what is refused, and stay until they are let go."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self.turns = Turns(at_once=at_once, waiting=waiting, max_wait=10.0)
        self.order: list[str] = []
        self.refused: list[str] = []
        self.inside = self.most = 0
        self.leave = Event()
        self.greenlets: list[gevent.Greenlet] = []

    def enter(self, *networks: str) -> None:
        for network in networks:
            self.greenlets.append(gevent.spawn(self._attempt, network))
        gevent.sleep(0.001)

    def _attempt(self, network: str) -> None:
        try:
            with self.turns.attempt(network):
                self.order.append(network)
                self.inside += 1
                self.most = max(self.most, self.inside)
                self.leave.wait()
                gevent.sleep(0)
                self.inside -= 1
        except OverloadError as error:
            self.refused.append(f"{network}: {error}")

    def end(self) -> None:
        self.leave.set()
        gevent.joinall(self.greenlets, timeout=10)
        assert all(one.ready() for one in self.greenlets)
        # Every slot came back, and nothing waits.
        free = self.turns._free
        with self.turns.attempt("after"):
            assert self.turns._free == free - 1
        assert (self.turns._waiting, self.turns._queues) == (0, {})


def test_no_more_than_at_once_and_in_order() -> None:
    crowd = Crowd(at_once=2, waiting=10)
    crowd.enter(*["a"] * 8)
    assert crowd.order == ["a", "a"]
    crowd.end()
    assert (crowd.most, len(crowd.order), crowd.refused) == (2, 8, [])


def test_a_stranger_with_many_costs_others_the_wait_of_one() -> None:
    crowd = Crowd(at_once=1, waiting=20)
    crowd.enter(*["bad"] * 10, "a", "b", "a")
    crowd.end()
    assert crowd.order == ["bad", "bad", "a", "b", "bad", "a", *["bad"] * 7]


def test_when_the_queue_is_full_who_waits_with_most_gives_way() -> None:
    crowd = Crowd(at_once=1, waiting=4)
    crowd.enter(*["bad"] * 5)
    crowd.enter("a", "b")
    assert crowd.refused == ["bad: 4 attempts wait, most of them from bad"] * 2
    crowd.enter("bad")
    assert crowd.refused[2:] == ["bad: 4 attempts wait; at most 4 may"]
    crowd.end()
    assert crowd.order == ["bad", "bad", "a", "b", "bad"]


def test_nobody_gives_way_to_who_would_wait_with_as_many() -> None:
    crowd = Crowd(at_once=1, waiting=3)
    crowd.enter("a", "b", "c", "d")
    crowd.enter("e", "a")
    assert crowd.refused == ["e: 3 attempts wait; at most 3 may", "a: 3 attempts wait; at most 3 may"]
    crowd.end()
    assert crowd.order == ["a", "b", "c", "d"]


def test_without_a_queue_beyond_the_slots_is_refused_at_once() -> None:
    crowd = Crowd(at_once=1, waiting=0)
    crowd.enter("a", "b")
    assert crowd.refused == ["b: 0 attempts wait; at most 0 may"]
    crowd.end()


def test_the_place_of_one_that_goes_away_while_it_waits_comes_back() -> None:
    crowd = Crowd(at_once=1, waiting=1)
    crowd.enter("a", "b")
    crowd.greenlets[1].kill()
    crowd.enter("c")
    crowd.end()
    assert (crowd.order, crowd.refused) == (["a", "c"], [])


def test_a_slot_given_to_one_that_goes_away_goes_on() -> None:
    turns = Turns(at_once=1, waiting=2, max_wait=10.0)
    order: list[str] = []

    def attempt(name: str) -> None:
        with turns.attempt(name):
            order.append(name)

    with turns.attempt("a"):
        second, third = gevent.spawn(attempt, "b"), gevent.spawn(attempt, "c")
        gevent.sleep(0)
    # The slot is b's now, but b has not run yet.
    second.kill(block=False)
    gevent.joinall([second, third], timeout=10, raise_error=False)
    assert "c" in order
    with turns.attempt("d"):
        pass


@pytest.mark.parametrize("most", [10.0, 0.0])
def test_a_slot_rests_for_as_long_as_its_attempt_asks_for(most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """most: MAX_REST."""
    monkeypatch.setattr("smtpgate.drivers.turns.MAX_REST", most)
    turns = Turns(at_once=1, waiting=1, max_wait=10.0, rest=4.0)
    began = time.monotonic()
    with turns.attempt("a"):
        gevent.sleep(0.05)
    with turns.attempt("b"):
        waited = time.monotonic() - began
    assert (waited >= 5 * 0.05) is (most > 0.0)
    gevent.sleep(0.01)
    assert most > 0.0 or turns._free == 1


def test_who_has_waited_too_long_is_told_to_come_back_and_the_next_one_gets_the_turn() -> None:
    turns = Turns(at_once=1, waiting=2, max_wait=0.05)
    go_on = Event()
    entered: list[str] = []

    def attempt(network: str) -> None:
        with turns.attempt(network):
            entered.append(network)
            go_on.wait()

    first = gevent.spawn(attempt, "a")
    late = gevent.spawn(attempt, "b")
    with pytest.raises(OverloadError, match=r"\Ano turn within 0\.05 s\Z"):
        late.get(timeout=10)
    fresh = gevent.spawn(attempt, "c")
    gevent.sleep(0.01)
    go_on.set()
    gevent.joinall([first, fresh], timeout=10, raise_error=True)
    assert entered == ["a", "c"]
