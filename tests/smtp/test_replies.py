from __future__ import annotations

import re

import pytest

from smtpgate.smtp import replies
from smtpgate.smtp.events import BodyFault
from smtpgate.smtp.replies import Reply

CATALOGUE = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply(250, ("2.0.0 OK",)), b"250 2.0.0 OK\r\n"),
        (Reply(250, ("mx.test", "SIZE 1000", "8BITMIME")), b"250-mx.test\r\n250-SIZE 1000\r\n250 8BITMIME\r\n"),
        (Reply(550, ("5.1.1 no \udcff here",)), b"550 5.1.1 no \xff here\r\n"),
        (Reply(250, ("",)), b"250 \r\n"),
    ],
)
def test_wire(reply: Reply, wire: bytes) -> None:
    assert reply.wire() == wire


def test_closing_keeps_the_words() -> None:
    reply = Reply(500, ("5.5.1 Invalid command",))
    assert reply.closing() == Reply(500, ("5.5.1 Invalid command",), close=True)
    assert not reply.close


@pytest.mark.parametrize(
    ("name", "wire", "close"),
    [
        # reference/nginx_mail.md sections 3, 4.2 and 7
        ("OK", b"250 2.0.0 OK\r\n", False),
        ("BYE", b"221 2.0.0 Bye\r\n", True),
        ("START_TLS", b"220 2.0.0 Start TLS\r\n", False),
        ("AUTH_OK", b"235 2.0.0 OK\r\n", False),
        ("INVALID_COMMAND", b"500 5.5.1 Invalid command\r\n", False),
        ("INVALID_ARGUMENT", b"501 5.5.4 Invalid argument\r\n", False),
        ("BAD_SEQUENCE", b"503 5.5.1 Bad sequence of commands\r\n", False),
        ("AUTH_REQUIRED", b"530 5.7.1 Authentication required\r\n", False),
        ("INTERNAL_ERROR", b"451 4.3.2 Internal server error\r\n", True),
        ("EARLY_TALKER", b"503 5.5.0 Improper use of SMTP command pipelining\r\n", True),
        ("NO_CERTIFICATE", b"421 4.7.1 No required SSL certificate\r\n", True),
        # ours
        ("NOTHING_SHOWN", b"535 5.7.8 No certificate was shown\r\n", False),
        ("TLS_REQUIRED", b"530 5.7.0 Must issue a STARTTLS command first\r\n", False),
        ("BARE_NEWLINE", b"521 5.5.2 bare <LF> received\r\n", True),
        ("TOO_BIG", b"552 5.3.4 Message size exceeds fixed limit\r\n", False),
        ("AUTH_UNAVAILABLE", b"454 4.7.0 Temporary authentication failure\r\n", False),
        ("LOOKUP_FAILED", b"451 4.3.0 Temporary lookup failure\r\n", False),
        ("NO_RESOURCES", b"451 4.3.1 Out of resources, try again later\r\n", False),
        ("NO_BACKEND", b"451 4.4.1 No mail server available, try again later\r\n", False),
        ("BACKEND_CONFUSED", b"451 4.3.0 Mail server broke the protocol, try again later\r\n", False),
        ("TOO_MANY_RECIPIENTS", b"452 4.5.3 Too many recipients\r\n", False),
    ],
)
def test_the_words_on_the_wire(name: str, wire: bytes, close: bool) -> None:
    reply = CATALOGUE[name]
    assert (reply.wire(), reply.close) == (wire, close)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_reply_is_one_short_printable_line_whose_enhanced_code_fits(name: str) -> None:
    reply = CATALOGUE[name]
    assert len(reply.wire()) <= 512  # RFC 5321 section 4.5.3.1.5
    (line,) = reply.lines
    match = re.fullmatch(r"([245])\.[0-9]{1,3}\.[0-9]{1,3} [ -~]+", line)
    assert match is not None
    assert match[1] == str(reply.code)[0]  # RFC 2034 section 4


def test_replies_that_say_farewell_close() -> None:
    farewells = {name for name, reply in CATALOGUE.items() if reply.code in (221, 421, 521)}
    assert farewells == {
        *("BYE", "TIMED_OUT", "SHUTTING_DOWN", "BARE_NEWLINE", "NOT_HTTP", "NO_CERTIFICATE", "TOO_MANY_ERRORS"),
        *("TOO_MANY_SESSIONS", "TOO_MANY_OF_ADDRESS", "TOO_MANY_OF_NETWORK"),
    }
    assert all(CATALOGUE[name].close for name in farewells)


def test_every_fault_of_a_body_is_refused_for_good() -> None:
    assert {fault: reply.code for fault, reply in replies.BODY_FAULTS.items()} == {
        BodyFault.BARE_NEWLINE: 550,
        BodyFault.NUL: 554,
        BodyFault.TOO_BIG: 552,
    }


def test_parse() -> None:
    parsed = replies.parse("451 4.4.1 no mail server available, try again later")
    assert parsed == Reply(451, ("4.4.1 no mail server available, try again later",))
    assert replies.parse("421 4.7.0 bye", close=True) == Reply(421, ("4.7.0 bye",), close=True)


@pytest.mark.parametrize("text", ["", "250", "250 ", "999 zz", "199 zz", "250-a", "250 a\r\nb", "250 a\nb", "٢50 a"])
def test_parse_refuses_what_is_no_reply(text: str) -> None:
    with pytest.raises(ValueError, match="expected a code from 200 to 599, a space and a text"):
        replies.parse(text)
