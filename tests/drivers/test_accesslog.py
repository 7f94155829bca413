"""The names of a log line's fields, and what is left out where there is nothing to say."""

from __future__ import annotations

from dataclasses import replace

from fakes import ListJournal

from smtpgate.drivers.accesslog import AccessLog
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, Timings, TransactionRecord, Who
from smtpgate.smtp import replies

WHO = Who("s1", "relay", "192.0.2.7", "mx.test", None, "c.test", "TLSv1.3")
CLIENT = {"session": "s1", "client": "192.0.2.7", "listener": "relay", "user": None}
NAMED = {"name": "mx.test", "helo": "c.test", "tls": "TLSv1.3"}
DENIAL = DenialRecord(WHO, "s1.1", "rcpt", "net.rcpts", "192.0.2.7", 1.2345, 0.25, "limits.yaml:3", held=0.5)
SESSION = SessionRecord(WHO, 2, 0, 1.23456, "client quit")
TRANSACTION = TransactionRecord(
    WHO,
    "s1.1",
    "a@a.test",
    ("b@b.test",),
    1,
    2,
    1024,
    0.52345,
    Timings(0.1, 0.2, 0.3, 0.4),
    "core",
    "default",
    "b1",
    0,
    replies.OK,
    "4F2",
    "delivered",
)


def told(record: SessionRecord | TransactionRecord | AuthRecord | DenialRecord) -> tuple[str, str, dict[str, object]]:
    journal = ListJournal()
    log = AccessLog(journal)
    match record:
        case SessionRecord():
            log.session(record)
        case TransactionRecord():
            log.transaction(record)
        case AuthRecord():
            log.authentication(record)
        case DenialRecord():
            log.denial(record)
    (line,) = journal.lines
    return line


def test_a_session() -> None:
    expected = {**CLIENT, **NAMED, "transactions": 2, "seconds": 1.235, "end": "client quit"}
    assert told(SESSION) == ("info", "session", expected)
    assert told(replace(SESSION, impostures=3)) == ("info", "session", {**expected, "impostures": 3})
    assert told(replace(SESSION, who=replace(WHO, via="192.0.2.9")))[2] == {**expected, "via": "192.0.2.9"}


def test_a_transaction() -> None:
    expected = {
        **CLIENT,
        **NAMED,
        "transaction": "s1.1",
        "sender": "a@a.test",
        "rcpts": 1,
        "recipients": ["b@b.test"],
        "rcpts_refused": 2,
        "size": 1024,
        "seconds": 0.523,
        "auth_seconds": 0.1,
        "policy_seconds": 0.2,
        "connect_seconds": 0.3,
        "data_seconds": 0.4,
        "pool": "core",
        "route": "default",
        "backend": "b1",
        "replays": 0,
        "reply": "250 2.0.0 OK",
        "queue_id": "4F2",
        "outcome": "delivered",
    }
    assert told(TRANSACTION) == ("info", "transaction", expected)
    assert told(replace(TRANSACTION, reply=None, outcome="reset"))[2] == {
        **expected,
        "reply": None,
        "outcome": "reset",
    }
    limit = {"limit": "net.rcpts", "subject": "192.0.2.7", "balance": 0.25, "rule": "limits.yaml:3"}
    assert told(replace(TRANSACTION, denial=DENIAL))[2] == {**expected, **limit}
    forwarded = {"NAME": "c.test"}
    assert told(replace(TRANSACTION, forwarded=forwarded))[2] == {**expected, "xforward": forwarded}
    assert told(replace(TRANSACTION, who=replace(WHO, via="x")))[2] == {**expected, "via": "x"}


def test_a_login() -> None:
    record = AuthRecord(WHO, "ann", "plain", replies.AUTH_OK, 0.0123)
    expected = {**CLIENT, "login": "ann", "method": "plain", "result": 235, "seconds": 0.012}
    assert told(record) == ("info", "auth", expected)


def test_a_denial() -> None:
    expected = {
        **CLIENT,
        "transaction": "s1.1",
        "at": "rcpt",
        "limit": "net.rcpts",
        "subject": "192.0.2.7",
        "retry": 1.234,
        "balance": 0.25,
        "rule": "limits.yaml:3",
    }
    assert told(DENIAL) == ("warning", "denied", {**expected, "held": 0.5})
    assert told(replace(DENIAL, shadow=True)) == ("info", "would_deny", expected)
