"""Replays: a run's own records give the run's own counts, and another policy gives what it would have done."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import ListJournal, ManualClock

from smtpgate.drivers.decisionlog import DecisionLog
from smtpgate.policy import record
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Decision, Event, Facts, grown
from smtpgate.policy.record import Asked, Refunded
from smtpgate.policy.select import Policy
from smtpgate.snapshot import build
from tools.commands.simulated import LimitCounts, Result
from tools.commands.simulation import MAX_EXAMPLES, Simulation

POLICY = """\
version: 1
limits:
  conns: {event: connect, concurrency: 3, key: "{net}", deny: {reply: "421 4.7.0 many"}}
  user.conns: {event: auth, concurrency: 2, key: "{user}", deny: {reply: "421 4.7.0 many"}}
  msgs: {event: mail, rate: 15/1m, burst: 3, key: "{user}", refund: rejected, deny: {reply: "450 4.7.1 a", hold: 5s}}
  rcpts: {event: rcpt, rate: 20/1m, burst: 5, key: "{user}", refund: rejected,
          deny: {reply: "452 4.5.3 a", after: {denials: 5, within: 10m, then: {reply: "550 5.7.1 b", ban: 30s}}}}
  cap: {event: rcpt, max: 3, key: "{transaction}", deny: {reply: "452 4.5.3 many"}}
  watch: {event: rcpt, rate: 10/1m, burst: 2, key: "{rcpt_domain}", shadow: true, deny: {reply: "450 4.7.1 slow"}}
  fail: {event: auth_fail, rate: 5/10m, burst: 3, key: "{net}|{login}", distinct: "{password_mac}",
         deny: {reply: "454 4.7.0 failed", ban: 1m}}
  bytes: {event: eod, cost: bytes, rate: 60KiB/1m, burst: 40KiB, key: "{user}", deny: {reply: "450 4.7.1 slow"}}
