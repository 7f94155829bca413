from __future__ import annotations

import itertools

import pytest

from smtpgate.smtp import replies
from smtpgate.smtp.states import (
    AFTER_CONTENT,
    ALLOWED,
    ANSWERED_ANYWHERE,
    BARS,
    INVALID,
    ON_SUCCESS,
    OUT_OF_SEQUENCE,
    Bar,
    Refusal,
    State,
    Verb,
    refusal,
)

# The whole of legality where no bar is in force: the state after success, or the code that refuses.
TABLE = """
             HELO  EHLO  STARTTLS  AUTH  MAIL RCPT DATA BDAT  RSET  QUIT   XCLIENT XFORWARD
START        START START HANDSHAKE START MAIL 503  503  503   START CLOSED  START   START
MAIL         START START HANDSHAKE 503   503  RCPT 503  503   START CLOSED    503     503
RCPT         START START HANDSHAKE 503   503  RCPT TEXT CHUNK START CLOSED    503     503
BDAT         START START 503       503   503  503  503  CHUNK START CLOSED    503     503
BDAT_FAILED  START START 503       503   MAIL 503  503  503   START CLOSED    503     503
AUTH         503   503   503       503   503  503  503  503   503   503    503     503
TEXT         503   503   503       503   503  503  503  503   503   503    503     503
CHUNK        503   503   503       503   503  503  503  503   503   503    503     503
SKIP         503   503   503       503   503  503  503  503   503   503    503     503
HANDSHAKE    503   503   503       503   503  503  503  503   503   503    503     503
CLOSED       503   503   503       503   503  503  503  503   503   503    503     503
"""


def cell(state: State, verb: Verb) -> str:
    refused = refusal(verb, state, frozenset())
    return ON_SUCCESS[state][verb].name if refused is None else str(refused.reply.code)


def test_the_whole_table() -> None:
    header, *rows = TABLE.strip("\n").splitlines()
    verbs = [Verb[name] for name in header.split()]
    assert set(verbs) | set(ANSWERED_ANYWHERE) == set(Verb)
    assert [row.split()[0] for row in rows] == [state.name for state in State]
    for row in rows:
        name, *cells = row.split()
        assert [cell(State[name], verb) for verb in verbs] == cells, name


def test_allowed_is_what_may_succeed() -> None:
    for state, verb in itertools.product(State, Verb):
        assert (verb in ALLOWED[state]) == (verb in ON_SUCCESS[state])
    assert ALLOWED[State.BDAT] == {Verb.HELO, Verb.EHLO, Verb.BDAT, Verb.RSET, Verb.QUIT}


@pytest.mark.parametrize(
    ("verb", "bars", "code", "counted"),
    [
        (Verb.STARTTLS, {Bar.NO_STARTTLS}, b"500 5.5.1 Invalid command\r\n", False),
        (Verb.AUTH, {Bar.NO_TLS, Bar.NO_HELLO}, b"530 5.7.0 Must issue a STARTTLS command first\r\n", False),
        (Verb.AUTH, {Bar.NO_HELLO}, b"503 5.5.1 Bad sequence of commands\r\n", False),
        (Verb.AUTH, {Bar.AUTHENTICATED}, b"503 5.5.1 Bad sequence of commands\r\n", False),
        (Verb.MAIL, {Bar.NO_TLS, Bar.NO_AUTH}, b"530 5.7.0 Must issue a STARTTLS command first\r\n", False),
        (Verb.MAIL, {Bar.NO_HELLO, Bar.NO_AUTH}, b"503 5.5.1 Bad sequence of commands\r\n", False),
        (Verb.MAIL, {Bar.NO_AUTH}, b"530 5.7.1 Authentication required\r\n", False),
        (Verb.RCPT, {Bar.NO_AUTH, Bar.NO_TLS}, b"503 5.5.1 Bad sequence of commands\r\n", False),
        (Verb.DATA, {Bar.NO_AUTH}, b"500 5.5.1 Invalid command\r\n", True),
        (Verb.BDAT, {Bar.NO_AUTH}, b"500 5.5.1 Invalid command\r\n", True),
        (Verb.BDAT, {Bar.NO_AUTH, Bar.NO_CHUNKING}, b"502 5.5.1 BDAT is not offered here\r\n", False),
    ],
)
def test_bars_at_the_start(verb: Verb, bars: set[Bar], code: bytes, counted: bool) -> None:
    refused = refusal(verb, State.START, bars)
    assert refused is not None
    assert (refused.reply.wire(), refused.counted) == (code, counted)


def test_a_bar_keeps_out_no_other_command() -> None:
    for bar in Bar:
        kept_out = {verb for verb in ALLOWED[State.START] if refusal(verb, State.START, {bar})}
        assert kept_out == {verb for verb in ALLOWED[State.START] if bar in dict(BARS.get(verb, ()))}


def test_leaving_is_always_possible() -> None:
    reading = [state for state in State if ALLOWED[state]]
    for state, verb in itertools.product(reading, (Verb.RSET, Verb.QUIT, Verb.EHLO, Verb.HELO)):
        assert refusal(verb, state, frozenset(Bar)) is None


def test_what_is_answered_anywhere() -> None:
    assert {verb: reply.code for verb, reply in ANSWERED_ANYWHERE.items()} == {
        Verb.NOOP: 250,
        Verb.VRFY: 500,
        Verb.EXPN: 500,
        Verb.HELP: 500,
    }


def test_after_content() -> None:
    assert AFTER_CONTENT == {
        (True, True): State.START,
        (True, False): State.START,
        (False, True): State.BDAT,
        (False, False): State.BDAT_FAILED,
    }


def test_the_standing_refusals() -> None:
    assert Refusal(replies.INVALID_COMMAND, counted=True) == INVALID
    assert Refusal(replies.BAD_SEQUENCE, counted=False) == OUT_OF_SEQUENCE
