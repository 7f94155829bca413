"""EHLO replies of real servers, and what must not be read into one."""

from __future__ import annotations

import pytest

from smtpgate.smtp.extensions import EMPTY, Extensions
from smtpgate.smtp.replies import Reply

POSTFIX = Extensions.from_ehlo(
    Reply(
        250,
        (
            "mx.example.com",
            "PIPELINING",
            "SIZE 10240000",
            "VRFY",
            "ETRN",
            "STARTTLS",
            "AUTH PLAIN login",
            "AUTH=PLAIN LOGIN SCRAM-SHA-256",
            "XCLIENT NAME ADDR PROTO HELO reverse_name PORT LOGIN DESTADDR DESTPORT",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "DSN",
            "SMTPUTF8",
            "CHUNKING",
        ),
    )
)


def ehlo(*lines: str) -> Extensions:
    return Extensions.from_ehlo(Reply(250, ("mx.example.com Hello", *lines)))


def test_a_postfix() -> None:
    assert POSTFIX.pipelining
    assert POSTFIX.chunking
    assert POSTFIX.starttls
    assert POSTFIX.eightbitmime
    assert POSTFIX.smtputf8
    assert POSTFIX.dsn
    assert POSTFIX.size == 10240000
    assert POSTFIX.auth == {"PLAIN", "LOGIN", "SCRAM-SHA-256"}
    assert POSTFIX.xclient == (
        "NAME",
        "ADDR",
        "PROTO",
        "HELO",
        "REVERSE_NAME",
        "PORT",
        "LOGIN",
        "DESTADDR",
        "DESTPORT",
    )
    assert POSTFIX.has("etrn")
    assert POSTFIX.params("VRFY") == ()


@pytest.mark.parametrize("none", [EMPTY, ehlo(), Extensions.from_ehlo(Reply(250, ("PIPELINING",)))])
def test_nothing_offered(none: Extensions) -> None:
    assert not any((none.pipelining, none.chunking, none.starttls, none.eightbitmime, none.smtputf8, none.dsn))
    assert none.size is None
    assert none.xclient == ()
    assert none.auth == frozenset()
    assert not none.has("PIPELINING")
    assert none.params("SIZE") == ()


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("SIZE", 0),
        ("SIZE 0", 0),
        ("size 35882577", 35882577),
        ("SIZE 99999999999999999999", 99999999999999999999),
        ("SIZE 999999999999999999999", 0),
        ("SIZE ten", 0),
        ("SIZE -1", 0),
        ("SIZE 1_0", 0),
        ("SIZE \u0663", None),
    ],
)
def test_size(line: str, size: int | None) -> None:
    assert ehlo(line).size == size


def test_keywords_are_ascii_in_any_case() -> None:
    assert ehlo("PipeLining").pipelining
    # str.upper() of a dotless i or a long s is ASCII; neither is a letter of a keyword.
    assert ehlo("P\u0131PEL\u0131N\u0131NG", "\u017fIZE 5", "\u017fTARTTLS") == ehlo()


@pytest.mark.parametrize("line", ["", " PIPELINING", "-PIPELINING", "PIPELINING\t", "XPIPELINING", "PIPE LINING"])
def test_not_pipelining(line: str) -> None:
    assert not ehlo(line).pipelining


def test_parameters_as_sent() -> None:
    assert ehlo("LIMITS RCPTMAX=100  MailMax=5 ").params("limits") == ("RCPTMAX=100", "MailMax=5")


def test_old_auth_form_alone() -> None:
    assert ehlo("AUTH=LOGIN").auth == {"LOGIN"}


def test_octets_that_are_not_text_hide_only_their_own_line() -> None:
    offered = ehlo("SIZE \udce9", "DSN")
    assert offered.size is None
    assert offered.dsn


def test_it_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        POSTFIX.keywords["XCLIENT"] = ()  # type: ignore[index]
