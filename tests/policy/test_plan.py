"""What each kind of limit asks of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smtpgate.policy.bills import Bill, Bills
from smtpgate.policy.model import Event, Facts, Shape, grown
from smtpgate.policy.newkeys import NewKeys
from smtpgate.policy.plan import Asking, Plan, plan, share, share_of_places, without_store
from smtpgate.policy.rules import Cost, Escalation, Kind, Limit, Limiter, OnError
from smtpgate.policy.store import BanCheck, Charge, Claim, Penalty
from tests.policy.handmade import ANN, NOBODY, STOP, limit


def planned(
    *limits: Limit,
    event: Event = Event.MAIL,
    facts: Facts = ANN,
    banning: tuple[Limit, ...] = (),
    waiting: tuple[str, ...] = (),
    bill_of: Callable[[Limit, str, bool], Bill] = Bill,
    **asking: Any,
) -> Plan:
    return plan(
        event,
        facts,
        limits,
        banning,
        subject_of=NewKeys().chooser(facts, Limiter(), 0.0),
        waiting=lambda key: key in waiting,
        holder=lambda: "node:1",
        asking=Asking(**asking),
        bill_of=bill_of,
    )


def test_each_rate_is_a_charge() -> None:
    found = planned(
        limit("minute", rate=0.5, burst=10.0),
        limit("net", rate=1.0, burst=4.0, key="{net}", shadow=True, cost=2.0),
    )
    assert found.charges == (
        Charge("minute:ann", 0.5, 10.0),
        Charge("net:192.0.2.7", 1.0, 4.0, 2.0, shadow=True),
    )
    assert [(bill.limit.name, bill.subject) for bill in found.bills] == [("minute", "ann"), ("net", "192.0.2.7")]
    assert (found.claims, found.checks, found.capped, found.shapes) == ((), (), (), ())
    assert found.asked == ("minute", "net")


def test_a_limit_whose_key_has_no_value_does_not_concern_the_session() -> None:
    found = planned(limit("u", rate=1.0, burst=1.0), limit("c", amount=1), facts=NOBODY)
    assert (found.charges, found.claims, found.asked, found.asks) == ((), (), (), False)


def test_concurrency_is_a_claim() -> None:
    conns = limit("c", Event.CONNECT, amount=20, deny={"hold": 3.0})
    assert planned(conns, event=Event.CONNECT).claims == (Claim("c:192.0.2.7", 20, "node:1", hold=3.0),)
    assert planned(conns, event=Event.CONNECT, slots=False).claims == ()


def test_a_shape_is_for_whoever_reads_the_message() -> None:
    shaping = limit("up", Event.DATA, kind=Kind.SHAPE, rate=1e6, burst=4e6, deny=None)
    found = planned(shaping, replace(shaping, name="w", shadow=True), event=Event.DATA)
    assert (found.shapes, found.asks) == ((Shape("up", "up:ann", 1e6, 4e6),), False)
    found = planned(replace(shaping, on_error=OnError.ALLOW), event=Event.DATA)
    assert found.shapes == (Shape("up", "up:ann", 1e6, 4e6, local=False),)


@pytest.mark.parametrize(
    ("event", "cost", "facts", "amount", "exceeded"),
    [
        (Event.RCPT, 1.0, {"recipients": 99}, 100, False),
        (Event.RCPT, 1.0, {"recipients": 100}, 100, True),
        (Event.MAIL, 1.0, {"messages": 4}, 5, False),
        (Event.MAIL, 1.0, {"messages": 5}, 5, True),
        (Event.EOD, Cost.BYTES, {"octets": 1000}, 1000, False),
        (Event.EOD, Cost.BYTES, {"octets": 1001}, 1000, True),
        (Event.EOD, Cost.BYTES, {}, 1000, False),
        (Event.EOD, Cost.RECIPIENTS, {"octets": 9, "recipients": 3}, 3, False),
        (Event.EOD, Cost.RECIPIENTS, {"octets": 1, "recipients": 4}, 3, True),
    ],
)
def test_a_cap_is_compared_with_the_facts(
    event: Event, cost: float | Cost, facts: dict[str, int], amount: int, exceeded: bool
) -> None:
    cap = limit("m", event, kind=Kind.MAX, amount=amount, cost=cost)
    found = planned(cap, event=event, facts=grown(ANN, **facts))
    assert (bool(found.capped), found.asks, found.asked) == (exceeded, False, ("m",))


def test_where_a_cap_refuses_the_store_is_asked_for_what_only_watches() -> None:
    cap = limit("m", kind=Kind.MAX, amount=0)
    paying, watching = limit("r", rate=1.0, burst=1.0), limit("w", rate=1.0, burst=1.0, shadow=True)
    held, banning = limit("c", amount=1), limit("b", rate=1.0, burst=1.0, deny={"ban": 60.0})
    found = planned(paying, cap, watching, held, banning=(banning,))
    assert [charge.key for charge in found.charges] == ["w:ann"]
    assert (found.claims, found.checks, len(found.capped)) == ((), (), 1)
    assert found.asked == ("r", "m", "w", "c")
    found = planned(paying, replace(cap, shadow=True), watching, held, banning=(banning,))
    assert [charge.key for charge in found.charges] == ["r:ann", "w:ann"]
    assert (len(found.claims), len(found.checks), len(found.capped)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("cost", "facts", "tokens"),
    [
        (3.0, {}, 3.0),
        (Cost.BYTES, {"octets": 5000}, 5000.0),
        (Cost.BYTES, {}, 0.0),
        (Cost.RECIPIENTS, {"recipients": 7}, 7.0),
    ],
)
def test_cost(cost: float | Cost, facts: dict[str, int], tokens: float) -> None:
    eod = limit("e", Event.EOD, rate=1.0, burst=1e6, cost=cost)
    assert planned(eod, event=Event.EOD, facts=grown(ANN, **facts)).charges[0].cost == tokens


def test_distinct_is_a_member_and_costs_in_full_where_it_has_no_value() -> None:
    fails = limit("f", Event.AUTH_FAIL, rate=1.0, burst=1.0, key="{net}|{login}", distinct="{password_mac}")
    tried = grown(ANN, password_mac="0badcafe")
    charge = planned(fails, event=Event.AUTH_FAIL, facts=tried).charges[0]
    assert (charge.key, charge.member, charge.cost) == ("f:192.0.2.7|ann", "0badcafe", 1.0)
    charge = planned(fails, event=Event.AUTH_FAIL, facts=ANN).charges[0]
    assert (charge.key, charge.member, charge.cost) == ("f:192.0.2.7|ann", None, 1.0)


@pytest.mark.parametrize(
    ("asking", "hold", "queued"),
    [
        ({}, 5.0, True),
        ({"turn": True}, 0.0, False),
        ({"turn": True, "hold": 3.0}, 3.0, False),
        ({"hold": 9.0}, 5.0, True),
        ({"hold": 0.0}, 0.0, True),
    ],
)
def test_who_may_be_held_and_who_stands_behind_others(asking: dict[str, Any], hold: float, queued: bool) -> None:
    slow = limit("s", rate=1.0, burst=1.0, deny={"hold": 5.0})
    charge = planned(slow, waiting=("s:ann",), **asking).charges[0]
    assert (charge.hold, charge.queued) == (hold, queued)
    assert not planned(slow, waiting=("s:bob",), **asking).charges[0].queued
    assert not planned(replace(slow, shadow=True), waiting=("s:ann",), **asking).charges[0].queued
    places = limit("c", amount=1, deny={"hold": 5.0})
    claim = planned(places, waiting=("c:ann",), **asking).claims[0]
    assert (claim.hold, claim.queued) == (hold, queued)
    assert not planned(replace(places, shadow=True), waiting=("c:ann",), **asking).claims[0].queued


def test_what_a_refusal_brings_about() -> None:
    after = Escalation(50, 600.0, STOP, close=True, ban=3600.0)
    one = limit("u", rate=1.0, burst=1.0, deny={"ban": 60.0, "after": after})
    assert planned(one).charges[0].penalty == Penalty(
        subject="ann",
        note="u p.yaml:u",
        ban=60.0,
        after="u/after:ann",
        denials=50.0,
        within=600.0,
        after_ban=3600.0,
        after_note="u/after p.yaml:u",
    )
    banning = limit("c", amount=1, deny={"ban": 60.0})
    assert planned(banning).claims[0].penalty == Penalty("ann", "c p.yaml:c", 60.0)
    assert planned(replace(one, shadow=True), limit("plain", rate=1.0, burst=1.0)).charges[0].penalty is None
    assert planned(limit("plain", rate=1.0, burst=1.0)).charges[0].penalty is None


def test_nobody_is_banned_for_the_neighbours() -> None:
    after = Escalation(50, 600.0, STOP, close=True, ban=3600.0)
    one = limit("n", Event.CONNECT, rate=1.0, burst=1.0, deny={"ban": 60.0, "after": after})
    found = plan(
        Event.CONNECT,
        ANN,
        [one],
        [],
        subject_of=lambda _: ("192.0.2.0/24", False),
        waiting=lambda key: False,
        holder=str,
        asking=Asking(),
    )
    penalty = found.charges[0].penalty
    assert penalty is not None
    assert (penalty.ban, penalty.after_ban, penalty.after) == (0.0, 0.0, "n/after:192.0.2.0/24")


def test_bans_are_asked_for_once_a_subject() -> None:
    deny = {"ban": 60.0}
    one, two = (limit(name, Event.AUTH_FAIL, rate=1.0, burst=1.0, deny=deny) for name in ("one", "two"))
    pair = limit("pair", Event.AUTH_FAIL, rate=1.0, burst=1.0, deny=deny, key="{net}|{login}")
    watching = replace(one, name="w", shadow=True)
    found = planned(event=Event.AUTH, banning=(one, pair, watching, two))
    assert found.checks == (BanCheck("192.0.2.7", ("one", "two")), BanCheck("192.0.2.7|ann", ("pair",)))
    assert [bill.limit.name for bill in found.banning] == ["one", "pair", "w", "two"]
    nameless = planned(event=Event.CONNECT, banning=(pair,), facts=Facts("192.0.2.7"))
    assert (nameless.checks, nameless.asks) == ((), False)


@pytest.mark.parametrize(("part", "burst"), [(1.0, 4.0), (0.5, 2.0), (0.25, 1.0), (0.01, 1.0)])
def test_a_share_still_pays_for_one(part: float, burst: float) -> None:
    assert share([Charge("k", 2.0, 4.0)], part) == (Charge("k", 2.0 * part, burst),)


def test_a_share_does_not_pay_for_what_the_whole_could_not() -> None:
    assert share([Charge("k", 2.0, 4.0, cost=9.0)], 0.5) == (Charge("k", 1.0, 4.0, cost=9.0),)


@pytest.mark.parametrize(("part", "amount"), [(1.0, 5), (0.5, 2), (0.1, 1)])
def test_a_share_of_places_is_at_least_one(part: float, amount: int) -> None:
    assert share_of_places([Claim("k", 5, "h")], part) == (Claim("k", amount, "h"),)


def test_a_bill_that_was_made_before_is_used_again() -> None:
    bills, one = Bills(), limit("u", rate=1.0, burst=1.0, deny={"hold": 5.0})
    first, again = (planned(one, bill_of=bills.of).charges[0] for _ in range(2))
    assert first is again
    assert planned(one, bill_of=bills.of, turn=True).charges[0] == replace(first, hold=0.0)
    assert planned(one, bill_of=bills.of, waiting=("u:ann",)).charges[0] == replace(first, queued=True)


def test_without_the_store_only_local_limits_are_asked() -> None:
    limits = [limit(e.value, rate=1.0, burst=1.0, on_error=e) for e in OnError]
    limits += [limit(f"c.{e.value}", amount=1, on_error=e) for e in OnError]
    left = without_store(planned(*limits), 1.0)
    assert [bill.limit.name for bill in left.bills] == [charge.key.partition(":")[0] for charge in left.charges]
    assert ([c.key for c in left.charges], [c.key for c in left.claims]) == (["local:ann"], ["c.local:ann"])
    part = without_store(planned(limit("r", rate=2.0, burst=8.0), limit("c", amount=5)), 0.5)
    assert (part.charges, part.claims) == ((Charge("r:ann", 1.0, 4.0),), (Claim("c:ann", 2, "node:1"),))
