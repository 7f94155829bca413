"""A snapshot reaches limits, routes and pools, and nothing sees half of one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from fakes import ManualClock

from smtpgate.drivers.policies import Policies
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Event, Facts
from smtpgate.routing.model import PoolSpec
from smtpgate.session.ports import PoolTarget
from smtpgate.snapshot import Snapshot, build

LIMITED = b"""
version: 1
limits:
  few: {event: mail, rate: 1/1h, burst: 1, key: "{net}", deny: {reply: "450 4.7.1 slow down"}}
routes:
  - {name: partner, match: {rcpt_domain: partner.example}, pool: b}
  - {name: default, match: {}, pool: a}
pools:
  a: {backends: [{name: a1, addr: "127.0.0.1:25"}]}
  b: {backends: [{name: b1, addr: "127.0.0.2:25"}]}
"""
FREE = b"version: 1\n"
FACTS = Facts("192.0.2.7", sender="a@a.example", sender_domain="a.example")
TO_PARTNER = Facts("192.0.2.7", sender="", sender_domain="", rcpt="x@partner.example", rcpt_domain="partner.example")


class Room:
    """Policies with a real engine; remembers the pools of each snapshot, and what was routed meanwhile."""

    def __init__(self) -> None:
        clock = ManualClock()
        self.pools: list[list[str]] = []
        self.meanwhile: list[PoolTarget | None] = []
        self.policies = Policies(Engine(MemoryBuckets(clock), clock, lambda: 0.0), self._replace)

    def _replace(self, pools: Mapping[str, PoolSpec]) -> None:
        self.pools.append(sorted(pools))
        self.meanwhile.append(self.policies.route(TO_PARTNER))


def snapshot(text: bytes) -> Snapshot:
    return build([("policies/p.yaml", text)])


@pytest.fixture
def room() -> Room:
    return Room()


def test_before_the_first_snapshot_nothing_is_limited_and_no_route_leads_anywhere(room: Room) -> None:
    assert room.policies.decide(Event.MAIL, FACTS).allowed
    assert room.policies.route(TO_PARTNER) is None


def test_a_snapshot_reaches_limits_routes_and_pools(room: Room) -> None:
    room.policies.apply(snapshot(LIMITED))
    assert [room.policies.decide(Event.MAIL, FACTS).allowed for _ in range(2)] == [True, False]
    assert room.policies.route(TO_PARTNER) == PoolTarget("b", "partner")
    assert room.pools == [["a", "b"]]


def test_a_recipient_that_is_not_known_yet_takes_the_first_route_that_certainly_matches(room: Room) -> None:
    room.policies.apply(snapshot(LIMITED))
    assert room.policies.route(FACTS) == PoolTarget("a", "default")


def test_the_next_snapshot_takes_the_place_of_all_of_the_last(room: Room) -> None:
    room.policies.apply(snapshot(LIMITED))
    room.policies.decide(Event.MAIL, FACTS)
    room.policies.apply(snapshot(FREE))
    assert room.policies.decide(Event.MAIL, FACTS).allowed
    assert room.policies.route(TO_PARTNER) is None
    room.policies.apply(snapshot(LIMITED))
    assert not room.policies.decide(Event.MAIL, FACTS).allowed  # balances outlive their limit
    # Whoever hears of new pools finds the routes that lead to them, not those of before.
    assert room.meanwhile == [PoolTarget("b", "partner"), None, PoolTarget("b", "partner")]


def test_what_is_paid_comes_back_and_what_is_asked_reaches_the_engine(room: Room) -> None:
    room.policies.apply(snapshot(LIMITED.replace(b"1/1h", b"6/1m").replace(b"deny: {", b"deny: {hold: 20s, ")))
    [paid] = room.policies.decide(Event.MAIL, FACTS).paid
    refused = room.policies.decide(Event.MAIL, FACTS)
    assert (refused.denial.hold, room.policies.decide(Event.MAIL, FACTS, hold=0.0).denial.hold) == (20.0, 0.0)
    room.policies.refund([paid], ours=True)
    assert room.policies.decide(Event.MAIL, FACTS).allowed


@pytest.mark.parametrize("said", ["defer", "first"])
def test_mixed_recipients_as_the_snapshot_says(room: Room, said: str) -> None:
    assert room.policies.mixed_recipients == "defer"
    room.policies.apply(snapshot(LIMITED + f"mixed_recipients: {said}\n".encode()))
    assert room.policies.mixed_recipients == said


def test_what_no_limit_is_about_need_not_be_asked(room: Room) -> None:
    asked = [event for event in Event if room.policies.asks(event)]
    room.policies.apply(snapshot(LIMITED))
    assert (asked, [event for event in Event if room.policies.asks(event)]) == ([], [Event.MAIL])
    room.policies.apply(snapshot(FREE))
    assert not room.policies.asks(Event.MAIL)
