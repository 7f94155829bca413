"""Records of decisions: what is written, what is not, and that a record gives back what was asked."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from smtpgate.policy import record
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, Paid, ReplyText, Slot
from smtpgate.policy.record import Asked, Refunded, Released
from smtpgate.units import InvalidValue

ANN = Facts("192.0.2.1", listener="mx", session="5e55", time=1000.25, user="ann", sender="", transaction="77")
PAID = (Paid("user.msgs", "user.msgs:ann", 0.5, 10.0, 1.0, rejected=True),)
SLOTS = (Slot("user.conns", "user.conns:ann", "h1"),)


def denial(limit: str = "user.msgs", **changes: Any) -> Denial:
    reply = ReplyText(450, "4.7.1", "slow down")
    given = Denial(limit, "ann", reply, 6.6, 0.0, False, 0.5, "limits.yaml:3", wait=6.00049)
    return dataclasses.replace(given, **changes)


def written_and_read(kind: str, one: record.Record) -> Any:
    return record.read(kind, json.loads(json.dumps(one)))


def test_an_allowed_decision() -> None:
    one = record.decision(1000.5, Event.MAIL, ANN, Decision(paid=PAID, slots=SLOTS, shadow=(denial("geo"),)))
    assert one == {
        "at": 1000.5,
        "asked": "mail",
        "facts": {
            "client": "192.0.2.1",
            "listener": "mx",
            "session": "5e55",
            "time": 1000.25,
            "user": "ann",
            "sender": "",
            "transaction": "77",
        },
        "allowed": True,
        "shadow": ["geo"],
        "paid": [["user.msgs:ann", 1.0]],
        "slots": ["h1"],
    }
    assert written_and_read("decision", one) == Asked(
        1000.5, Event.MAIL, ANN, shadow=("geo",), paid=(("user.msgs:ann", 1.0),), slots=("h1",)
    )


def test_a_denied_decision() -> None:
    asked: dict[str, Any] = {"debit": False, "count": False, "turn": True, "patience": 0.0, "places": False}
    one = record.decision(1000.5, Event.MAIL, ANN, Decision(denial(hold=5.0)), **asked)
    assert {key: one[key] for key in one if key not in ("at", "asked", "facts")} == {
        "allowed": False,
        "debit": False,
        "count": False,
        "turn": True,
        "patience": 0.0,
        "places": False,
        "limit": "user.msgs",
        "subject": "ann",
        "rule": "limits.yaml:3",
        "wait": 6.0,
        "hold": 5.0,
    }
    assert written_and_read("decision", one) == Asked(
        1000.5, Event.MAIL, ANN, **asked, limit="user.msgs", subject="ann", hold=5.0
    )


def test_a_wait_without_end_is_no_json_number() -> None:
    one = record.decision(1000.5, Event.EOD, ANN, Decision(denial(wait=math.inf)))
    assert "wait" not in one
    assert "Infinity" not in json.dumps(one)


def test_refund_and_release() -> None:
    assert written_and_read("refund", record.refund(7.0, PAID, ours=True)) == Refunded(
        7.0, (("user.msgs:ann", 1.0),), ours=True
    )
    assert written_and_read("release", record.release(8.0, SLOTS)) == Released(8.0, ("h1",))


def test_every_fact_comes_back() -> None:
    """A fact that is added to Facts has to be told apart by its type here, too."""
    values: dict[str, Any] = {
        name: {"bool": True, "int": 7, "float": 1.5}.get(kind.__forward_arg__.partition(" |")[0], "x")
        for name, kind in Facts.__annotations__.items()
    }
    facts = Facts(**values)
    read = written_and_read("decision", record.decision(1.0, Event.EOD, facts, ALLOWED))
    assert read.facts == facts


def test_of_a_password_only_a_beginning_is_written() -> None:
    facts = Facts("192.0.2.1", login="ann", password_mac="0123456789abcdef")
    one = record.decision(1.0, Event.AUTH_FAIL, facts, ALLOWED)
    assert one["facts"] == {"client": "192.0.2.1", "login": "ann", "password_mac": "01234567"}


def test_long_texts_are_cut_in_the_middle_and_stay_distinct() -> None:
    texts = ["a" * 256, "a" * 300 + "@example.com", "a" * 301 + "@example.com", "\udcff" * 300]
    read = [
        written_and_read(
            "decision", record.decision(1.0, Event.MAIL, Facts("::1", sender=text), ALLOWED)
        ).facts.sender
        for text in texts
    ]
    assert read[0] == texts[0]
    assert len(set(read)) == 4
    assert all(len(text) <= record.MAX_TEXT for text in read)
    assert read[1].endswith("a@example.com")


GOOD: dict[str, Any] = {"at": 1.0, "asked": "mail", "facts": {"client": "::1"}}


@pytest.mark.parametrize(
    ("kind", "changes", "path", "message"),
    [
        ("decision", {"at": None}, ("at",), "is not what it should be"),
        ("decision", {"at": True}, ("at",), "is not what it should be"),
        ("decision", {"at": math.nan}, ("at",), "is no time"),
        ("decision", {"asked": "noop"}, ("asked",), "is not an event"),
        ("decision", {"asked": 7}, ("asked",), "is not what it should be"),
        ("decision", {"facts": []}, ("facts",), "is not what it should be"),
        ("decision", {"facts": {}}, ("facts", "client"), "is missing"),
        ("decision", {"facts": {"client": "::1", "age": 7}}, ("facts", "age"), "is not a fact"),
        (
            "decision",
            {"facts": {"client": "::1", "size": "7"}},
            ("facts", "size"),
            "is not of the type that this fact has",
        ),
        (
            "decision",
            {"facts": {"client": "::1", "size": True}},
            ("facts", "size"),
            "is not of the type that this fact has",
        ),
        ("decision", {"paid": [["a"]]}, ("paid",), "is not a list of keys and costs"),
        ("decision", {"paid": [["a", "b"]]}, ("paid",), "is not a list of keys and costs"),
        ("decision", {"slots": [7]}, ("slots",), "is not a list of texts"),
        ("decision", {"turn": "yes"}, ("turn",), "is not what it should be"),
        ("refund", {}, ("ours",), "is missing"),
        ("release", {"slots": "h1"}, ("slots",), "is not what it should be"),
    ],
)
def test_what_is_no_record(kind: str, changes: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        record.read(kind, {**GOOD, **changes})
    assert (caught.value.path, caught.value.message) == (path, message)


@pytest.mark.parametrize("missing", ["at", "asked", "facts"])
def test_what_a_decision_needs(missing: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        record.read("decision", {key: value for key, value in GOOD.items() if key != missing})
    assert (caught.value.path, caught.value.message) == ((missing,), "is missing")


def test_the_logs_own_keys_do_not_matter() -> None:
    assert record.read("decision", {**GOOD, "timestamp": "…", "pid": 7}) == Asked(1.0, Event.MAIL, Facts("::1"))
