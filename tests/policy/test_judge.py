"""Which refusal is heard, in which words, and what is reported beside it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from smtpgate.policy.bills import Bill
from smtpgate.policy.judge import away, judge
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Paid, ReplyText, Shape, Slot
from smtpgate.policy.plan import Plan
from smtpgate.policy.rules import LONGEST_RETRY, Cost, Escalation, Kind, Limit, OnError
from smtpgate.policy.store import NOTHING, Ban, BanCheck, Charge, Claim, Taken
from tests.policy.handmade import STOP, limit

ONE = limit("x", rate=0.5, burst=10.0, rate_text="30/1m")


def asked(*limits: Limit, **more: Any) -> Plan:
    """A plan for ann's buckets and places."""
    rates = [one for one in limits if one.kind is Kind.RATE]
    places = [one for one in limits if one.kind is Kind.CONCURRENCY]
    return Plan(
        bills=tuple(Bill(one, "ann") for one in rates),
        charges=tuple(
            Charge(f"{one.name}:ann", one.rate, one.burst, more.pop("cost", 1.0), one.shadow, hold=hold_of(one))
            for one in rates
        ),
        places=tuple(Bill(one, "ann") for one in places),
        claims=tuple(Claim(f"{one.name}:ann", one.amount, "h", one.shadow, hold_of(one)) for one in places),
        **more,
    )


def hold_of(one: Limit) -> float:
    return one.deny.hold if one.deny is not None else 0.0


def judged(planned: Plan, taken: Taken, jitter: float = 0.0) -> Decision:
    return judge(planned, taken, jitter=jitter, host="mx.example.com")


def denied(one: Limit, wait: float, jitter: float = 0.0, escalated: bool = False, cost: float = 1.0) -> Denial:
    taken = Taken(False, (wait,), (0.25,), (cost,), escalated=(f"{one.name}:ann",) if escalated else ())
    denial = judged(asked(one, cost=cost), taken, jitter).denial
    assert denial is not None
    return denial


def test_a_denial_tells_all() -> None:
    one = limit("x", rate=0.5, burst=10.0, rate_text="30/1m", deny={"close": True, "delay": 2.0})
    assert denied(one, 1.5) == Denial(
        limit="x",
        subject="ann",
        reply=ReplyText(450, "4.7.1", "rate limit x (30/1m), retry in 2s"),
        retry=1.5,
        delay=2.0,
        close=True,
        balance=0.25,
        source="p.yaml:x",
        wait=1.5,
        hold=0.0,
    )


@pytest.mark.parametrize(
    ("jitter", "retry", "text"), [(0.0, 100.0, "100s"), (0.5, 105.0, "105s"), (1.0, 110.0, "110s")]
)
def test_retry_carries_jitter_and_wait_does_not(jitter: float, retry: float, text: str) -> None:
    denial = denied(ONE, 100.0, jitter)
    assert (denial.retry, denial.wait) == (pytest.approx(retry), 100.0)
    assert denial.reply.text.endswith(text)


@pytest.mark.parametrize(
    ("deny", "wait", "delay"),
    [
        ({}, 30.0, 0.0),
        ({"delay": 2.0}, 30.0, 2.0),
        ({"delay": 2.0, "max_delay": 15.0}, 0.5, 2.0),
        ({"delay": 2.0, "max_delay": 15.0}, 7.0, 7.0),
        ({"delay": 2.0, "max_delay": 15.0}, 30.0, 15.0),
    ],
)
def test_delay(deny: dict[str, Any], wait: float, delay: float) -> None:
    assert denied(limit("x", rate=0.5, burst=10.0, deny=deny), wait).delay == delay


@pytest.mark.parametrize(("wait", "hold"), [(0.5, 5.0), (5.0, 5.0), (5.1, 0.0)])
def test_hold_is_offered_where_it_is_long_enough(wait: float, hold: float) -> None:
    assert denied(limit("x", rate=0.5, burst=10.0, deny={"hold": 5.0}), wait).hold == hold


def test_the_longest_wait_is_the_one_that_is_told() -> None:
    limits = [limit(name, rate=1.0, burst=1.0) for name in "abc"]
    decision = judged(asked(*limits), Taken(False, (1.0, 3600.0, 60.0), (0.0,) * 3, (1.0,) * 3))
    assert decision.denial is not None
    assert (decision.denial.limit, decision.denial.retry) == ("b", 3600.0)


