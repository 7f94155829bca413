"""A recorded engine: a line for each question, in the log's own form, and the same answers."""

from __future__ import annotations

import io
import json
from typing import Any

from fakes import ListJournal, ManualClock

from smtpgate.drivers.decisionlog import DecisionLog
from smtpgate.drivers.journal import open_journal
from smtpgate.policy import record
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.record import Asked, Refunded, Released
from smtpgate.snapshot import build

POLICY = """\
version: 1
limits:
  conns: {event: connect, concurrency: 1, key: "{net}", deny: {reply: "421 4.7.0 too many"}}
  msgs: {event: mail, rate: 1/1h, burst: 1, key: "{user}", refund: rejected, deny: {reply: "450 4.7.1 slow"}}
  watch: {event: mail, rate: 1/1h, burst: 1, key: "{net}", shadow: true, deny: {reply: "450 4.7.1 slow"}}
"""
ANN = Facts(
    "192.0.2.1", session="5e55", user="ann", sender='"\x1b[31m\u202e"@example.com', sender_domain="example.com"
)


def recorded(journal: Any) -> tuple[DecisionLog, Engine]:
    clock = ManualClock()
    policy = build([("p.yaml", POLICY.encode())]).policy
    engine = Engine(MemoryBuckets(clock), clock, lambda: 0.0, policy=policy)
    return DecisionLog(engine, journal, clock), engine


def run(log: DecisionLog) -> list[bool]:
    first = log.decide(Event.CONNECT, ANN)
    answers = [first, log.decide(Event.CONNECT, ANN), log.decide(Event.MAIL, ANN), log.decide(Event.MAIL, ANN)]
    log.refund(answers[2].paid, ours=False)
    log.release(first.slots)
    log.held_for("msgs", 1.5)
    return [answer.allowed for answer in answers]


def test_answers_and_counts_are_the_engines() -> None:
    log, engine = recorded(ListJournal())
    assert run(log) == [True, False, True, False]
    counts = engine.counters["msgs"]
    assert (counts.checked, counts.denied, counts.refunded, counts.held_seconds) == (2, 1, 1, 1.5)
    assert engine.held == 0
    assert log.policy is engine.policy
    log.swap(build([("q.yaml", b"version: 1\n")]).policy)
    assert log.policy is engine.policy
    assert log.decide(Event.MAIL, ANN).allowed


def test_each_question_is_a_line_that_can_be_read_back() -> None:
    out = io.StringIO()
    log, _ = recorded(open_journal("json", "info", out))
    run(log)
    assert out.getvalue().isascii()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["decision"] * 4 + ["refund", "release"]
    read = [record.read(line["event"], line) for line in lines]
    at = ManualClock().time
    assert isinstance(read[0], Asked)
    holder = read[0].slots[0]
    both = (("msgs:ann", 1.0), ("watch:192.0.2.1", 1.0))
    assert read == [
        Asked(at, Event.CONNECT, ANN, slots=(holder,)),
        Asked(at, Event.CONNECT, ANN, limit="conns", subject="192.0.2.1"),
        Asked(at, Event.MAIL, ANN, paid=both),
        Asked(at, Event.MAIL, ANN, limit="msgs", subject="ann", shadow=("watch",)),
        Refunded(at, both, ours=False),
        Released(at, (holder,)),
    ]


def test_how_it_was_asked_is_part_of_the_record() -> None:
    journal = ListJournal()
    log, _ = recorded(journal)
    log.decide(Event.MAIL, ANN, debit=False, count=False, turn=True, hold=0.0, slots=False)
    (line,) = journal.of("decision")
    asked = {name: line[name] for name in ("debit", "count", "turn", "patience", "places")}
    assert asked == {"debit": False, "count": False, "turn": True, "patience": 0.0, "places": False}


def test_the_stream_of_data_is_not_recorded() -> None:
    journal = ListJournal()
    log, _ = recorded(journal)
    assert log.decide(Event.DATA, ANN).allowed
    assert journal.lines == []
