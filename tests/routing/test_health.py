"""What is counted of one backend, and what it takes to turn."""

from __future__ import annotations

import pytest

from smtpgate.routing.health import Breaker, Health
from smtpgate.routing.model import BreakerSpec, HealthSpec

PROBES = HealthSpec(rise=2, fall=3)
SPEC = BreakerSpec(connect=3, session=4, min_clients=2, open=30.0)


# --- probes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("", ""),
        ("---", "UUd"),
        ("--+---", "UUUUUd"),  # a good one in between begins the count anew
        ("---++", "UUddU"),
        ("---+-++", "UUddddU"),
        ("+++---", "UUUUUd"),
    ],
)
def test_rise_and_fall(results: str, states: str) -> None:
    health = Health(0.0)
    seen = ""
    for at, result in enumerate(results):
        was = health.up
        changed = health.probed(result == "+", "connect timed out", PROBES, float(at))
        assert changed is (health.up is not was)
        if changed:
            assert health.since == at
        seen += "U" if health.up else "d"
    assert seen == states
    assert health.reason == ("" if health.up else "connect timed out")


def test_another_probers_finding_needs_no_count() -> None:
    health = Health(0.0)
    assert health.told(False, "554 no", 5.0)
    assert (health.up, health.reason, health.since) == (False, "554 no", 5.0)
    assert not health.told(False, "something else", 6.0)
    assert (health.reason, health.since) == ("554 no", 5.0)
    # Whoever probes from here on counts from what was told.
    assert not health.probed(True, "", PROBES, 7.0)
    assert health.probed(True, "", PROBES, 8.0)
    assert health.since == 8.0


# --- breaker --------------------------------------------------------------------------------------------------


def test_connect_failures_count_in_a_row() -> None:
    breaker = Breaker(0.0)
    for _ in range(2):
        breaker.connect_failed()
    assert breaker.due(SPEC) == ""
    breaker.connected()
    for _ in range(2):
        breaker.connect_failed()
    assert breaker.due(SPEC) == ""
    breaker.connect_failed()
    assert breaker.due(SPEC) == "3 failed connects in a row"


@pytest.mark.parametrize(
    ("networks", "due"),
    [
        (["a"] * 100, ""),  # one client that is poison to the backend
        (["a", "b", "a"], ""),
        (["a", "a", "a", "b"], "4 failed sessions in a row, from 2 or more client networks"),
        (["a", "b", "c", "d"], "4 failed sessions in a row, from 2 or more client networks"),
    ],
)
def test_session_failures_count_from_several_networks(networks: list[str], due: str) -> None:
    breaker = Breaker(0.0)
    for network in networks:
        breaker.session_failed(network, SPEC)
    assert breaker.due(SPEC) == due


def test_a_message_that_is_taken_ends_the_row() -> None:
    breaker = Breaker(0.0)
    for network in "abc":
        breaker.session_failed(network, SPEC)
    for _ in range(2):
        breaker.connect_failed()
    assert not breaker.served(SPEC, 1.0)
    breaker.session_failed("d", SPEC)
    breaker.connect_failed()
    assert breaker.due(SPEC) == ""


def test_networks_are_remembered_as_far_as_they_count() -> None:
    breaker = Breaker(0.0)
    for n in range(10_000):
        breaker.session_failed(str(n), SPEC)
    assert breaker.due(SPEC) == "10000 failed sessions in a row, from 2 or more client networks"
    assert len(breaker._networks) == 2


def test_open_half_open_closed() -> None:
    breaker = Breaker(0.0)
    assert breaker.open("why", 100.0)
    assert (breaker.is_open, breaker.reason, breaker.since) == (True, "why", 100.0)
    assert not breaker.half_open(SPEC, 129.9)
    assert not breaker.may_try(SPEC, 129.9)
    assert not breaker.served(SPEC, 129.9)  # a session from before
    assert breaker.is_open
    assert breaker.may_try(SPEC, 130.0)
    breaker.try_one(SPEC, 130.0)
    assert breaker.half_open(SPEC, 130.0)
    assert not breaker.may_try(SPEC, 130.0)
    assert breaker.served(SPEC, 131.0)
    assert (breaker.is_open, breaker.reason, breaker.since) == (False, "", 131.0)
    assert not breaker.served(SPEC, 132.0)


def test_a_trial_that_fails_opens_it_for_as_long_again() -> None:
    breaker = Breaker(0.0)
    breaker.open("why", 100.0)
    breaker.try_one(SPEC, 130.0)
    assert not breaker.open("why", 131.0)
    assert breaker.since == 100.0
    assert not breaker.may_try(SPEC, 160.9)
    assert breaker.may_try(SPEC, 161.0)


def test_a_trial_without_a_verdict_gives_way() -> None:
    breaker = Breaker(0.0)
    breaker.open("why", 100.0)
    breaker.try_one(SPEC, 130.0)
    breaker.tried()
    assert breaker.may_try(SPEC, 130.0)
    breaker.try_one(SPEC, 130.0)
    assert not breaker.may_try(SPEC, 159.9)
    assert breaker.may_try(SPEC, 160.0)  # its client is logged in and says nothing


def test_closing_what_is_closed_forgets_nothing() -> None:
    """Other workers say again and again that they have nothing against a backend."""
    breaker = Breaker(0.0)
    for _ in range(3):
        breaker.connect_failed()
    assert not breaker.close(1.0)
    assert breaker.due(SPEC) == "3 failed connects in a row"


def test_news_from_before_the_last_opening_is_known() -> None:
    breaker = Breaker(0.0)
    assert not breaker.knows(1.0)
    breaker.open("why", 5.0)
    breaker.close(40.0)
    assert breaker.knows(5.0)
    assert not breaker.knows(5.1)