def test_a_full_place() -> None:
    planned = asked(limit("c", amount=3, rate_text="3", deny={"hold": 5.0}), ONE)
    decision = judged(planned, Taken(False, (0.0,), (9.0,), (1.0,), (0,)))
    assert decision == Decision(
        Denial(
            limit="c",
            subject="ann",
            reply=ReplyText(450, "4.7.1", "rate limit c (3), retry in 1s"),
            retry=1.0,
            delay=0.0,
            close=False,
            balance=0.0,
            source="p.yaml:c",
            wait=1.0,
            hold=5.0,
        )
    )


@pytest.mark.parametrize(
    ("deny_close", "then_close", "close"), [(False, True, True), (True, False, True), (False, False, False)]
)
def test_an_escalated_refusal_has_other_words(deny_close: bool, then_close: bool, close: bool) -> None:
    after = Escalation(50, 600.0, STOP, then_close)
    one = limit("x", rate=0.5, burst=10.0, deny={"after": after, "close": deny_close})
    assert denied(one, 2.0).reply.code == 450
    denial = denied(one, 2.0, escalated=True)
    assert (denial.reply, denial.close) == (ReplyText(550, "5.7.1", "x exhausted, mx.example.com"), close)
    place = limit("c", amount=1, deny={"after": after})
    said = judged(asked(place), Taken(False, free=(0,), escalated=("c:ann",))).denial
    assert said is not None
    assert said.reply.code == 550


@pytest.mark.parametrize(
    ("cost", "reply", "expected"),
    [
        (Cost.BYTES, None, (552, "5.3.4", "message too big for limit x (10)")),
        (1.0, None, (550, "5.7.1", "more than limit x (10) ever allows")),
        (Cost.BYTES, STOP, (550, "5.7.1", "x exhausted, mx.example.com")),
    ],
)
def test_what_can_never_pass_is_no_4xx(cost: float | Cost, reply: Any, expected: tuple[int, str, str]) -> None:
    one = limit("x", rate=0.5, burst=10.0, rate_text="10", cost=cost, deny={"reply": reply} if reply else {})
    denial = denied(one, float("inf"), cost=11.0)
    assert denial.reply == ReplyText(*expected)


def test_a_cap_is_heard_first_and_needs_no_waiting() -> None:
    cap = limit("m", kind=Kind.MAX, amount=3, rate_text="3", deny={"delay": 1.0})
    watching = replace(ONE, name="w", shadow=True)
    planned = replace(asked(watching), capped=(Bill(cap, ""),))
    decision = judged(planned, Taken(True, (9.0,), (0.0,), (1.0,)))
    assert decision.denial is not None
    assert decision.denial.reply.text == "rate limit m (3), retry in 1s"
    assert (decision.denial.wait, decision.denial.delay, decision.denial.subject) == (0.0, 1.0, "")
    assert [denial.limit for denial in decision.shadow] == ["w"]
    assert judged(Plan(capped=(Bill(replace(cap, shadow=True), ""),)), NOTHING).allowed


BANNING = limit("b", Event.AUTH_FAIL, rate=1.0, burst=1.0, deny={"ban": 60.0, "delay": 2.0, "close": True})


def banned(by: str, **limits: bool) -> Decision:
    """The subject is banned by `by`; limits: name -> shadow."""
    bills = tuple(Bill(replace(BANNING, name=name, shadow=shadow), "net") for name, shadow in limits.items())
    enforced = tuple(name for name, shadow in limits.items() if not shadow)
    planned = Plan(banning=bills, checks=(BanCheck("net", enforced),))
    return judged(planned, Taken(by.removesuffix("/after") not in enforced, bans=(Ban(40.0, f"{by} p.yaml:9"),)))


def test_the_banned_hear_the_limit_that_banned_them_at_once() -> None:
    denial = banned("b", a=False, b=False).denial
    assert denial is not None
    assert (denial.limit, denial.subject, denial.wait, denial.retry) == ("b", "net", 40.0, 40.0)
    assert denial.banned == 40.0
    assert (denial.delay, denial.close, denial.reply.text) == (0.0, True, "rate limit b (), retry in 40s")


def test_a_ban_of_a_limit_that_does_not_concern_the_session_is_none() -> None:
    assert banned("gone", a=False) == ALLOWED


