"""Dialogues, each cut in every way, and what the driver may rely on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from smtpgate.smtp import content, replies
from smtpgate.smtp.events import (
    NULL_SENDER,
    Address,
    Auth,
    AuthFault,
    AuthLine,
    Bdat,
    Body,
    BodyEnd,
    BodyFault,
    BodyFaulted,
    Closed,
    Data,
    Event,
    Hello,
    Mail,
    MailParams,
    Quit,
    Rcpt,
    RcptParams,
    Reset,
    StartTls,
)
from smtpgate.smtp.replies import Reply, reply
from smtpgate.smtp.server import ServerProtocol, ServerSettings
from smtpgate.smtp.settings import MAX_AUTH_LINE

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
CHUNKS = replace(OPEN, capabilities=("CHUNKING",))
AUTHED = ServerSettings("mx.test", mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"))

CLOSED = Closed(False, "client closed the connection")
GO_AHEAD = b"354 go ahead\r\n"
OK = b"250 2.0.0 OK\r\n"
BAD = b"500 5.5.1 Invalid command\r\n"
SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
MAIL_LINE = b"MAIL FROM:<a@a.test>"
RCPT_LINE = b"RCPT TO:<b@b.test>"
MAIL = Mail(Address("a", "a.test"), MailParams(), MAIL_LINE)
RCPT = Rcpt(Address("b", "b.test"), RcptParams(), RCPT_LINE)
ENVELOPE = MAIL_LINE + b"\r\n" + RCPT_LINE + b"\r\n"
UTF8_RCPT = "RCPT TO:<\u00e9@b.test>\r\n".encode()
PLAIN_GOOD = base64.b64encode(b"\0u\0p")


@dataclass(frozen=True)
class Dialogue:
    """What the client sends in all, what it gets in all, and what a flow is told.

    client: in several parts where it waits for our answers in between: behind a refused DATA that makes a difference.
    """

    name: str
    settings: ServerSettings
    client: bytes | tuple[bytes, ...]
    server: bytes
    events: list[Event]
    verdicts: dict[type, list[Reply]] | None = None
    tls: bool = False


DIALOGUES = [
    Dialogue(
        "two pipelined transactions",
        OPEN,
        b"EHLO c.test\r\n" + ENVELOPE + b"DATA\r\nhi\r\n..\r\n.\r\n" + ENVELOPE + b"DATA\r\n.\r\nQUIT\r\n",
        b"250 mx.test\r\n" + OK + OK + GO_AHEAD + OK + OK + OK + GO_AHEAD + OK + b"221 2.0.0 Bye\r\n",
        [
            Hello(True, "c.test"),
            *(MAIL, RCPT, Data(), Body(b"hi\r\n..\r\n"), BodyEnd(7, True, None)),
            *(MAIL, RCPT, Data(), BodyEnd(0, True, None)),
            Quit(),
            Closed(False, "client quit"),
        ],
    ),
    Dialogue(
        "answered here",
        OPEN,
        b"noop x\r\nVRFY a\r\nEXPN a\r\nHELP\r\nHELP\r\nHELP\r\nHELP\r\nNOOP\r\n",
        OK + BAD * 6 + OK,
        [CLOSED],
    ),
    Dialogue(
        "invalid commands up to the limit",
        replace(OPEN, max_errors=3),
        b"FOO\r\n\r\nNOOP\r\nNOOP a\0\r\nNOOP\r\n",
        BAD + BAD + OK + BAD,
        [Closed(False, "client sent too many invalid commands")],
    ),
    Dialogue(
        "out of sequence",
        OPEN,
        (b"RCPT TO:<b@b.test>\r\nDATA\r\n", ENVELOPE + b"MAIL FROM:<>\r\nRSET\r\nRCPT TO:<>\r\nSTARTTLS\r\n"),
        SEQUENCE + SEQUENCE + OK + OK + SEQUENCE + OK + SEQUENCE + BAD,
        [MAIL, RCPT, Reset(), CLOSED],
    ),
    Dialogue(
        "EHLO forgets the transaction, NOOP and VRFY do not",
        OPEN,
        ENVELOPE + b"NOOP\r\nVRFY \xc3\xa9@x\r\nHELO c\r\nDATA\r\n",
        OK + OK + OK + BAD + b"250 mx.test\r\n" + SEQUENCE,
        [MAIL, RCPT, Hello(False, "c"), CLOSED],
    ),
    Dialogue(
        "a refused MAIL or RCPT moves nothing",
        OPEN,
        MAIL_LINE + b"\r\n" + RCPT_LINE + b"\r\n" + ENVELOPE + RCPT_LINE + b"\r\nDATA\r\n.\r\n",
        b"450 4.7.1 later\r\n" + SEQUENCE + OK + b"550 5.1.1 no\r\n" + OK + GO_AHEAD + OK,
        [MAIL, MAIL, RCPT, RCPT, Data(), BodyEnd(0, True, None), CLOSED],
        {Mail: [reply(450, "4.7.1 later")], Rcpt: [reply(550, "5.1.1 no")]},
    ),
    Dialogue(
        "the end of data ends the transaction, however it is answered",
        OPEN,
        ENVELOPE + b"DATA\r\nx\r\n.\r\nRCPT TO:<c@c.test>\r\n",
        OK + OK + GO_AHEAD + b"451 4.4.2 lost\r\n" + SEQUENCE,
        [MAIL, RCPT, Data(), Body(b"x\r\n"), BodyEnd(3, True, None), CLOSED],
        {BodyEnd: [reply(451, "4.4.2 lost")]},
    ),
    Dialogue(
        "a refused DATA leaves the transaction",
        OPEN,
        (ENVELOPE + b"DATA\r\n", b"NOOP\r\nFOO\r\nDATA\r\n.\r\n"),
        OK + OK + b"451 4.3.0 not now\r\n" + OK + BAD + GO_AHEAD + OK,
        [MAIL, RCPT, Data(), Data(), BodyEnd(0, True, None), CLOSED],
        {Data: [reply(451, "4.3.0 not now")]},
    ),
    Dialogue(
        "text behind a refused DATA is not read as commands, even from a client that has waited",
        OPEN,
        (ENVELOPE + b"DATA\r\n", b"Subject: x\r\n\r\nMAIL FROM:<smug@x>\r\n.\r\n"),
        OK + OK + b"451 4.3.0 not now\r\n" + BAD,
        [MAIL, RCPT, Data(), Closed(False, "client sent text after a refused DATA")],
        {Data: [reply(451, "4.3.0 not now")]},
    ),
    Dialogue(
        "text behind a DATA out of sequence is not read as commands",
        OPEN,
        (b"DATA\r\n", b"Subject: x\r\n\r\nMAIL FROM:<smug@x>\r\n.\r\n"),
        SEQUENCE + BAD,
        [Closed(False, "client sent text after a refused DATA")],
    ),
    Dialogue(
        "before authentication",
        AUTHED,
        b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nDATA\r\nFOO\r\nNOOP\r\nDATA\r\nDATA\r\nNOOP\r\n",
        b"530 5.7.1 Authentication required\r\n" + SEQUENCE + BAD * 3 + OK + BAD * 2,
        [Closed(False, "client sent too many invalid commands")],
    ),
    Dialogue(
        "AUTH PLAIN in one line",
        AUTHED,
        b"EHLO c\r\nauth plain " + PLAIN_GOOD + b"\r\nMAIL FROM:<>\r\nAUTH LOGIN\r\nRSET\r\nAUTH LOGIN\r\nEHLO c\r\n",
        b"250-mx.test\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n235 2.0.0 OK\r\n"
        + OK
        + SEQUENCE
        + OK
        + SEQUENCE
        + b"250-mx.test\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n",
        [
            Hello(True, "c"),
            Auth("PLAIN", b"\0u\0p"),
            Mail(NULL_SENDER, MailParams(), b"MAIL FROM:<>"),
            Reset(),
            Hello(True, "c"),
            CLOSED,
        ],
    ),
    Dialogue(
        "AUTH PLAIN and LOGIN with challenges, wrong, then right",
        AUTHED,
        b"AUTH PLAIN\r\n" + base64.b64encode(b"\0u\0x") + b"\r\nAUTH LOGIN\r\ndQ==\r\ncA==\r\n",
        b"334 \r\n535 5.7.8 wrong\r\n334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 2.0.0 OK\r\n",
        [
            *(Auth("PLAIN"), AuthLine(b"\0u\0x")),
            *(Auth("LOGIN"), AuthLine(b"u"), AuthLine(b"p")),
            CLOSED,
        ],
    ),
    Dialogue(
        "AUTH cancelled, not base64, malformed, unknown: none of them counted",
        replace(AUTHED, max_errors=1),
        b"AUTH LOGIN\r\n*\r\nAUTH LOGIN\r\n@@@@\r\nAUTH LOGIN\r\nQUIT now\r\nAUTH PLAIN\r\nYQ==\r\n"
        b"AUTH CRAM-MD5 YQ==\r\nAUTH X\r\nAUTH\r\nAUTH PLAIN *\r\nAUTH PLAIN a b\r\nNOOP\r\n",
        (b"334 VXNlcm5hbWU6\r\n" + BAD) * 3
        + b"334 \r\n"
        + BAD * 3
        + b"501 5.5.4 Invalid argument\r\n"
        + BAD * 2
        + OK,
        [
            *(Auth("LOGIN"), AuthFault("cancelled")),
            *(Auth("LOGIN"), AuthFault("not base64")),
            *(Auth("LOGIN"), AuthFault("not base64")),
            *(Auth("PLAIN"), AuthLine(b"a")),
            Auth("CRAM-MD5", b"a"),
            CLOSED,
        ],
    ),
    Dialogue(
        "AUTH in a transaction",
        replace(AUTHED, auth_required=False),
        ENVELOPE + b"AUTH LOGIN\r\nRSET\r\nAUTH PLAIN =\r\n",
        OK + OK + SEQUENCE + OK + BAD,
        [MAIL, RCPT, Reset(), Auth("PLAIN", b""), CLOSED],
    ),
    Dialogue(
        "HELO demanded first",
        replace(AUTHED, helo_required=True),
        b"MAIL FROM:<>\r\nAUTH LOGIN\r\nRSET\r\nAUTH LOGIN\r\nHELO c\r\nAUTH PLAIN " + PLAIN_GOOD + b"\r\n",
        SEQUENCE + SEQUENCE + OK + SEQUENCE + b"250 mx.test\r\n235 2.0.0 OK\r\n",
        [Reset(), Hello(False, "c"), Auth("PLAIN", b"\0u\0p"), CLOSED],
    ),
    Dialogue(
        "TLS demanded first",
        replace(AUTHED, tls="required"),
        b"EHLO c\r\nAUTH LOGIN\r\nMAIL FROM:<>\r\n",
        b"250-mx.test\r\n250 STARTTLS\r\n" + b"530 5.7.0 Must issue a STARTTLS command first\r\n" * 2,
        [Hello(True, "c"), CLOSED],
    ),
    Dialogue(
        "TLS demanded and there",
        replace(AUTHED, tls="required"),
        b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<>\r\nAUTH PLAIN " + PLAIN_GOOD + b"\r\n",
        b"250-mx.test\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n"
        + BAD
        + b"530 5.7.1 Authentication required\r\n235 2.0.0 OK\r\n",
        [Hello(True, "c"), Auth("PLAIN", b"\0u\0p"), CLOSED],
        tls=True,
    ),
    Dialogue(
        "HTTP",
        OPEN,
        b"POST / HTTP/1.1\r\nHost: mx.test\r\n\r\nMAIL FROM:<smug@x>\r\n",
        b"521 5.5.1 This is an SMTP server\r\n",
        [Closed(False, "client speaks HTTP")],
    ),
    Dialogue(
        "a bare LF",
        OPEN,
        b"NOOP\r\nMAIL FROM:<a@a.test>\nRCPT TO:<smug@x>\r\n",
        OK + b"521 5.5.2 bare <LF> received\r\n",
        [Closed(False, "client sent bare LF")],
    ),
    Dialogue(
        "a bare LF in an exchange",
        AUTHED,
        b"AUTH LOGIN\r\ndQ==\ncA==\r\n",
        b"334 VXNlcm5hbWU6\r\n521 5.5.2 bare <LF> received\r\n",
        [Auth("LOGIN"), Closed(False, "client sent bare LF")],
    ),
    Dialogue(
        "an over-long line",
        replace(OPEN, max_line=32),
        b"NOOP " + b"a" * 25 + b"\r\nNOOP " + b"a" * 26 + b"\r\nQUIT\r\n",
        OK + BAD,
        [Closed(False, "client sent too long command")],
    ),
    Dialogue(
        "too many recipients",
        replace(OPEN, max_recipients=2),
        ENVELOPE + RCPT_LINE + b"\r\n" + RCPT_LINE + b"\r\n" + RCPT_LINE + b"\r\nDATA\r\n.\r\n" + ENVELOPE,
        OK + b"550 5.1.1 no\r\n" + OK + OK + b"452 4.5.3 Too many recipients\r\n" + GO_AHEAD + OK + OK + OK,
        [MAIL, RCPT, RCPT, RCPT, Data(), BodyEnd(0, True, None), MAIL, RCPT, CLOSED],
        {Rcpt: [reply(550, "5.1.1 no")]},
    ),
    Dialogue(
        "a bare newline in the text",
        OPEN,
        ENVELOPE + b"DATA\r\nfirst\n.\r\nMAIL FROM:<smug@x>\r\n.\r\nNOOP\r\n",
        OK + OK + GO_AHEAD + b"550 5.5.2 Message has a bare <CR> or <LF>\r\n" + OK,
        [
            *(MAIL, RCPT, Data()),
            BodyFaulted(BodyFault.BARE_NEWLINE),
            BodyEnd(29, True, BodyFault.BARE_NEWLINE),
            CLOSED,
        ],
    ),
    Dialogue(
        "a text that is too big",
        replace(OPEN, capabilities=("SIZE 5",)),
        b"MAIL FROM:<> SIZE=6\r\n" + ENVELOPE + b"DATA\r\n123\r\n6\r\n.\r\n" + ENVELOPE + b"DATA\r\n..3\r\n.\r\n",
        b"552 5.3.4 Message size exceeds fixed limit\r\n"
        + OK
        + OK
        + GO_AHEAD
        + b"552 5.3.4 Message size exceeds fixed limit\r\n"
        + OK
        + OK
        + GO_AHEAD
        + OK,
        [
            *(MAIL, RCPT, Data()),
            BodyFaulted(BodyFault.TOO_BIG),
            BodyEnd(8, True, BodyFault.TOO_BIG),
            *(MAIL, RCPT, Data(), Body(b"..3\r\n"), BodyEnd(4, True, None)),
            CLOSED,
        ],
    ),
    Dialogue(
        "the client goes away in the text",
        OPEN,
        ENVELOPE + b"DATA\r\nhalf a li",
        OK + OK + GO_AHEAD,
        [MAIL, RCPT, Data(), Closed(True, "client closed the connection")],
    ),
    Dialogue(
        "BDAT in chunks; a lone dot, a command and a cut CRLF are content",
        CHUNKS,
        b"EHLO c\r\n" + ENVELOPE + b"BDAT 5\r\na\r\n.\rBDAT 8\r\n\nQUIT\r\n\rBDAT 1 last\r\n\nQUIT\r\n",
        b"250-mx.test\r\n250 CHUNKING\r\n" + OK * 5 + b"221 2.0.0 Bye\r\n",
        [
            *(Hello(True, "c"), MAIL, RCPT),
            *(Bdat(5, False), Body(b"a\r\n."), BodyEnd(5, False, None)),
            *(Bdat(8, False), Body(b"\r\nQUIT\r\n"), BodyEnd(13, False, None)),
            *(Bdat(1, True), Body(b"\r\n"), BodyEnd(14, True, None)),
            *(Quit(), Closed(False, "client quit")),
        ],
    ),
    Dialogue(
        "BDAT 0 LAST, and the next transaction",
        CHUNKS,
        ENVELOPE + b"BDAT 1\r\nxBDAT 0 LAST\r\nBDAT 1\r\nx" + ENVELOPE + b"BDAT 0 LAST\r\n",
        OK * 4 + SEQUENCE + OK * 3,
        [
            *(MAIL, RCPT, Bdat(1, False), Body(b"x"), BodyEnd(1, False, None)),
            *(Bdat(0, True), BodyEnd(1, True, None)),
            *(MAIL, RCPT, Bdat(0, True), BodyEnd(0, True, None)),
            CLOSED,
        ],
    ),
    Dialogue(
        "BDAT that is not offered",
        OPEN,
        ENVELOPE + b"BDAT 6 LAST\r\nNOOP\r\n",
        OK + OK + b"502 5.5.1 BDAT is not offered here\r\n",
        [MAIL, RCPT, Closed(False, "closed with 502")],
    ),
    Dialogue(
        "BDAT out of sequence is swallowed",
        CHUNKS,
        b"BDAT 6 LAST\r\nQUIT\r\n" + MAIL_LINE + b"\r\nBDAT 6\r\nQUIT\r\nBDAT 0\r\nNOOP\r\n",
        SEQUENCE + OK + SEQUENCE + SEQUENCE + OK,
        [MAIL, CLOSED],
    ),
    Dialogue(
        "BDAT before authentication is swallowed and counted",
        replace(AUTHED, capabilities=("CHUNKING",), max_errors=2),
        b"BDAT 6 LAST\r\nQUIT\r\nBDAT 0\r\nNOOP\r\n",
        BAD + BAD,
        [Closed(False, "client sent too many invalid commands")],
    ),
    Dialogue(
        "after a refused chunk",
        CHUNKS,
        (
            ENVELOPE + b"BDAT 2\r\nabBDAT 6\r\nQUIT\r\n" + RCPT_LINE + b"\r\nBDAT 0 LAST\r\nDATA\r\n",
            ENVELOPE + b"BDAT 1 LAST\r\nx",
        ),
        OK + OK + b"451 4.3.0 no\r\n" + SEQUENCE * 4 + OK * 3,
        [
            *(MAIL, RCPT, Bdat(2, False), Body(b"ab"), BodyEnd(2, False, None)),
            *(MAIL, RCPT, Bdat(1, True), Body(b"x"), BodyEnd(1, True, None)),
            CLOSED,
        ],
        {BodyEnd: [reply(451, "4.3.0 no")]},
    ),
    Dialogue(
        "SMTPUTF8 holds for its transaction",
        replace(OPEN, capabilities=("SMTPUTF8",)),
        UTF8_RCPT + b"MAIL FROM:<> SMTPUTF8\r\n" + UTF8_RCPT + b"RSET\r\n" + MAIL_LINE + b"\r\n" + UTF8_RCPT,
        SEQUENCE + OK * 4 + b"553 5.6.7 Non-ASCII address needs SMTPUTF8 and valid UTF-8\r\n",
        [
            Mail(NULL_SENDER, MailParams(smtputf8=True), b"MAIL FROM:<> SMTPUTF8"),
            Rcpt(Address("\u00e9", "b.test"), RcptParams(), UTF8_RCPT[:-2]),
            *(Reset(), MAIL, CLOSED),
        ],
    ),
    Dialogue(
        "a fault in a chunk",
        CHUNKS,
        ENVELOPE + b"BDAT 3\r\na\nbBDAT 2 LAST\r\nxyRSET\r\n" + RCPT_LINE + b"\r\n",
        OK + OK + b"550 5.5.2 Message has a bare <CR> or <LF>\r\n" + SEQUENCE + OK + SEQUENCE,
        [
            *(MAIL, RCPT, Bdat(3, False), BodyFaulted(BodyFault.BARE_NEWLINE)),
            *(BodyEnd(3, False, BodyFault.BARE_NEWLINE), Reset(), CLOSED),
        ],
    ),
    Dialogue(
        "a CR at the end of all chunks",
        CHUNKS,
        ENVELOPE + b"BDAT 2\r\na\rBDAT 0 LAST\r\nNOOP\r\n",
        OK * 3 + b"550 5.5.2 Message has a bare <CR> or <LF>\r\n" + OK,
        [
            *(MAIL, RCPT, Bdat(2, False), Body(b"a"), BodyEnd(2, False, None)),
            *(Bdat(0, True), BodyFaulted(BodyFault.BARE_NEWLINE), BodyEnd(2, True, BodyFault.BARE_NEWLINE)),
            CLOSED,
        ],
    ),
    Dialogue(
        "chunks that are too big together",
        replace(CHUNKS, capabilities=("CHUNKING", "SIZE 5")),
        ENVELOPE + b"BDAT 4\r\nabcdBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
        OK * 3 + b"552 5.3.4 Message size exceeds fixed limit\r\n" + OK,
        [
            *(MAIL, RCPT, Bdat(4, False), Body(b"abcd"), BodyEnd(4, False, None)),
            *(BodyFaulted(BodyFault.TOO_BIG), Bdat(6, True), BodyEnd(10, True, BodyFault.TOO_BIG)),
            CLOSED,
        ],
    ),
    Dialogue(
        "a chunk that nobody would swallow",
        replace(CHUNKS, capabilities=("CHUNKING", "SIZE 5")),
        ENVELOPE + b"BDAT 99999999999 LAST\r\nNOOP\r\n",
        OK + OK + b"552 5.3.4 Message size exceeds fixed limit\r\n",
        [MAIL, RCPT, Closed(False, "client sent too much of a refused message")],
    ),
    Dialogue(
        "a chunk out of sequence that nobody would swallow",
        CHUNKS,
        b"BDAT 99999999999 LAST\r\nNOOP\r\n",
        SEQUENCE,
        [Closed(False, "client sent a huge BDAT out of sequence")],
    ),
    Dialogue(
        "a BDAT without a size",
        CHUNKS,
        ENVELOPE + b"BDAT 0x10 LAST\r\nNOOP\r\n",
        OK + OK + b"501 5.5.4 Invalid argument\r\n",
        [MAIL, RCPT, Closed(False, "client sent a faulty BDAT")],
    ),
    Dialogue(
        "DATA and MAIL between chunks, and a client that goes away there",
        CHUNKS,
        (ENVELOPE + b"BDAT 1\r\nxDATA\r\n", b"MAIL FROM:<>\r\n" + RCPT_LINE + b"\r\n"),
        OK * 3 + SEQUENCE * 3,
        [
            *(MAIL, RCPT, Bdat(1, False), Body(b"x"), BodyEnd(1, False, None)),
            Closed(True, "client closed the connection"),
        ],
    ),
    Dialogue(
        "a client that goes away in a chunk",
        CHUNKS,
        ENVELOPE + b"BDAT 9\r\nx\r\n",
        OK + OK,
        [MAIL, RCPT, Bdat(9, False), Closed(True, "client closed the connection")],
    ),
]


def cut_each(said: tuple[bytes, ...], cuts: Callable[[bytes], Iterator[list[bytes]]]) -> Iterator[list[bytes]]:
    """Each part cut in every way, beside the others whole."""
    for n, part in enumerate(said):
        for pieces in cuts(part):
            yield [*said[:n], *pieces, *said[n + 1 :]]


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_a_dialogue_does_not_depend_on_where_it_is_cut(
    dialogue: Dialogue, play: Any, cuts: Callable[[bytes], Iterator[list[bytes]]]
) -> None:
    said = dialogue.client if isinstance(dialogue.client, tuple) else (dialogue.client,)
    for pieces in cut_each(said, cuts):
        played = play(dialogue.settings, pieces, verdicts=dialogue.verdicts, tls=dialogue.tls, eof=True)
        assert played.out == dialogue.server, pieces
        assert played.events == dialogue.events, pieces


# --- the driver's contract ----------------------------------------------------------------------------------


def at(settings: ServerSettings, *lines: bytes) -> ServerProtocol:
    """A protocol that has read these lines and answered all of them with what lets them pass."""
    protocol = ServerProtocol(settings)
    for line in lines:
        protocol.receive_data(line)
        while (event := protocol.next_event()) is not None:
            if isinstance(event, Data):
                protocol.send(Reply(354, ("go ahead",)))
            elif not isinstance(event, Body | Bdat | BodyFaulted):
                protocol.send(replies.OK)
    return protocol


def test_nothing_is_parsed_on_receipt_and_the_greeting_is_nginxs() -> None:
    protocol = ServerProtocol(OPEN)
    protocol.greet()
    protocol.receive_data(b"NOOP\r\n")
    assert protocol.data_to_send() == b"220 mx.test ESMTP ready\r\n"
    assert protocol.buffered
    assert protocol.next_event() is None
    assert protocol.data_to_send() == OK
    assert protocol.data_to_send() == b""
    assert protocol.buffered == 0


def test_a_greeting_that_refuses_ends_the_dialogue() -> None:
    protocol = ServerProtocol(OPEN)
    protocol.receive_data(b"EHLO c\r\n")
    protocol.greet(reply(421, "4.7.0 too many connections", close=True))
    assert protocol.closing
    assert protocol.next_event() == Closed(False, "closed with 421")
    assert protocol.next_event() == Closed(False, "closed with 421")
    assert protocol.data_to_send() == b"421 4.7.0 too many connections\r\n"


def test_no_event_before_the_last_is_answered() -> None:
    protocol = ServerProtocol(OPEN)
    protocol.receive_data(b"EHLO a\r\nEHLO b\r\n")
    assert protocol.next_event() == Hello(True, "a")
    with pytest.raises(AssertionError, match="Hello was not answered"):
        protocol.next_event()
    protocol.send(replies.OK)
    assert protocol.next_event() == Hello(True, "b")


def test_answers_that_cannot_be_meant() -> None:
    with pytest.raises(AssertionError, match="no event waits for 250"):
        ServerProtocol(OPEN).send(replies.OK)

    protocol = at(OPEN, ENVELOPE)
    protocol.receive_data(b"DATA\r\n")
    assert protocol.next_event() == Data()
    with pytest.raises(AssertionError, match="250 to DATA"):
        protocol.send(replies.OK)

    protocol = at(OPEN, ENVELOPE, b"DATA\r\n")
    protocol.receive_data(b"a\n\r\n.\r\n")
    assert protocol.next_event() == BodyFaulted(BodyFault.BARE_NEWLINE)
    assert isinstance(protocol.next_event(), BodyEnd)
    with pytest.raises(AssertionError, match="250 to a message with"):
        protocol.send(replies.OK)

    protocol = ServerProtocol(OPEN)
    protocol.receive_data(b"EHLO a\r\n")
    protocol.next_event()
    with pytest.raises(AssertionError, match="no challenge can follow"):
        protocol.challenge(b"x")


def test_authenticated() -> None:
    protocol = ServerProtocol(AUTHED)
    protocol.receive_data(b"AUTH PLAIN AHUAcA==\r\n")
    assert protocol.next_event() == Auth("PLAIN", b"\0u\0p")
    assert not protocol.standing.authenticated
    protocol.send(replies.AUTH_OK)
    assert protocol.standing.authenticated


def test_a_closing_answer_ends_the_dialogue() -> None:
    protocol = ServerProtocol(AUTHED)
    protocol.receive_data(b"AUTH PLAIN AHUAcA==\r\nNOOP\r\n")
    protocol.next_event()
    protocol.send(reply(535, "5.7.0 no", close=True))
    assert protocol.closing
    assert protocol.next_event() == Closed(False, "closed with 535")
    protocol.receive_data(b"NOOP\r\n")
    assert protocol.buffered == 0
    assert protocol.next_event() == Closed(False, "closed with 535")
    assert protocol.data_to_send() == b"535 5.7.0 no\r\n"


@pytest.mark.parametrize(
    ("settings", "lines", "mid_body"),
    [
        (OPEN, [], False),
        (OPEN, [ENVELOPE], False),
        (OPEN, [ENVELOPE, b"DATA\r\nabc"], True),
        (OPEN, [ENVELOPE, b"DATA\r\n.\r\n"], False),
        (CHUNKS, [ENVELOPE, b"BDAT 9\r\nabc"], True),
        (CHUNKS, [ENVELOPE, b"BDAT 1\r\na"], True),
        (CHUNKS, [ENVELOPE, b"BDAT 1 LAST\r\na"], False),
        (CHUNKS, [b"BDAT 9\r\nabc"], False),
    ],
)
def test_abort_says_last_words_in_any_state(settings: ServerSettings, lines: list[bytes], mid_body: bool) -> None:
    protocol = at(settings, *lines)
    protocol.data_to_send()
    protocol.abort(reply(421, "4.4.2 timeout"))
    assert protocol.data_to_send() == b"421 4.4.2 timeout\r\n"
    assert protocol.closing
    assert protocol.next_event() == Closed(mid_body, "closed with 421")
    protocol.abort(replies.SHUTTING_DOWN)
    assert protocol.data_to_send() == b""


def test_abort_while_an_event_waits_for_its_answer() -> None:
    protocol = at(OPEN, ENVELOPE, b"DATA\r\n")
    protocol.receive_data(b"a\r\n.\r\n")
    assert protocol.next_event() == Body(b"a\r\n")
    assert protocol.next_event() == BodyEnd(3, True, None)
    protocol.abort(replies.TIMED_OUT)
    assert protocol.next_event() == Closed(False, "closed with 421")  # its text is complete

    protocol = at(OPEN, ENVELOPE, b"DATA\r\n")
    protocol.receive_data(b"a\r\n.\r\n")
    assert protocol.next_event() == Body(b"a\r\n")
    protocol.abort(replies.TIMED_OUT)
    assert protocol.next_event() == Closed(True, "closed with 421")  # nobody was told of its end


def test_what_was_said_before_the_end_of_the_stream_is_served() -> None:
    protocol = at(OPEN, ENVELOPE, b"DATA\r\n")
    protocol.receive_data(b"a\r\n.\r\nNOOP\r\nNOO")
    protocol.receive_eof()
    assert protocol.next_event() == Body(b"a\r\n")
    assert protocol.next_event() == BodyEnd(3, True, None)
    protocol.data_to_send()
    protocol.send(replies.OK)
    assert protocol.next_event() == CLOSED
    assert protocol.data_to_send() == OK + OK
    assert not protocol.closing


# --- a refused DATA with input behind it ------------------------------------------------------------------------

NOT_NOW = b"451 4.3.0 not now\r\n"
TEXTS = [b"RCPT TO:<smug@x>\r\n.\r\n", b"MAIL FROM:<smug@x>\r\n", b"Subject: x\r\n\r\nhi\r\n.\r\n", b".\r\n", b"R"]


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_behind_a_refused_data_is_carried_out(text: bytes, play: Any) -> None:
    """However much of it is here already: RFC 2920 lets DATA only be the last of its group."""
    end = Closed(False, "client sent text after a refused DATA")
    said = ENVELOPE + b"DATA\r\n" + text
    verdicts = {Data: [reply(451, "4.3.0 not now")]}
    for cut in range(len(ENVELOPE) + 7, len(said) + 1):
        played = play(OPEN, [said[:cut], said[cut:]], verdicts=verdicts)
        assert played.out == OK + OK + NOT_NOW
        assert played.events == [MAIL, RCPT, Data(), end]
        assert played.closing
    assert play(OPEN, [b"DATA\r\n" + text]).out == SEQUENCE
    assert play(OPEN, [b"DATA now\r\n" + text]).out == SEQUENCE
    argument = play(OPEN, [ENVELOPE + b"DATA now\r\n" + text])
    assert (argument.out, argument.ended) == (OK + OK + b"501 5.5.4 Invalid argument\r\n", end)


def test_a_refused_data_with_nothing_behind_it_leaves_the_session(play: Any) -> None:
    played = play(OPEN, [ENVELOPE + b"DATA\r\n", b"RSET\r\n"], verdicts={Data: [reply(451, "4.3.0 not now")]})
    assert played.out == OK + OK + NOT_NOW + OK
    assert played.ended is None


def test_the_driver_tells_of_what_lies_unread_behind_a_refused_data() -> None:
    protocol = at(OPEN, ENVELOPE)
    protocol.data_to_send()
    protocol.receive_data(b"DATA\r\n")
    protocol.next_event()
    assert not protocol.text_may_follow
    protocol.send(reply(451, "4.3.0 not now"))
    assert protocol.text_may_follow
    protocol.leave("text")
    assert protocol.data_to_send() == NOT_NOW
    assert protocol.closing
    assert protocol.next_event() == Closed(False, "text")
    protocol.leave("once more")
    assert protocol.next_event() == Closed(False, "text")


def test_the_next_command_says_that_no_text_follows() -> None:
    protocol = at(OPEN, b"DATA\r\n")
    assert protocol.text_may_follow
    protocol.receive_data(b"NO")
    assert protocol.next_event() is None
    assert protocol.text_may_follow
    protocol.receive_data(b"OP\r\n")
    assert protocol.next_event() is None
    assert not protocol.text_may_follow


# --- errors and junk --------------------------------------------------------------------------------------------

ENOUGH = b"421 4.7.0 Too many errors\r\n"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"NOOP", OK),
        (b"RSET", OK),
        (b"EHLO c", OK),
        (b"HELO c", OK),
        (b"VRFY a", BAD),
        (b"EXPN a", BAD),
        (b"HELP", BAD),
        (b"RCPT TO:<b@b.test>", SEQUENCE),
        (b"MAIL", b"501 5.5.4 Invalid argument\r\n"),
    ],
)
def test_beyond_max_junk_what_does_nothing_is_an_error(line: bytes, answer: bytes) -> None:
    protocol = ServerProtocol(replace(OPEN, max_junk=3, max_errors=2))
    for count in range(4):
        protocol.receive_data(line + b"\r\n")
        while protocol.next_event() is not None:
            protocol.send(replies.OK)
        assert protocol.data_to_send() == answer
        assert protocol.errors.count == (1 if count == 3 else 0)
    protocol.receive_data(line + b"\r\n")
    assert protocol.next_event() == Closed(False, "client sent too many commands that do nothing")
    assert protocol.data_to_send() == ENOUGH


def test_a_message_pays_for_what_came_before_it() -> None:
    protocol = at(replace(OPEN, max_junk=3, max_errors=1), *([b"NOOP\r\n"] * 3), ENVELOPE, b"DATA\r\n.\r\n")
    at_ease = [b"NOOP\r\n"] * 3
    for line in at_ease:
        protocol.receive_data(line)
        assert protocol.next_event() is None
    protocol.receive_data(b"NOOP\r\n")
    assert isinstance(protocol.next_event(), Closed)


def test_a_refused_message_pays_for_nothing() -> None:
    protocol = ServerProtocol(replace(OPEN, max_junk=1, max_errors=1))
    protocol.receive_data(b"NOOP\r\n" + ENVELOPE + b"DATA\r\n.\r\n")
    while (event := protocol.next_event()) is not None:
        refused = reply(550, "5.7.1 no")
        protocol.send(
            Reply(354, ("go ahead",))
            if isinstance(event, Data)
            else refused
            if isinstance(event, BodyEnd)
            else replies.OK
        )
    protocol.receive_data(b"NOOP\r\n")
    assert isinstance(protocol.next_event(), Closed)


@pytest.mark.parametrize(
    ("answer", "counted"),
    [(reply(535, "5.7.8 no"), True), (reply(454, "4.7.0 later"), False), (replies.AUTH_OK, False)],
)
def test_a_login_that_was_refused_is_junk_and_one_that_nobody_could_judge_is_not(
    answer: Reply, counted: bool
) -> None:
    protocol = ServerProtocol(replace(AUTHED, max_junk=0, max_errors=1))
    protocol.receive_data(b"AUTH PLAIN AHUAcA==\r\n")
    protocol.next_event()
    protocol.send(answer)
    assert protocol.closing == counted
    assert protocol.data_to_send() == (ENOUGH if counted else answer.wire())


def test_invalid_commands_are_counted_one_by_one() -> None:
    protocol = ServerProtocol(replace(OPEN, max_errors=3))
    protocol.receive_data(b"FOO\r\nNOOP\r\nFOO\r\n")
    assert protocol.next_event() is None
    assert protocol.errors.count == 2
    protocol.receive_data(b"FOO\r\nNOOP\r\n")
    assert protocol.next_event() == Closed(False, "client sent too many invalid commands")


# --- STARTTLS -----------------------------------------------------------------------------------------------

TLS = replace(AUTHED, tls="starttls", helo_required=True)


def encrypted(before: bytes, behind: bytes) -> ServerProtocol:
    """A protocol after a handshake, with what was said in clear before and behind STARTTLS."""
    protocol = ServerProtocol(TLS)
    protocol.receive_data(before + b"STARTTLS\r\n" + behind)
    while (event := protocol.next_event()) != StartTls():
        protocol.send(replies.AUTH_OK if isinstance(event, Auth) else replies.OK)
    protocol.send(replies.START_TLS)
    assert protocol.data_to_send().endswith(b"220 2.0.0 Start TLS\r\n")
    protocol.tls_started()
    return protocol


@pytest.mark.parametrize("behind", [b"", b"MAIL FROM:<smug@x>\r\n", b"MAIL FR", b"\x16\x03\x01"])
def test_octets_behind_starttls_are_forgotten(behind: bytes) -> None:
    protocol = encrypted(b"EHLO c\r\n", behind)
    assert protocol.buffered == 0
    assert protocol.next_event() is None
    protocol.receive_data(b"OM:<smug@x>\r\n")
    assert protocol.next_event() is None
    assert protocol.data_to_send() == BAD


def test_what_was_said_in_clear_is_forgotten() -> None:
    protocol = encrypted(b"EHLO c\r\nAUTH PLAIN AHUAcA==\r\n" + ENVELOPE, b"")
    assert not protocol.standing.authenticated
    protocol.receive_data(RCPT_LINE + b"\r\nMAIL FROM:<>\r\nSTARTTLS\r\nEHLO c\r\n")
    event = protocol.next_event()
    assert event == Hello(True, "c")
    assert protocol.hello_reply(event).lines == ("mx.test", "AUTH PLAIN LOGIN CRAM-MD5")
    protocol.send(replies.OK)
    protocol.receive_data(b"MAIL FROM:<>\r\n")
    assert protocol.next_event() is None
    assert protocol.data_to_send() == SEQUENCE + SEQUENCE + BAD + OK + b"530 5.7.1 Authentication required\r\n"


def test_starttls_refused_leaves_the_dialogue_in_clear() -> None:
    protocol = ServerProtocol(TLS)
    protocol.receive_data(b"STARTTLS\r\nNOOP\r\n")
    assert protocol.next_event() == StartTls()
    protocol.send(reply(454, "4.7.0 TLS not available"))
    assert protocol.next_event() is None
    assert protocol.data_to_send() == b"454 4.7.0 TLS not available\r\n" + OK


def test_between_the_220_and_the_handshake_nothing_is_read() -> None:
    protocol = ServerProtocol(TLS)
    with pytest.raises(AssertionError, match="no STARTTLS was answered"):
        protocol.tls_started()
    protocol.receive_data(b"STARTTLS\r\nNOOP\r\n")
    protocol.next_event()
    protocol.send(replies.START_TLS)
    with pytest.raises(AssertionError, match=r"tls_started\(\) not called"):
        protocol.next_event()


# --- bounds -------------------------------------------------------------------------------------------------


def test_an_endless_line_is_cut_off_at_its_limit() -> None:
    protocol = ServerProtocol(OPEN)
    for _ in range(3):
        protocol.receive_data(b"a" * 65536)
        event = protocol.next_event()
    assert event == Closed(False, "client sent too long command")
    assert protocol.buffered == 0
    assert protocol.data_to_send() == BAD


@pytest.mark.parametrize("octets", [4096, 4097 + 1])
def test_auth_has_a_line_limit_of_its_own(octets: int) -> None:
    response = base64.b64encode(b"x" * octets)
    for line in (b"AUTH PLAIN ", b"auth plain "):
        protocol = ServerProtocol(AUTHED)
        said = line + response[: (octets - len(line) - 2) // 4 * 4]
        said += b" " * (octets - 2 - len(said)) + b"\r\n"
        assert len(said) == octets
        protocol.receive_data(said)
        fits = octets <= MAX_AUTH_LINE
        assert isinstance(protocol.next_event(), Auth if fits else Closed)

    protocol = ServerProtocol(AUTHED)
    protocol.receive_data(b"AUTH PLAIN\r\n")
    protocol.next_event()
    protocol.challenge(b"")
    protocol.receive_data(response[: octets - 2].ljust(octets - 2, b"=") + b"\r\n")
    assert isinstance(protocol.next_event(), AuthLine | AuthFault if octets <= MAX_AUTH_LINE else Closed)


def test_a_refused_message_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_DISCARDED", 1000)
    protocol = at(replace(OPEN, capabilities=("SIZE 10",)), ENVELOPE, b"DATA\r\n")
    protocol.data_to_send()
    events = []
    for _ in range(5):
        protocol.receive_data(b"x" * 400)
        events.append(protocol.next_event())
    end = Closed(True, "client sent too much of a refused message")
    assert events == [BodyFaulted(BodyFault.TOO_BIG), None, end, end, end]
    assert protocol.data_to_send() == b"552 5.3.4 Message size exceeds fixed limit\r\n"
    assert protocol.closing


def test_a_flood_of_small_commands_is_a_loop_and_not_a_recursion() -> None:
    protocol = ServerProtocol(replace(CHUNKS, max_junk=10_000))
    protocol.receive_data(b"NOOP\r\n" * 5000 + b"BDAT 1\r\nx" * 5000)
    assert protocol.next_event() is None
    assert protocol.data_to_send() == OK * 5000 + SEQUENCE * 5000
