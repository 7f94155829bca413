"""XCLIENT and XFORWARD at the server protocol: who may say them, when, and what they change."""

from __future__ import annotations

import pytest

from smtpgate.smtp import replies
from smtpgate.smtp.events import Auth, Closed, Event, Hello, Mail, Xclient, Xforward
from smtpgate.smtp.replies import Reply, reply
from smtpgate.smtp.server import ServerProtocol, ServerSettings

SETTINGS = ServerSettings("mx.test", mechanisms=("PLAIN",))
GREETING = reply(220, "mx.test ESMTP ready")
LINES = (
    b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"
    b"250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n"
)


def serve(protocol: ServerProtocol, octets: bytes, *answers: Reply) -> tuple[list[Event], bytes]:
    """The events of `octets`, each answered in its turn with the next of `answers`, or 250; and what was said."""
    protocol.receive_data(octets)
    turns = iter(answers)
    events: list[Event] = []
    while (event := protocol.next_event()) is not None and not isinstance(event, Closed):
        events.append(event)
        own = protocol.hello_reply(event) if isinstance(event, Hello) else replies.OK
        protocol.send(next(turns, own))
    return events, protocol.data_to_send()


def test_who_may_not_is_answered_as_to_an_unknown_command_and_counted() -> None:
    protocol = ServerProtocol(SETTINGS)
    events, said = serve(protocol, b"EHLO x\r\nXCLIENT ADDR=192.0.2.1\r\nXFORWARD NAME=x\r\n")
    assert [type(event) for event in events] == [Hello]
    assert said == b"250-mx.test\r\n250 AUTH PLAIN\r\n" + 2 * b"500 5.5.1 Invalid command\r\n"
    assert protocol.impostures == 2
    _, said = serve(protocol, b"XCLIENT\r\n" * 3)
    assert said.endswith(b"500 5.5.1 Invalid command\r\n")
    assert protocol.closing


def test_who_may_is_told_so_and_becomes_another_client() -> None:
    protocol = ServerProtocol(SETTINGS, trusted=True)
    events, said = serve(protocol, b"EHLO x\r\nXFORWARD NAME=x\r\nXCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]\r\n")
    assert said.startswith(b"250-mx.test\r\n250-AUTH PLAIN\r\n" + LINES)
    assert events[1:] == [Xforward({"name": "x"}), Xclient(addr="192.0.2.1", name="")]
    assert protocol.impostures == 0


@pytest.mark.parametrize(
    ("login", "mail"), [(b"LOGIN=ann", True), (b"LOGIN=[UNAVAILABLE]", False), (b"ADDR=192.0.2.1", False)]
)
def test_a_login_is_an_authentication(login: bytes, mail: bool) -> None:
    protocol = ServerProtocol(SETTINGS, trusted=True)
    events, said = serve(protocol, b"XCLIENT " + login + b"\r\nMAIL FROM:<a@a.test>\r\n", GREETING)
    assert isinstance(events[-1], Mail) == mail
    assert protocol.standing.authenticated == mail
    assert said.endswith(b"250 2.0.0 OK\r\n" if mail else b"530 5.7.1 Authentication required\r\n")


def test_what_was_proven_before_is_forgotten() -> None:
    protocol = ServerProtocol(SETTINGS, trusted=True)
    events, said = serve(
        protocol,
        b"AUTH PLAIN AHUAcA==\r\nXCLIENT ADDR=192.0.2.1\r\nMAIL FROM:<a@a.test>\r\nAUTH PLAIN AHUAcA==\r\n",
        replies.AUTH_OK,
        GREETING,
        replies.AUTH_OK,
    )
    assert [type(event) for event in events] == [Auth, Xclient, Auth]
    assert said.splitlines() == [
        b"235 2.0.0 OK",
        b"220 mx.test ESMTP ready",
        b"530 5.7.1 Authentication required",
        b"235 2.0.0 OK",
    ]


def test_not_inside_a_transaction_and_not_before_tls() -> None:
    open_ = ServerProtocol(ServerSettings("mx.test", auth_required=False), trusted=True)
    assert serve(open_, b"MAIL FROM:<a@a.test>\r\nXCLIENT NAME=x\r\n")[1].endswith(
        b"503 5.5.1 Bad sequence of commands\r\n"
    )
    secure = ServerProtocol(ServerSettings("mx.test", tls="required"), trusted=True)
    assert serve(secure, b"XCLIENT LOGIN=x\r\n")[1] == b"530 5.7.0 Must issue a STARTTLS command first\r\n"


def test_faulty_attributes_change_nothing() -> None:
    protocol = ServerProtocol(SETTINGS, trusted=True)
    events, said = serve(protocol, b"XCLIENT FOO=bar\r\nXFORWARD\r\n")
    assert (events, said) == ([], 2 * b"501 5.5.4 Invalid argument\r\n")
