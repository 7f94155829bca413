"""What the sessions' records add, and that no client can make a label."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.drivers.metrics import MAX_UNCOUNTED, METHODS, Metrics, end_of, phase_of
from smtpgate.drivers.metricsvalues import Families, Labels
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, Timings, TransactionRecord, Who
from smtpgate.smtp import replies

WHO = Who("s1", "mx", "192.0.2.7", "c.example", "ann", "helo", None)
TRANSACTION = TransactionRecord(
    who=WHO,
    transaction="s1.1",
    sender="a@example.com",
    recipients=("b@example.com",),
    accepted=2,
    rejected=1,
    size=5000,
    seconds=0.3,
    timings=Timings(auth=0.02, policy=0.0, connect=0.2, data=0.04),
    pool="core",
    route="default",
    backend="b1",
    replays=0,
    reply=replies.OK,
    queue_id="4F2",
    outcome="delivered",
)
SESSION = SessionRecord(WHO, transactions=1, impostures=0, seconds=2.0, end="client quit")
AUTH = AuthRecord(WHO, "ann", "plain", replies.AUTH_OK, 0.02)
DENIAL = DenialRecord(WHO, "s1.1", "mail", "msgs", "ann", 3.0, 0.0, "limits.yaml:3")


@pytest.fixture
def families() -> Families:
    return Families()


@pytest.fixture
def metrics(families: Families) -> Metrics:
    return Metrics(families)


def values(families: Families, name: str) -> dict[Labels, float]:
    (found,) = [one for one in families.counters if one.family.name == name]
    return found.values


def distribution(families: Families, name: str) -> dict[Labels, tuple[int, float]]:
    """Count and sum of each."""
    (found,) = [one for one in families.histograms if one.family.name == name]
    return {labels: (sum(cell.counts), round(cell.sum, 6)) for labels, cell in found.cells.items()}


def test_a_session(families: Families, metrics: Metrics) -> None:
    metrics.opened(object())  # type: ignore[arg-type]
    metrics.opened(object())  # type: ignore[arg-type]
    metrics.session(SESSION)
    metrics.gather()
    (still,) = [one for one in families.gauges if one.family.name == "smtpgate_sessions_open"]
    assert still.values == {(): 1}
    assert values(families, "smtpgate_sessions_opened_total") == {(): 2}
    assert values(families, "smtpgate_sessions_total") == {("mx", "quit"): 1}
    assert distribution(families, "smtpgate_session_duration_seconds") == {("mx",): (1, 2.0)}


def test_a_transaction(families: Families, metrics: Metrics) -> None:
    metrics.transaction(TRANSACTION)
    metrics.transaction(replace(TRANSACTION, outcome="refused", replays=2, rejected=0))
    metrics.transaction(
        replace(TRANSACTION, outcome="reset", accepted=0, rejected=3, reply=None, timings=Timings(), seconds=1.0)
    )
    metrics.gather()
    assert values(families, "smtpgate_transactions_total") == {
        ("mx", "delivered", "data"): 1,
        ("mx", "refused", "data"): 1,
        ("mx", "abandoned", "mail"): 1,
    }
    assert values(families, "smtpgate_recipients_total") == {("mx", "accepted"): 4, ("mx", "rejected"): 4}
    assert values(families, "smtpgate_transaction_replays_total") == {(): 2}
    assert distribution(families, "smtpgate_message_size_bytes") == {("mx",): (1, 5000.0)}
    assert distribution(families, "smtpgate_transaction_duration_seconds") == {("mx",): (3, 1.6)}
    assert distribution(families, "smtpgate_transaction_phase_duration_seconds") == {
        ("auth",): (2, 0.04),
        ("policy",): (2, 0.0),
        ("connect",): (2, 0.4),
        ("data",): (2, 0.08),
    }


def test_few_records_wait_and_none_is_counted_twice(families: Families, metrics: Metrics) -> None:
    for count in range(1, 3 * MAX_UNCOUNTED):
        metrics.transaction(TRANSACTION)
        metrics.session(SESSION)
        done = sum(values(families, "smtpgate_sessions_total").values())
        assert 0 <= count - done <= MAX_UNCOUNTED
    for _ in range(2):
        metrics.gather()
        assert values(families, "smtpgate_sessions_total") == {("mx", "quit"): count}
        assert values(families, "smtpgate_transactions_total") == {("mx", "delivered", "data"): count}


@pytest.mark.parametrize(
    ("code", "result"), [(235, "granted"), (535, "refused"), (501, "refused"), (454, "deferred"), (421, "deferred")]
)
def test_a_login(families: Families, metrics: Metrics, code: int, result: str) -> None:
    metrics.authentication(replace(AUTH, reply=replies.reply(code, "x")))
    assert values(families, "smtpgate_auth_total") == {("mx", "plain", result): 1}
    assert distribution(families, "smtpgate_auth_duration_seconds") == {("plain",): (1, 0.02)}


def test_a_refusal_and_a_hold(families: Families, metrics: Metrics) -> None:
    metrics.denial(DENIAL)
    metrics.denial(replace(DENIAL, shadow=True))
    metrics.held("msgs")
    assert values(families, "smtpgate_denials_total") == {("mx", "mail", "enforced"): 1, ("mx", "mail", "shadow"): 1}
    assert values(families, "smtpgate_limit_held_total") == {("msgs",): 1}


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("client quit", "quit"),
        ("client closed the connection", "lost"),
        ("connection lost: [Errno 104] Connection reset by peer", "lost"),
        ("client timed out", "timeout"),
        ("closed with 421", "closed"),
        ("refused by msgs", "limited"),
        ("client sent too many invalid commands", "rejected"),
        ("client was rejected before greeting", "rejected"),
        ("cut off", "cut"),
        ("", "other"),
    ],
)
def test_an_end_in_one_of_few_words(words: str, end: str) -> None:
    assert end_of(words) == end


@pytest.mark.parametrize(
    ("changed", "phase"),
    [
        ({}, "data"),
        ({"reply": None}, "data"),
        ({"reply": None, "timings": Timings()}, "rcpt"),
        ({"reply": None, "timings": Timings(), "accepted": 0}, "mail"),
    ],
)
def test_how_far_it_came(changed: dict[str, object], phase: str) -> None:
    assert phase_of(replace(TRANSACTION, **changed)) == phase  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=30))
def test_no_text_of_a_client_is_a_label(texts: list[tuple[str, str, str]]) -> None:
    families = Families()
    metrics = Metrics(families)
    for one, two, three in texts:
        who = Who(one, "mx", two, three, one, two, three)
        metrics.session(replace(SESSION, who=who, end=one))
        metrics.authentication(replace(AUTH, who=who, login=one, method=two))
        metrics.denial(replace(DENIAL, who=who, subject=one))
        metrics.transaction(
            replace(TRANSACTION, who=who, sender=one, recipients=(two,), queue_id=three, outcome=one, transaction=two)
        )
    metrics.gather()
    known = {"mx", "data", "mail", "rcpt", "auth", "policy", "connect", "accepted", "rejected", "enforced", "other"}
    known |= {"delivered", "refused", "unknown", "abandoned", "granted", *METHODS}
    known |= {"quit", "lost", "timeout", "closed", "limited", "cut"}
    used = {label for one in families.counters for labels in one.values for label in labels}
    used |= {label for one in families.histograms for labels in one.cells for label in labels}
    assert used <= known


def test_names_are_prometheus(families: Families, metrics: Metrics) -> None:
    for one in families.counters:
        assert one.family.name.startswith("smtpgate_")
        assert one.family.name.endswith("_total")
    for one in families.histograms:
        assert one.family.name.endswith(("_seconds", "_bytes"))
        assert list(one.bounds) == sorted(set(one.bounds))
    names = [one.family.name for one in (*families.counters, *families.histograms, *families.gauges)]
    assert len(names) == len(set(names))
