"""drivers/authlane.py: who has to wait for a turn, and who never does."""

from __future__ import annotations

from contextlib import ExitStack

import gevent
import pytest
from fakes import ManualClock

from smtpgate.drivers.authlane import MAX_KEPT, MEMORY, REST, Lane
from smtpgate.drivers.turns import OverloadError
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthRefused, AuthUnavailable, AuthWait
from smtpgate.session.streams import Peer

GRANTED = AuthGranted(server=("192.0.2.10", 25))
WRONG = AuthRefused("535 5.7.8", "Authentication credentials invalid", 1.0)
THROTTLED = AuthRefused("454 4.7.0", "too many failed logins", 1.0)


def query(client: str = "192.0.2.7", user: bytes = b"ann", method: str = "plain") -> AuthQuery:
    peer = Peer(client, 40000, "192.0.2.1", 25)
    return AuthQuery(method=method, attempt=1, peer=peer, client_host="[UNAVAILABLE]", user=user)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lane(clock: ManualClock) -> Lane:
    """With one place, and none to wait in; it does not rest."""
    return Lane(clock, places=1, waiting=0, rest=0.0)


def waits(lane: Lane, asked: AuthQuery) -> bool:
    """Whether it has to wait for its turn while another one is in the lane."""
    with ExitStack() as held:
        held.enter_context(lane._turns.attempt("198.51.100.1"))
        try:
            held.enter_context(lane.turn(asked))
        except OverloadError:
            return True
    return False


def test_nobody_waits_who_has_not_failed(lane: Lane) -> None:
    assert not waits(lane, query())
    lane.heard(query(), GRANTED)
    assert not waits(lane, query())


def test_whoever_has_failed_waits_for_a_turn_with_all_of_its_network(lane: Lane) -> None:
    lane.heard(query("2001:db8:1:2::3"), WRONG)
    assert waits(lane, query("2001:db8:1:2::3"))
    assert waits(lane, query("2001:db8:1:ffff::9", b"bob"))
    assert not waits(lane, query("2001:db8:2::3"))
    with lane.turn(query("2001:db8:1:2::3")):
        pass  # the lane is free


@pytest.mark.parametrize("answer", [THROTTLED, AuthWait(1.0), AuthUnavailable("down")])
def test_what_is_no_verdict_on_the_client_is_none(lane: Lane, answer: AuthAnswer) -> None:
    lane.heard(query(), answer)
    assert not waits(lane, query())
    lane.heard(query(), WRONG)
    lane.heard(query(), answer)
    assert waits(lane, query())


def test_a_name_that_has_succeeded_there_does_not_wait_for_its_neighbour(lane: Lane) -> None:
    lane.heard(query(user=b"ann"), GRANTED)
    lane.heard(query(user=b"bob"), WRONG)
    assert not waits(lane, query(user=b"ann"))
    assert waits(lane, query(user=b"bob"))
    lane.heard(query(user=b"bob"), GRANTED)
    assert not waits(lane, query(user=b"bob"))
    assert waits(lane, query(user=b"carol"))
    lane.heard(query(user=b"ann"), WRONG)
    assert waits(lane, query(user=b"ann"))


def test_a_relay_that_asks_for_an_envelope_guesses_nothing(lane: Lane) -> None:
    lane.heard(query(method="none"), WRONG)
    assert not waits(lane, query())
    lane.heard(query(), WRONG)
    assert not waits(lane, query(method="none"))


def test_a_network_is_known_from_which_somebody_has_logged_in(lane: Lane, clock: ManualClock) -> None:
    assert not lane.is_known(query())
    lane.heard(query(), WRONG)
    assert not lane.is_known(query())
    lane.heard(query(user=b"bob"), GRANTED)
    assert lane.is_known(query())
    assert not lane.is_known(query("192.0.2.8"))
    lane.heard(query(user=b"bob"), WRONG)
    assert lane.is_known(query())
    clock.sleep(MEMORY)
    assert not lane.is_known(query())


def test_it_is_forgotten_after_a_while(lane: Lane, clock: ManualClock) -> None:
    lane.heard(query(), WRONG)
    clock.sleep(MEMORY - 1)
    assert waits(lane, query())
    clock.sleep(1)
    assert not waits(lane, query())


def test_no_more_are_kept_than_there_is_room_for(lane: Lane) -> None:
    for number in range(MAX_KEPT + 1):
        lane.heard(query(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"), WRONG)
    assert not waits(lane, query("10.0.0.0"))
    assert waits(lane, query("10.0.0.1"))


def test_a_place_rests_behind_a_guess_and_nobody_else_waits_for_it(clock: ManualClock) -> None:
    lane = Lane(clock, places=1, waiting=0, rest=REST)
    lane.heard(query(), WRONG)
    with lane.turn(query()):
        gevent.sleep(0.01)
    with pytest.raises(OverloadError), lane.turn(query()):
        pass
    with lane.turn(query("192.0.2.8")):
        pass
    gevent.sleep(REST * 0.1)
    with lane.turn(query()):
        pass


def test_a_turn_comes(clock: ManualClock) -> None:
    lane = Lane(clock, places=1, waiting=1, rest=0.0)
    lane.heard(query(), WRONG)
    order: list[int] = []

    def ask(number: int) -> None:
        with lane.turn(query()):
            order.append(number)
            gevent.sleep(0.001)

    asking = [gevent.spawn(ask, number) for number in range(2)]
    gevent.joinall(asking, timeout=10, raise_error=True)
    assert order == [0, 1]