"""


def policy_of(text: str) -> Policy:
    return build([("p.yaml", text.encode())]).policy


class Run:
    """A proxy of one process with sessions one after the other, and its log."""

    def __init__(self, text: str, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.journal = ListJournal()
        self.engine = Engine(
            MemoryBuckets(self.clock), self.clock, lambda: 0.0, policy=policy_of(text), waiting=self.lines_of
        )
        self.log = DecisionLog(self.engine, self.journal, self.clock)
        self.chance = random.Random(seed)  # a test's own dice
        self.lines: Counter[str] = Counter()

    def lines_of(self, key: str) -> bool:
        return self.lines[key] > 0

    def ask(self, event: Event, facts: Facts) -> Iterator[float | Decision]:
        """As session.policing asks: yields the seconds that it is held, then the decision."""
        decision = self.log.decide(event, facts)
        began, denial, first = self.clock.time, decision.denial, decision.denial
        if denial is None or not denial.hold:
            yield decision
            return
        deadline = began + denial.hold
        while denial is not None and denial.hold > 0.0 and self.clock.time < deadline:
            key = f"{denial.limit}:{denial.subject}"
            self.lines[key] += 1
            yield max(0.01, denial.wait)
            decision = self.log.decide(event, facts, turn=True, hold=max(0.0, deadline - self.clock.time))
            self.lines[key] -= 1
            denial = decision.denial
        if denial is not None and denial.hold > 0.0:
            decision = self.log.decide(event, facts, turn=True, hold=0.0)
        assert first is not None
        self.log.held_for(first.limit, self.clock.time - began)
        yield decision

    def session(self, number: int) -> Iterator[float]:
        """Yields the seconds until it goes on."""
        user = self.chance.choice(["ann", "bob", "carol"])
        facts = Facts(f"192.0.2.{number % 3}", session=f"s{number}", listener="mx", tls=False)
        mine: list[Any] = []
        decision = yield from self.until(Event.CONNECT, facts)
        mine += decision.slots
        if decision.allowed and self.chance.random() < 0.3:
            failed = grown(facts, login=user, password_mac=self.chance.choice("abcdef") * 16)
            decision = yield from self.until(Event.AUTH_FAIL, failed)
        if decision.allowed:
            facts = grown(facts, login=user, user=user, method="plain")
            decision = yield from self.until(Event.AUTH, facts)
            mine += decision.slots
        for message in range(self.chance.randrange(4) if decision.allowed else 0):
            yield self.chance.random() * 2
            yield from self.message(grown(facts, transaction=f"s{number}.{message}", sender="a@b.example"))
        if mine:
            self.log.release(tuple(mine))
        self.journal.info("session", session=f"s{number}")

    def message(self, facts: Facts) -> Iterator[float]:
        decision = yield from self.until(Event.MAIL, grown(facts, sender_domain="b.example"))
        paid = [*decision.paid]
        for at in range(self.chance.randrange(5) if decision.allowed else 0):
            domain = self.chance.choice(["x.example", "y.example"])
            to = grown(facts, rcpt=f"r{at}@{domain}", rcpt_domain=domain, recipients=at)
            paid += (yield from self.until(Event.RCPT, to)).paid
        decision = yield from self.until(Event.EOD, grown(facts, octets=self.chance.randrange(20_000)))
        if paid and self.chance.random() < 0.5:
            self.log.refund(tuple(paid), ours=self.chance.random() < 0.5)

    def until(self, event: Event, facts: Facts) -> Any:
        for step in self.ask(event, facts):
            if isinstance(step, Decision):
                return step
            yield step
        raise AssertionError("no answer")

    def go(self, sessions: int) -> None:
        """Several sessions at a time, each going on when it is due."""
        due = [(self.clock.time + self.chance.random() * sessions / 2, i, self.session(i)) for i in range(sessions)]
        while due:
            due.sort(key=lambda one: one[:2])
            at, number, session = due.pop(0)
            self.clock.time = max(self.clock.time, at)
            if self.clock.time >= self.renewed + 20.0:
                self.renewed = self.clock.time
                self.engine.renew()
            wait = next(session, None)
            if wait is not None:
                due.append((self.clock.time + wait, number, session))

    renewed = 0.0

    def replay(self, simulation: Simulation, top: int = 10) -> Result:
        for _, event, fields in self.journal.lines:
            if event == "session":
                simulation.end("session", str(fields["session"]))
                continue
            one = record.read(event, fields)
            if isinstance(one, Asked):
                simulation.decision(one)
            elif isinstance(one, Refunded):
                simulation.refund(one)
            else:
                simulation.release(one)
        return simulation.result(top)


@pytest.fixture(scope="module")
def ran() -> Run:
    run = Run(POLICY)
    run.go(400)
    return run


def test_a_runs_own_records_give_the_runs_own_counts(ran: Run) -> None:
    result = ran.replay(Simulation(policy_of(POLICY)))
    told = {
        one.limit: (one.checked, one.denied, round(one.held_seconds, 6), one.shadow, one.refunded)
        for one in result.limits
        if one.checked
    }
    assert told == {
        name: (
            counts.checked,
            counts.denied,
            round(counts.held_seconds, 6),
            counts.shadow_denied,
            counts.refunded,
        )
        for name, counts in ran.engine.counters.items()
    }
    for one in result.limits:
        assert (one.denied, one.held, one.shadow) == (one.logged_denied, one.logged_held, one.logged_shadow)
    assert (result.newly_denied, result.newly_allowed, result.examples) == (0, 0, [])
    # It was a run worth telling of.
    by_name = {one.limit: one for one in result.limits}
    assert all(by_name[name].denied for name in ("conns", "user.conns", "msgs", "rcpts", "cap", "fail", "bytes"))
    assert by_name["msgs"].held > by_name["msgs"].denied > 0
    assert by_name["msgs"].refunded
    assert by_name["watch"].shadow
    assert result.unreleased == 0


def test_subjects_add_up(ran: Run) -> None:
    result = ran.replay(Simulation(policy_of(POLICY)), top=1000)
    for one in result.limits:
        of_limit = [subject for subject in result.subjects if subject.limit == one.limit]
        assert sum(subject.denied for subject in of_limit) == one.denied
        assert sum(subject.held for subject in of_limit) == one.held
    ranked = [subject.denied + subject.held for subject in result.subjects]
    assert ranked == sorted(ranked, reverse=True)
    assert ran.replay(Simulation(policy_of(POLICY)), top=2).subjects == result.subjects[:2]


def limit_of(result: Result, name: str) -> LimitCounts:
    return next(one for one in result.limits if one.limit == name)


def test_no_limits_allow_everything(ran: Run) -> None:
    result = ran.replay(Simulation(policy_of("version: 1\n")))
    assert result.newly_denied == 0
    assert result.newly_allowed == sum(one.logged_denied for one in result.limits)
    assert len(result.examples) == MAX_EXAMPLES
    assert all(one.simulated is None and one.logged for one in result.examples)
    assert {one.event for one in result.limits} == {""}


def test_a_tighter_limit_refuses_more(ran: Run) -> None:
    tight = POLICY.replace('burst: 3, key: "{user}"', 'burst: 1, key: "{user}"').replace("15/1m", "6/1m")
    result = ran.replay(Simulation(policy_of(tight)))
    msgs = limit_of(result, "msgs")
    assert msgs.denied > msgs.logged_denied
    assert result.newly_denied > 0
    assert result.unreleased == 0


def test_a_new_limit_of_places_is_left_as_sessions_end(ran: Run) -> None:
    """The log has no releases of it: the ends of sessions tell."""
    fresh = 'fresh: {event: connect, concurrency: 1000, key: "{net}", deny: {reply: "421 4.7.0 many"}}'
    new = f"version: 1\nlimits:\n  {fresh}\n"
    result = ran.replay(Simulation(policy_of(new)))
    assert limit_of(result, "fresh").checked == 400
    assert (limit_of(result, "fresh").denied, result.unreleased) == (0, 0)


# --- by hand ------------------------------------------------------------------------------------------------

HOLD = """\
version: 1
limits: {m: {event: mail, rate: 1/1s, burst: 1, key: "{user}", deny: {reply: "450 4.7.1 slow", hold: %s}}}
"""


def asked(at: float, session: str, **more: Any) -> Asked:
    return Asked(at, Event.MAIL, Facts("::1", session=session, user="ann", sender=""), **more)


def test_a_session_that_only_the_new_policy_holds_waits_its_turn() -> None:
    simulation = Simulation(policy_of(HOLD % "3s"))
    for at, session in ((100.0, "a"), (100.0, "b"), (100.1, "c"), (100.2, "d"), (100.3, "e")):
        simulation.decision(asked(at, session))
    result = simulation.result(10)
    m = limit_of(result, "m")
    # One at once, three within their three seconds, and one whose time was over before its turn.
    assert (m.held, m.denied, result.questions, result.newly_denied) == (4, 1, 5, 1)
    assert 1.0 + 1.9 + 2.8 - 0.1 <= m.held_seconds <= 1.0 + 1.9 + 2.8 + 3.0 + 0.1


def test_a_hold_that_the_log_saw_and_the_new_policy_does_not_need() -> None:
    simulation = Simulation(policy_of("version: 1\n"))
    simulation.decision(asked(100.0, "a", limit="m", subject="ann", hold=5.0))
    simulation.decision(asked(101.0, "a", turn=True, patience=4.0))
    result = simulation.result(10)
    assert (result.questions, result.newly_denied, result.newly_allowed) == (1, 0, 0)
    assert limit_of(result, "m").logged_held == 1


def test_a_client_that_leaves_while_it_is_held_is_refused_by_nobody() -> None:
    simulation = Simulation(policy_of(HOLD % "3s"))
    simulation.decision(asked(100.0, "a"))
    simulation.decision(asked(100.0, "b", limit="m", subject="ann", hold=3.0))
    simulation.end("session", "b")
    simulation.decision(asked(101.5, "c"))
    result = simulation.result(10)
    m = limit_of(result, "m")
    assert (m.held, m.denied, m.logged_held, m.logged_denied) == (1, 0, 1, 0)


def test_a_longer_hold_goes_on_after_the_logs_last_word() -> None:
    simulation = Simulation(policy_of(HOLD.replace("1/1s", "1/4s") % "9s"))
    simulation.decision(asked(100.0, "a"))
    simulation.decision(asked(100.0, "b", limit="m", subject="ann", hold=3.0))
    simulation.decision(asked(103.0, "b", limit="m", subject="ann", turn=True, patience=0.0))
    result = simulation.result(10)
    assert (result.newly_allowed, limit_of(result, "m").denied, limit_of(result, "m").logged_denied) == (1, 0, 1)


def test_a_look_counts_for_nothing() -> None:
    simulation = Simulation(policy_of(HOLD % "0s"))
    for _ in range(3):
        simulation.decision(asked(100.0, "a", debit=False, count=False))
    result = simulation.result(10)
    assert (limit_of(result, "m").checked, limit_of(result, "m").denied) == (0, 0)


def test_processes_apart_count_for_themselves() -> None:
    for apart, denied in ((False, 1), (True, 0)):
        simulation = Simulation(policy_of(HOLD % "0s"), apart=apart)
        simulation.decision(asked(100.0, "a"), process=1)
        simulation.decision(asked(100.0, "b"), process=2)
        assert limit_of(simulation.result(10), "m").denied == denied


def test_refunds_find_what_was_paid_here() -> None:
    """The new policy has another limit at the same event: it is refunded with the one of the log."""
    simulation = Simulation(policy_of(HOLD.replace("{m:", "{n:").replace("key", "refund: rejected, key") % "0s"))
    paid = (("m:ann", 1.0),)
    simulation.decision(asked(100.0, "a", paid=paid))
    simulation.refund(Refunded(100.0, paid, ours=False))
    simulation.refund(Refunded(100.0, paid, ours=False))  # nothing is left of it
    simulation.decision(asked(100.0, "b", paid=paid))
    n = limit_of(simulation.result(10), "n")
    assert (n.checked, n.denied, n.refunded) == (2, 0, 1)


def test_time_stands_still_where_a_record_is_older_than_the_last() -> None:
    simulation = Simulation(policy_of(HOLD % "0s"))
    simulation.decision(asked(100.0, "a"))
    simulation.decision(asked(99.0, "b"))
    result = simulation.result(10)
    assert (result.first, result.last, limit_of(result, "m").denied) == (100.0, 100.0, 1)
