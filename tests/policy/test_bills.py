"""What a limit asks of one subject, and how long that is remembered."""

from dataclasses import replace

import pytest

import smtpgate.policy.bills
from smtpgate.policy.bills import Bill, Bills
from smtpgate.policy.model import Event, Paid
from smtpgate.policy.rules import Cost, Escalation
from smtpgate.policy.store import Charge, Penalty
from tests.policy.handmade import STOP, limit

SLOW = limit("slow", rate=0.5, burst=10.0, cost=2.0, refund_rejected=True, deny={"hold": 5.0})
BANNING = limit(
    "b", rate=1.0, burst=1.0, deny={"ban": 60.0, "after": Escalation(50, 600.0, STOP, close=True, ban=3600.0)}
)


def test_a_bill_is_what_most_events_ask() -> None:
    bill = Bill(SLOW, "ann")
    assert (bill.key, bill.own, bill.plain) == ("slow:ann", True, True)
    assert bill.charge == Charge("slow:ann", 0.5, 10.0, 2.0, hold=5.0)
    assert bill.paid == Paid("slow", "slow:ann", 0.5, 10.0, 2.0, rejected=True)


def test_what_each_event_has_anew_is_not_in_it() -> None:
    size = limit("s", Event.EOD, rate=1.0, burst=1e6, cost=Cost.BYTES)
    assert (Bill(size, "ann").charge.cost, Bill(size, "ann").plain) == (0.0, False)
    distinct = limit("d", Event.AUTH_FAIL, rate=1.0, burst=1.0, distinct="{login}")
    assert (Bill(distinct, "192.0.2.7").charge.member, Bill(distinct, "192.0.2.7").plain) == (None, False)


def test_what_only_watches_holds_and_punishes_nobody() -> None:
    for one in (SLOW, BANNING):
        charge = Bill(replace(one, shadow=True), "ann").charge
        assert (charge.shadow, charge.hold, charge.penalty) == (True, 0.0, None)


@pytest.mark.parametrize(("own", "ban", "after_ban"), [(True, 60.0, 3600.0), (False, 0.0, 0.0)])
def test_nobody_is_banned_for_the_neighbours(own: bool, ban: float, after_ban: float) -> None:
    assert Bill(BANNING, "ann", own).charge.penalty == Penalty(
        "ann", "b p.yaml:b", ban, "b/after:ann", 50.0, 600.0, after_ban, "b/after p.yaml:b"
    )


def test_a_bill_is_made_once() -> None:
    bills = Bills()
    first = bills.of(SLOW, "ann", True)
    assert bills.of(SLOW, "ann", True) is first
    assert bills.of(SLOW, "bob", True).subject == "bob"
    assert len(bills) == 2


def test_an_edit_an_override_and_a_subject_that_is_shared_are_other_bills() -> None:
    bills = Bills()
    edited = replace(SLOW, rate=1.0)
    asked = [(SLOW, True), (edited, True), (SLOW, True), (SLOW, False)]
    found = [bills.of(one, "ann", own) for one, own in asked]
    assert [(bill.limit, bill.charge.rate, bill.own) for bill in found] == [
        (one, one.rate, own) for one, own in asked
    ]


def test_memory_is_bounded_and_the_busy_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtpgate.policy.bills, "GENERATION", 2)
    bills = Bills()
    ann = bills.of(SLOW, "ann", True)
    for name in ("bob", "eve", "kim", "lee", "mia"):
        bills.of(SLOW, name, True)
        assert bills.of(SLOW, "ann", True) is ann
        assert len(bills) <= 4
