"""What holds for every policy and every run of events: random limits of all kinds, random sessions.

* A limit that only watches changes no answer: with it and without it the same events are refused, by the same limits.
* A refusal takes nothing: whoever is refused, and asks again when the limit says, finds what refill alone would give.
* A bucket admits no more than burst + rate x time, and what was given back.
"""

from __future__ import annotations

from typing import Any

from fakes import ManualClock
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Decision, Event, Facts, grown
from smtpgate.policy.rules import Cost, Escalation, Kind, Limit
from smtpgate.policy.select import Policy
from tests.policy.handmade import STOP, limit, policy

EVENTS = (Event.CONNECT, Event.AUTH_FAIL, Event.AUTH, Event.MAIL, Event.RCPT, Event.EOD)
PEOPLE = ("ann", "bob")
CLIENTS = ("192.0.2.7", "192.0.2.8")


@st.composite
def _limits(draw: st.DrawFn, name: str) -> Limit:
    event = draw(st.sampled_from(EVENTS))
    deny: dict[str, Any] = {"hold": draw(st.sampled_from([0.0, 0.0, 2.0]))}
    if event in (Event.CONNECT, Event.AUTH_FAIL, Event.AUTH, Event.MAIL):
        deny["ban"] = draw(st.sampled_from([0.0, 0.0, 3.0]))
    if draw(st.booleans()):
        deny["after"] = Escalation(2, 10.0, STOP, close=True, ban=draw(st.sampled_from([0.0, 5.0])))
    shadow = draw(st.booleans())
    key = "{net}" if event in (Event.CONNECT, Event.AUTH_FAIL) else draw(st.sampled_from(["{net}", "{user}"]))
    if event in (Event.CONNECT, Event.AUTH, Event.MAIL) and draw(st.booleans()):
        return limit(name, event, key=key, amount=draw(st.integers(1, 3)), shadow=shadow, deny=deny)
    if event in (Event.MAIL, Event.RCPT, Event.EOD) and draw(st.sampled_from([False, False, True])):
        cost = Cost.BYTES if event is Event.EOD else 1.0
        amount = draw(st.integers(1, 3))
        return limit(name, event, key="{user}", kind=Kind.MAX, amount=amount, cost=cost, shadow=shadow)
    terms: dict[str, Any] = {"rate": draw(st.sampled_from([0.1, 1.0])), "burst": draw(st.sampled_from([1.0, 3.0]))}
    if event is Event.AUTH_FAIL and draw(st.booleans()):
        terms["distinct"] = "{login}"
    return limit(name, event, key=key, shadow=shadow, deny=deny, refund_rejected=draw(st.booleans()), **terms)


_POLICIES = st.integers(1, 6).flatmap(lambda count: st.tuples(*[_limits(f"l{i}") for i in range(count)]))
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(EVENTS),
        st.sampled_from(PEOPLE),
        st.sampled_from(CLIENTS),
        st.integers(0, 3),  # recipients, messages or octets before
        st.sampled_from([0.0, 0.0, 0.4, 3.0]),  # seconds since the step before
        st.sampled_from(["keep", "keep", "refund", "release"]),
        st.sampled_from([None, None, 0.0]),  # hold
    ),
    min_size=1,
    max_size=40,
)


class Run:
    """One engine that is led through the steps."""

    def __init__(self, of: Policy) -> None:
        self.clock = ManualClock()
        self.engine = Engine(MemoryBuckets(self.clock), self.clock, lambda: 0.0, policy=of)

    def step(self, event: Event, who: str, client: str, count: int, pause: float, then: str, hold: Any) -> Decision:
        self.clock.sleep(pause)
        facts = Facts(client, login=who, recipients=count, messages=count, octets=count)
        if event not in (Event.CONNECT, Event.AUTH_FAIL):
            facts = grown(facts, user=who)
        decision = self.engine.decide(event, facts, hold=hold)
        if then == "refund":
            self.engine.refund(decision.paid, ours=True)
        elif then == "release":
            self.engine.release(decision.slots)
        return decision


@settings(max_examples=150, deadline=None)
@given(_POLICIES, _STEPS)
def test_a_limit_that_only_watches_changes_no_answer(limits: tuple[Limit, ...], steps: list[Any]) -> None:
    all_of_them, enforced = Run(policy(*limits)), Run(policy(*[one for one in limits if not one.shadow]))
    watching = {one.name for one in limits if one.shadow}
    for step in steps:
        one, other = all_of_them.step(*step), enforced.step(*step)
        assert one.denial == other.denial
        assert [paid for paid in one.paid if paid.limit not in watching] == list(other.paid)
        assert {denial.limit for denial in one.shadow} <= watching


@settings(max_examples=150, deadline=None)
@given(_POLICIES, _STEPS)
def test_a_refusal_takes_nothing_and_no_bucket_admits_too_much(limits: tuple[Limit, ...], steps: list[Any]) -> None:
    run, by_name = Run(policy(*limits)), {one.name: one for one in limits}
    began, spent = run.clock.time, dict[tuple[str, str], float]()
    for event, who, client, count, pause, _, hold in steps:
        before = dict(run.engine._store._buckets)  # type: ignore[attr-defined]
        decision = run.step(event, who, client, count, pause, "keep", hold)
        after = run.engine._store._buckets  # type: ignore[attr-defined]
        if decision.denial is not None:
            changed = {key.partition(":")[0] for key in after if after[key] != before.get(key)}
            assert all(name.endswith("/after") or by_name[name].shadow for name in changed)
            assert (decision.paid, [slot.limit for slot in decision.slots]) == ((), [])
        for paid in decision.paid:
            spent[paid.limit, paid.key] = spent.get((paid.limit, paid.key), 0.0) + paid.cost
    for (name, _), cost in spent.items():
        assert cost <= by_name[name].burst + by_name[name].rate * (run.clock.time - began) + 1e-6