def test_a_ban_of_a_limit_that_only_watches_is_reported() -> None:
    decision = banned("b", b=True)
    assert decision.allowed
    assert [(denial.limit, denial.wait) for denial in decision.shadow] == [("b", 40.0)]


def test_a_ban_that_came_of_an_escalation_has_its_words() -> None:
    after = Escalation(50, 600.0, STOP, close=True, ban=60.0)
    one = limit("b", rate=1.0, burst=1.0, deny={"after": after})
    planned = Plan(banning=(Bill(one, "net"),), checks=(BanCheck("net", ("b",)),))
    denial = judged(planned, Taken(False, bans=(Ban(40.0, "b/after p.yaml:9"),))).denial
    assert denial is not None
    assert (denial.reply.code, denial.close) == (550, True)


def test_what_is_allowed_tells_what_was_paid_and_held() -> None:
    free = limit("free", rate=1.0, burst=9.0)
    watching = limit("w", rate=1.0, burst=9.0, shadow=True)
    short = limit("s", rate=1.0, burst=9.0, shadow=True)
    rejected = limit("r", rate=1.0, burst=9.0, refund_rejected=True)
    place, watched = limit("c", amount=1), limit("cw", amount=1, shadow=True)
    planned = replace(
        asked(ONE, free, watching, short, rejected, place, watched), shapes=(Shape("up", "up:ann", 1.0, 2.0),)
    )
    taken = Taken(True, (0.0, 0.0, 0.0, 4.0, 0.0), (1.0,) * 5, (1.0, 0.0, 1.0, 1.0, 1.0), (1, 0))
    decision = judged(planned, taken)
    assert decision.paid == (
        Paid("x", "x:ann", 0.5, 10.0, 1.0, rejected=False),
        Paid("w", "w:ann", 1.0, 9.0, 1.0, rejected=False),
        Paid("r", "r:ann", 1.0, 9.0, 1.0, rejected=True),
    )
    assert decision.slots == (Slot("c", "c:ann", "h"),)
    assert [denial.limit for denial in decision.shadow] == ["s", "cw"]
    assert decision.shapes == planned.shapes


def test_a_bucket_that_remembers_values_has_nothing_to_give_back() -> None:
    """The same value again is free: a refund would leave it free for ever."""
    planned = replace(asked(ONE), charges=(Charge("x:ann", 0.5, 10.0, member="m"),))
    assert judged(planned, Taken(True, (0.0,), (9.0,), (1.0,))) == ALLOWED


def test_a_receipt_says_what_was_taken() -> None:
    planned = replace(asked(ONE), charges=(Charge("x:ann", 0.25, 5.0, 3.0),))
    taken = Taken(True, (0.0,), (2.0,), (3.0,))
    assert judge(planned, taken, jitter=0.0, host="h", local=True).paid == (
        Paid("x", "x:ann", 0.25, 5.0, 3.0, rejected=False, local=True),
    )


def test_a_wait_without_end_is_told_as_a_year() -> None:
    denial = denied(ONE, math.inf, jitter=1.0)
    assert (denial.wait, denial.retry) == (math.inf, LONGEST_RETRY)
    assert denial.reply.text.endswith(f"{LONGEST_RETRY}s")


def test_a_look_has_paid_nothing() -> None:
    taken = Taken(True, (0.0,), (1.0,), (1.0,), (1,))
    planned = asked(ONE, limit("c", amount=1))
    decision = judge(planned, taken, jitter=0.0, host="h", debit=False)
    assert decision == ALLOWED


def test_the_first_limit_that_will_not_do_without_the_store_refuses() -> None:
    limits = [replace(ONE, name=e.value, on_error=e) for e in OnError]
    watching = replace(ONE, name="w", on_error=OnError.TEMPFAIL, shadow=True)
    denial = away(asked(watching, *limits), retry=5.0, jitter=1.0, host="h")
    assert denial is not None
    assert denial.reply == ReplyText(451, "4.3.0", "limit tempfail temporarily unavailable, try again later")
    assert (denial.limit, denial.retry, denial.wait, denial.close) == ("tempfail", 5.5, 0.0, False)
    assert away(asked(watching, limits[0]), retry=5.0, jitter=0.0, host="h") is None
    place = limit("c", amount=1, on_error=OnError.TEMPFAIL)
    held = away(asked(place), retry=5.0, jitter=0.0, host="h")
    assert held is not None
    assert held.limit == "c"
