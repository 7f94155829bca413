"""What is asked of explain, from what is typed."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import MultiDict

from authsvc.console.forms import Ask
from authsvc.console.pages import pattern
from smtpgate.explain.facts import Question


@pytest.mark.parametrize(
    ("typed", "question"),
    [
        ({"ip": " 192.0.2.7 "}, Question(ip="192.0.2.7")),
        ({"ip": "unix:"}, Question(ip="unix:")),
        (
            {"ip": "2001:db8::1", "user": " ann ", "size": "10MiB"},
            Question(ip="2001:db8::1", user="ann", size=10 << 20),
        ),
        ({"ip": "192.0.2.7", "sender": "<>", "size": "4096"}, Question(ip="192.0.2.7", sender="", size=4096)),
        ({"ip": "192.0.2.7", "tls": "no", "recipients": "3"}, Question(ip="192.0.2.7", tls=False, recipients=3)),
        ({"ip": "192.0.2.7", "tls": "yes", "user": "  "}, Question(ip="192.0.2.7", tls=True)),
    ],
)
def test_a_question(typed: dict[str, str], question: Question) -> None:
    form = Ask(MultiDict(typed))
    assert form.validate(), form.errors
    assert form.question() == question


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({}, "ip"),
        ({"ip": "nonsense"}, "ip"),
        ({"ip": "192.0.2.0/24"}, "ip"),
        ({"ip": "192.0.2.7", "size": "big"}, "size"),
        ({"ip": "192.0.2.7", "size": "-1"}, "size"),
        ({"ip": "192.0.2.7", "at": "noon"}, "at"),
        ({"ip": "192.0.2.7", "at": "2026-12-01T22:30:00"}, "at"),
        ({"ip": "192.0.2.7", "at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"ip": "192.0.2.7", "at": "9999-12-31T23:59:59-14:00"}, "at"),
        ({"ip": "192.0.2.7", "recipients": "-1"}, "recipients"),
        ({"ip": "192.0.2.7", "messages": "x"}, "messages"),
        ({"ip": "192.0.2.7", "tls": "maybe"}, "tls"),
        ({"ip": "192.0.2.7", "user": "a" * 321}, "user"),
    ],
)
def test_what_is_no_question(typed: dict[str, str], field: str) -> None:
    form = Ask(MultiDict(typed))
    assert not form.validate()
    assert list(form.errors) == [field]


def test_the_time() -> None:
    form = Ask(MultiDict({"ip": "192.0.2.7", "at": "1970-01-01T01:00:00+01:00"}))
    assert form.validate()
    assert form.time(7.0) == 0.0
    assert Ask(MultiDict({"ip": "192.0.2.7"})).time(7.0) == 7.0


@pytest.mark.parametrize(
    ("typed", "asked"),
    [(None, "*"), (" ", "*"), ("ann", "*ann*"), ("ann*", "ann*"), ("a?n", "a?n"), ("[ab]", "[ab]")],
)
def test_pattern(typed: str | None, asked: str) -> None:
    assert pattern(typed) == asked
