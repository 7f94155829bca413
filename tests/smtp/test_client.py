"""Dialogues with a backend: octets out, replies in, states, at every split of what the backend says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpgate.smtp import encode
from smtpgate.smtp.client import (
    BackendProtocolError,
    ClientProtocol,
    ClientState,
    ConnectionEnded,
    LocalProtocolError,
    ProtocolViolation,
    ReplyError,
)
from smtpgate.smtp.extensions import EMPTY
from smtpgate.smtp.replies import Reply

EHLO = encode.ehlo("proxy.example.com")
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.com>\r\n"
GREETED = (b"", b"220 mx ESMTP\r\n")
PLAIN_EHLO = (EHLO, b"250-mx\r\n250 SIZE 1000\r\n")
PIPELINED_EHLO = (EHLO, b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 STARTTLS\r\n")
END = "end of data"

# A turn: what the driver does (octets: send them; END: end_data()), and what the backend says then.
Turn = tuple[bytes | str | tuple[bytes, ...], bytes]


def act(client: ClientProtocol, action: bytes | str | tuple[bytes, ...]) -> bytes:
    if action == b"":
        return b""
    if isinstance(action, str):
        return client.end_data()
    return client.send(*(action if isinstance(action, tuple) else (action,)))


def take(client: ClientProtocol, pieces: Iterator[bytes]) -> list[Reply]:
    """The driver's loop: all replies that are due, reading piece by piece, b"" at the end of the stream."""
    replies = []
    while client.awaiting:
        reply = client.next_reply()
        if reply is not None:
            replies.append(reply)
        elif data := next(pieces, b""):
            client.receive_data(data)
        else:
            client.receive_eof()
    return replies


def whole(wire: bytes) -> list[bytes]:
    return [wire]


def octets(wire: bytes) -> list[bytes]:
    return [wire[i : i + 1] for i in range(len(wire))]


def play(turns: list[Turn], cut: Callable[[bytes], list[bytes]] = whole) -> tuple[ClientProtocol, list[object]]:
    """Play a dialogue; a transcript of octets, replies and states, the error last if there was one."""
    client = ClientProtocol()
    transcript: list[object] = []
    for action, wire in turns:
        try:
            transcript.append(act(client, action))
            transcript.append([f"{reply.code} {reply.text}" for reply in take(client, iter(cut(wire)))])
        except BackendProtocolError as error:
            transcript.append(f"{type(error).__name__}: {error}")
        transcript.append(client.state.value)
    return client, transcript


def opened(turn: Turn = PIPELINED_EHLO, *more: Turn) -> ClientProtocol:
    client, _ = play([GREETED, turn, *more])
    return client


STEP_BY_STEP: list[Turn] = [
    GREETED,
    PLAIN_EHLO,
    (MAIL, b"250 2.1.0 Ok\r\n"),
    (RCPT, b"250 2.1.5 Ok\r\n"),
    (RCPT, b"550-5.1.1 no\r\n550 5.1.1 such user\r\n"),
    (b"DATA\r\n", b"354 go\r\n"),
    (END, b"250 2.0.0 queued\r\n"),
    (b"QUIT\r\n", b"221 bye\r\n"),
]
GROUPS: list[Turn] = [
    GREETED,
    PIPELINED_EHLO,
    ((MAIL, RCPT, RCPT, b"DATA\r\n"), b"250 a\r\n550 b\r\n250 c\r\n354 d\r\n"),
    (END, b"451 later\r\n"),
    ((b"RSET\r\n", MAIL, RCPT), b"250 a\r\n250 b\r\n250 c\r\n"),
    (b"BDAT 3\r\n", b"250 3\r\n"),
    (b"BDAT 0 LAST\r\n", b"250 queued\r\n"),
    ((b"RSET\r\n", b"QUIT\r\n"), b"250 a\r\n221 b\r\n"),
]
INTRODUCED: list[Turn] = [
    GREETED,
    (EHLO, b"250-mx\r\n250 XCLIENT NAME ADDR LOGIN\r\n"),
    (b"XCLIENT ADDR=192.0.2.7\r\n", b"220 mx ESMTP\r\n"),
    (b"HELO client\r\n", b"250 mx\r\n"),
    (b"AUTH PLAIN AGEAYg==\r\n", b"235 ok\r\n"),
]
NO_EHLO: list[Turn] = [GREETED, (EHLO, b"502 what?\r\n"), (b"HELO proxy\r\n", b"250 mx\r\n"), (MAIL, b"250 ok\r\n")]
SHUTDOWN: list[Turn] = [GREETED, PLAIN_EHLO, (MAIL, b"421 shutting down\r\n"), (RCPT, b"")]
SHIFTED: list[Turn] = [GREETED, PLAIN_EHLO, (MAIL, b"250 ok\r\n250 extra\r\n"), (RCPT, b"250 ok\r\n")]
CUT_OFF: list[Turn] = [GREETED, PIPELINED_EHLO, ((MAIL, RCPT), b"250 ok\r\n25")]
GARBAGE: list[Turn] = [GREETED, (EHLO, b"250-mx\r\n251 mx\r\n")]


@pytest.mark.parametrize(
    ("turns", "transcript"),
    [
        (
            STEP_BY_STEP,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, ["250 mx / SIZE 1000"], "ready"),
                *(MAIL, ["250 2.1.0 Ok"], "mail"),
                *(RCPT, ["250 2.1.5 Ok"], "rcpt"),
                *(RCPT, ["550 5.1.1 no / 5.1.1 such user"], "rcpt"),
                *(b"DATA\r\n", ["354 go"], "data"),
                *(b".\r\n", ["250 2.0.0 queued"], "ready"),
                *(b"QUIT\r\n", ["221 bye"], "closed"),
            ],
        ),
        (
            GROUPS,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, ["250 mx / PIPELINING / CHUNKING / STARTTLS"], "ready"),
                *(MAIL + RCPT + RCPT + b"DATA\r\n", ["250 a", "550 b", "250 c", "354 d"], "data"),
                *(b".\r\n", ["451 later"], "ready"),
                *(b"RSET\r\n" + MAIL + RCPT, ["250 a", "250 b", "250 c"], "rcpt"),
                *(b"BDAT 3\r\n", ["250 3"], "bdat"),
                *(b"BDAT 0 LAST\r\n", ["250 queued"], "ready"),
                *(b"RSET\r\nQUIT\r\n", ["250 a", "221 b"], "closed"),
            ],
        ),
        (
            INTRODUCED,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, ["250 mx / XCLIENT NAME ADDR LOGIN"], "ready"),
                *(b"XCLIENT ADDR=192.0.2.7\r\n", ["220 mx ESMTP"], "ready"),
                *(b"HELO client\r\n", ["250 mx"], "ready"),
                *(b"AUTH PLAIN AGEAYg==\r\n", ["235 ok"], "ready"),
            ],
        ),
        (
            NO_EHLO,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, ["502 what?"], "hello"),
                *(b"HELO proxy\r\n", ["250 mx"], "ready"),
                *(MAIL, ["250 ok"], "mail"),
            ],
        ),
        (
            SHUTDOWN,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, ["250 mx / SIZE 1000"], "ready"),
                *(MAIL, ["421 shutting down"], "closed"),
                *("ConnectionEnded: the backend closes the session: 421 'shutting down'", "closed"),
            ],
        ),
        (
            CUT_OFF,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, ["250 mx / PIPELINING / CHUNKING / STARTTLS"], "ready"),
                MAIL + RCPT,
                "ConnectionEnded: the backend closed the connection inside a reply before the reply to RCPT",
                "closed",
            ],
        ),
        (
            GARBAGE,
            [
                *(b"", ["220 mx ESMTP"], "hello"),
                *(EHLO, r"ReplyError: reply changes its code from 250 to 251: b'251 mx\r\n'", "closed"),
            ],
        ),
    ],
    ids=["step-by-step", "groups", "introduced", "no-ehlo", "shutdown", "cut-off", "garbage"],
)
def test_dialogue(turns: list[Turn], transcript: list[object]) -> None:
    assert play(turns)[1] == transcript
    assert play(turns, octets)[1] == transcript
    for split in range(1, max(len(wire) for _, wire in turns)):
        assert (
            play(turns, lambda wire, at=split: [wire[:at], wire[at:]] if at < len(wire) else [wire])[1] == transcript
        )


def test_a_reply_too_many_never_answers_the_next_command() -> None:
    _, transcript = play(SHIFTED)
    assert transcript[-2:] == ["ProtocolViolation: unsolicited reply 250 'extra'", "closed"]
    assert transcript[6:8] == [MAIL, ["250 ok"]]


# --- what may be sent when -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "commands", "reason"),
    [
        ([], [EHLO], "EHLO must wait for the reply to the greeting"),
        ([GREETED], [MAIL], "MAIL is not legal in state hello"),
        ([GREETED], [b"RSET\r\n"], "RSET is not legal in state hello"),
        ([(b"", b"554 go away\r\n")], [EHLO], "EHLO is not legal in state greeting"),
        ([GREETED, PLAIN_EHLO], [RCPT], "RCPT is not legal in state ready"),
        ([GREETED, PLAIN_EHLO], [b"DATA\r\n"], "DATA is not legal in state ready"),
        ([GREETED, PLAIN_EHLO, (MAIL, b"250 ok\r\n")], [MAIL], "MAIL is not legal in state mail"),
        ([GREETED, PLAIN_EHLO, (MAIL, b"250 ok\r\n")], [b"DATA\r\n"], "DATA is not legal in state mail"),
        ([GREETED, PLAIN_EHLO, (MAIL, b"250 ok\r\n")], [EHLO], "EHLO is not legal in state mail"),
        ([GREETED, PLAIN_EHLO, (MAIL, b"450 no\r\n")], [RCPT], "RCPT is not legal in state ready"),
        (STEP_BY_STEP[:6], [b"QUIT\r\n"], "QUIT is not legal in state data"),
        (STEP_BY_STEP[:6], [b"RSET\r\n"], "RSET is not legal in state data"),
        (STEP_BY_STEP, [EHLO], "EHLO is not legal in state closed"),
        ([GREETED, (EHLO, b"502 no\r\n")], [MAIL], "MAIL is not legal in state hello"),
        ([GREETED, PLAIN_EHLO], [MAIL, RCPT], "RCPT must wait for the reply to MAIL"),
        ([GREETED, PIPELINED_EHLO], [EHLO, MAIL], "MAIL must wait for the reply to EHLO"),
        ([GREETED, PIPELINED_EHLO], [b"XCLIENT NAME=a\r\n", MAIL], "MAIL must wait for the reply to XCLIENT"),
        (
            [GREETED, PIPELINED_EHLO],
            [MAIL, RCPT, b"BDAT 0 LAST\r\n", MAIL],
            "MAIL must wait for the reply to BDAT LAST",
        ),
        ([GREETED, PIPELINED_EHLO], [b"STARTTLS\r\n", EHLO], "EHLO is not legal in state tls"),
    ],
)
def test_illegal(turns: list[Turn], commands: list[bytes], reason: str) -> None:
    client, _ = play(turns)
    before = repr(client)
    with pytest.raises(LocalProtocolError) as illegal:
        client.send(*commands)
    assert str(illegal.value) == reason
    assert repr(client) == before, "all or nothing"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (b"", "a command is one line that ends in CRLF, without NUL"),
        (b"\r\n", "unknown command"),
        (b"RSET", "a command is one line that ends in CRLF, without NUL"),
        (b"RSET\n", "a command is one line that ends in CRLF, without NUL"),
        (b"RSET\r\nQUIT\r\n", "a command is one line that ends in CRLF, without NUL"),
        (b"MAIL FROM:<a\rb>\r\n", "a command is one line that ends in CRLF, without NUL"),
        (b"MAIL FROM:<a\0b>\r\n", "a command is one line that ends in CRLF, without NUL"),
        (b"NOOP\r\n", "unknown command"),
        (b"rset\r\n", "unknown command"),
        (b"end of data\r\n", "unknown command"),
        (b"BDATA 1\r\n", "unknown command"),
    ],
)
def test_not_a_command(command: bytes, reason: str) -> None:
    client = opened()
    with pytest.raises(LocalProtocolError, match=f"^{reason}"):
        client.send(command)
    assert client.awaiting == 0


def test_a_group_may_grow_while_it_is_answered() -> None:
    client = opened()
    client.send(MAIL)
    client.send(RCPT, RCPT)
    assert client.awaiting == 3
    client.receive_data(b"250 a\r\n")
    assert client.next_reply() == Reply(250, ("a",))
    client.send(b"DATA\r\n")
    client.receive_data(b"250 b\r\n250 c\r\n354 d\r\n")
    assert [client.next_reply() for _ in range(4)] == [
        Reply(250, ("b",)),
        Reply(250, ("c",)),
        Reply(354, ("d",)),
        None,
    ]
    assert client.state is ClientState.DATA


def test_the_next_transaction_may_follow_the_end_of_data() -> None:
    client = opened(PIPELINED_EHLO, *GROUPS[2:3])
    assert client.end_data() + client.send(MAIL, RCPT) == b".\r\n" + MAIL + RCPT
    assert take(client, iter([b"550 no\r\n250 a\r\n250 b\r\n"])) == [
        Reply(550, ("no",)),
        Reply(250, ("a",)),
        Reply(250, ("b",)),
    ]
    assert client.state is ClientState.RCPT


def test_end_data() -> None:
    client = opened()
    with pytest.raises(LocalProtocolError, match=r"^end of data is not legal in state ready$"):
        client.end_data()
    client = opened(*GROUPS[1:3])
    with pytest.raises(LocalProtocolError, match=r"^the terminator of a text is \.CRLF or CRLF\.CRLF$"):
        client.end_data(b"\n.\n")
    assert client.end_data(b"\r\n.\r\n") == b"\r\n.\r\n"
    assert client.awaiting == 1
    with pytest.raises(LocalProtocolError, match=r"^end of data is not legal in state ready$"):
        client.end_data()


# --- what the backend may answer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([(b"", b"354 mx\r\n")], "354 'mx' cannot answer the greeting"),
        ([GREETED, (EHLO, b"354 mx\r\n")], "354 'mx' cannot answer EHLO"),
        ([GREETED, PLAIN_EHLO, (b"AUTH PLAIN AGEAYg==\r\n", b"334 more\r\n")], "334 'more' cannot answer AUTH"),
        ([GREETED, PLAIN_EHLO, (MAIL, b"354 go\r\n")], "354 'go' cannot answer MAIL"),
        (
            [*STEP_BY_STEP[:5], (b"DATA\r\n", b"250 ok\r\n")],
            "250 'ok' cannot answer DATA",
        ),
        ([*STEP_BY_STEP[:6], (END, b"354 go\r\n")], "354 'go' cannot answer end of data"),
        (
            [GREETED, PIPELINED_EHLO, ((MAIL, RCPT), b"550 no\r\n250 ok\r\n")],
            "250 'ok' to RCPT in state ready",
        ),
        (
            [GREETED, PIPELINED_EHLO, ((MAIL, RCPT, b"DATA\r\n"), b"550 no\r\n503 no\r\n354 go\r\n")],
            "354 'go' to DATA in state ready",
        ),
        ([GREETED, PLAIN_EHLO, (b"RSET\r\n", b"500 what?\r\n")], "500 'what?' cannot answer RSET"),
        ([GREETED, PLAIN_EHLO, (b"RSET\r\n", "354 \u202e\x9b\r\n".encode())], r"354 '\u202e\x9b' cannot answer RSET"),
    ],
)
def test_wrong_kind_of_reply(turns: list[Turn], reason: str) -> None:
    client, transcript = play(turns)
    assert transcript[-2:] == [f"ProtocolViolation: {reason}", "closed"]
    for again in (client.next_reply, client.end_data, lambda: client.send(MAIL), client.tls_started):
        with pytest.raises(ProtocolViolation):
            again()


def test_354_although_every_recipient_was_refused() -> None:
    """RFC 2920 section 3.1 allows it."""
    client = opened(PIPELINED_EHLO, ((MAIL, RCPT, b"DATA\r\n"), b"250 a\r\n550 b\r\n354 c\r\n"))
    assert client.state is ClientState.DATA
    assert client.end_data() == b".\r\n"


def test_a_refused_chunk_needs_rset() -> None:
    client = opened(PIPELINED_EHLO, ((MAIL, RCPT), b"250 a\r\n250 b\r\n"), (b"BDAT 5 LAST\r\n", b"552 too big\r\n"))
    assert client.state is ClientState.BDAT
    assert not client.can_reuse
    with pytest.raises(LocalProtocolError, match=r"^MAIL is not legal in state bdat$"):
        client.send(MAIL)
    assert client.send(b"RSET\r\n", MAIL) == b"RSET\r\n" + MAIL


def test_each_chunk_is_answered() -> None:
    client = opened(PIPELINED_EHLO, ((MAIL, RCPT), b"250 a\r\n250 b\r\n"))
    for _ in range(3):
        client.send(encode.bdat(10, last=False))
    client.send(encode.bdat(0, last=True))
    assert client.awaiting == 4
    take(client, iter([b"250 a\r\n250 b\r\n250 c\r\n250 queued\r\n"]))
    assert client.state is ClientState.READY


# --- extensions ----------------------------------------------------------------------------------------


def test_extensions_follow_the_last_hello() -> None:
    client = ClientProtocol()
    assert client.extensions == EMPTY
    client = opened(PLAIN_EHLO)
    assert client.extensions.size == 1000
    client.send(EHLO)
    take(client, iter([b"554 no\r\n"]))
    assert client.extensions.size == 1000, "a refused EHLO changes nothing (RFC 5321 section 4.1.4)"
    client.send(b"HELO x\r\n")
    take(client, iter([b"250-mx\r\n250 SIZE 5\r\n"]))
    assert client.extensions == EMPTY


# --- TLS -----------------------------------------------------------------------------------------------


def test_starttls_forgets_what_was_said_in_clear() -> None:
    client = opened(PIPELINED_EHLO, (b"STARTTLS\r\n", b"220 go\r\n"))
    assert client.state is ClientState.TLS
    assert not client.can_reuse
    with pytest.raises(LocalProtocolError, match=r"^EHLO is not legal in state tls$"):
        client.send(EHLO)
    client.tls_started()
    assert client.state is ClientState.HELLO
    assert client.extensions == EMPTY
    client.send(EHLO)
    take(client, iter([b"250-mx\r\n250 DSN\r\n"]))
    assert client.extensions.dsn
    assert not client.extensions.starttls


@pytest.mark.parametrize("injected", [b"250 x\r\n", b"250-AUTH PLAIN\r\n", b"2", b"\x16\x03\x01", b"421 bye\r\n"])
@pytest.mark.parametrize("later", [False, True])
def test_response_injection_before_tls(injected: bytes, later: bool) -> None:
    client = opened()
    client.send(b"STARTTLS\r\n")
    client.receive_data(b"220 go\r\n" + (b"" if later else injected))
    assert client.next_reply() == Reply(220, ("go",))
    if later:
        client.receive_data(injected)
    with pytest.raises(ProtocolViolation, match=r"^octets in clear behind the 220 to STARTTLS"):
        client.tls_started()
    assert client.state is ClientState.CLOSED
    with pytest.raises(ProtocolViolation):
        client.send(EHLO)


def test_no_tls_without_220() -> None:
    client = opened(PIPELINED_EHLO, (b"STARTTLS\r\n", b"454 not now\r\n"))
    assert client.state is ClientState.READY
    with pytest.raises(LocalProtocolError, match=r"^TLS started in state ready, expected a 220 to STARTTLS$"):
        client.tls_started()


# --- the backend leaves --------------------------------------------------------------------------------


def test_an_unsolicited_421_is_a_farewell() -> None:
    client = opened()
    client.receive_data(b"421 4.4.2 idle too long\r\n")
    assert not client.can_reuse
    assert client.next_reply() is None
    assert client.farewell == Reply(421, ("4.4.2 idle too long",))
    assert client.state is ClientState.CLOSED
    client.receive_eof()
    assert client.next_reply() is None
    with pytest.raises(ConnectionEnded, match=r"^the backend closed the session: 421 '4\.4\.2 idle too long'$"):
        client.send(MAIL)


def test_a_farewell_nobody_has_looked_at_is_found_before_the_next_command() -> None:
    client = opened()
    client.receive_data(b"421 bye\r\n")
    with pytest.raises(ConnectionEnded):
        client.send(MAIL)
    assert client.farewell == Reply(421, ("bye",))
    assert client.awaiting == 0


def test_421_leaves_the_rest_of_the_group_unanswered() -> None:
    client = opened()
    client.send(MAIL, RCPT, RCPT)
    client.receive_data(b"250 a\r\n421 bye\r\n250 never\r\n")
    assert client.next_reply() == Reply(250, ("a",))
    assert client.next_reply() == Reply(421, ("bye",))
    assert client.farewell == Reply(421, ("bye",))
    assert client.awaiting == 1
    for _ in range(2):
        with pytest.raises(ConnectionEnded, match=r"^the backend closes the session: 421 'bye'$"):
            client.next_reply()


@pytest.mark.parametrize("code", [b"421", b"452", b"552", b"554"])
def test_the_text_is_refused_before_its_end(code: bytes) -> None:
    client = opened(*GROUPS[1:3])
    client.receive_data(code + b" enough\r\n500 what?\r\n")
    assert client.next_reply() is None
    assert client.farewell == Reply(int(code), ("enough",))
    assert client.state is ClientState.CLOSED
    with pytest.raises(ConnectionEnded):
        client.end_data()


def test_the_text_is_accepted_before_its_end() -> None:
    client = opened(*GROUPS[1:3])
    client.receive_data(b"250 queued\r\n")
    with pytest.raises(ProtocolViolation, match=r"^unsolicited reply 250 'queued'$"):
        client.end_data()
    assert client.farewell is None


def test_part_of_a_reply_that_nobody_asked_for() -> None:
    client = opened()
    client.receive_data(b"25")
    assert not client.can_reuse
    with pytest.raises(ProtocolViolation, match=r"^part of a reply that nobody asked for$"):
        client.send(MAIL)


def test_an_idle_backend_may_leave() -> None:
    client = opened()
    client.receive_eof()
    assert not client.can_reuse
    assert client.next_reply() is None
    assert client.state is ClientState.CLOSED
    assert client.farewell is None
    with pytest.raises(ConnectionEnded, match=r"^the backend closed the connection$"):
        client.send(MAIL)


def test_a_backend_gone_before_we_knew_is_not_written_to() -> None:
    client = opened()
    client.receive_eof()
    with pytest.raises(ConnectionEnded, match=r"^the backend closed the connection$"):
        client.send(MAIL)
    assert client.awaiting == 0


@pytest.mark.parametrize(
    ("turns", "due"),
    [
        ([(b"", b"")], "the greeting"),
        ([GREETED, (EHLO, b"")], "EHLO"),
        ([*STEP_BY_STEP[:5], (b"DATA\r\n", b"")], "DATA"),
        ([*STEP_BY_STEP[:6], (END, b"")], "end of data"),
    ],
)
def test_the_stream_ends_while_a_reply_is_due(turns: list[Turn], due: str) -> None:
    client, transcript = play(turns)
    reason = f"the backend closed the connection before the reply to {due}"
    assert transcript[-2:] == [f"ConnectionEnded: {reason}", "closed"]
    with pytest.raises(ConnectionEnded, match=f"^{reason}$"):
        client.next_reply()


def test_replies_before_the_end_of_the_stream_still_count() -> None:
    client = opened(*GROUPS[1:3])
    client.end_data()
    client.receive_data(b"250 queued\r\n")
    client.receive_eof()
    assert client.next_reply() == Reply(250, ("queued",))
    assert not client.can_reuse
    assert client.next_reply() is None
    assert client.state is ClientState.CLOSED


def test_the_greeting_refuses_us() -> None:
    client, transcript = play([(b"", b"554 5.7.1 go away\r\n"), (b"QUIT\r\n", b"221 bye\r\n")])
    assert transcript == [b"", ["554 5.7.1 go away"], "greeting", b"QUIT\r\n", ["221 bye"], "closed"]
    assert client.next_reply() is None


def test_nothing_is_said_after_quit() -> None:
    client = opened(PIPELINED_EHLO, (b"QUIT\r\n", b"221 bye\r\n"))
    client.receive_data(b"250 what\r\n")
    assert client.next_reply() is None
    with pytest.raises(LocalProtocolError, match=r"^MAIL is not legal in state closed$"):
        client.send(MAIL)


def test_the_driver_gives_up() -> None:
    client = opened()
    client.send(MAIL)
    client.abort("no reply to MAIL in 150 s")
    assert client.state is ClientState.CLOSED
    for again in (client.next_reply, lambda: client.send(RCPT)):
        with pytest.raises(ConnectionEnded, match=r"^no reply to MAIL in 150 s$"):
            again()
    client.abort("connection reset")
    with pytest.raises(ConnectionEnded, match=r"^no reply to MAIL in 150 s$"):
        client.next_reply()


def test_a_malformed_reply_is_for_ever() -> None:
    client = opened()
    client.send(MAIL)
    client.receive_data(b"250 ok\n")
    for _ in range(2):
        with pytest.raises(ReplyError):
            client.next_reply()
    client.receive_data(b"250 ok\r\n")
    with pytest.raises(ReplyError):
        client.send(RCPT)


# --- reuse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "reusable"),
    [
        ([], False),
        ([GREETED], False),
        ([GREETED, PLAIN_EHLO], True),
        ([GREETED, PLAIN_EHLO, (MAIL, b"250 ok\r\n")], False),
        ([GREETED, PLAIN_EHLO, (MAIL, b"450 ok\r\n")], True),
        ([GREETED, PLAIN_EHLO, (MAIL, b"250 ok\r\n"), (b"RSET\r\n", b"250 ok\r\n")], True),
        (STEP_BY_STEP[:5], False),
        (STEP_BY_STEP[:6], False),
        (STEP_BY_STEP[:7], True),
        (STEP_BY_STEP, False),
        (GARBAGE, False),
        (SHUTDOWN, False),
    ],
)
def test_can_reuse(turns: list[Turn], reusable: bool) -> None:
    assert play(turns)[0].can_reuse is reusable


def test_no_reuse_while_a_reply_is_due() -> None:
    client = opened()
    client.send(b"RSET\r\n")
    assert client.state is ClientState.READY
    assert not client.can_reuse


def test_what_has_come_and_was_not_handed_out() -> None:
    client = opened(PIPELINED_EHLO)
    client.send(b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n")
    seen = []
    for data in (b"250 a\r\n25", b"0 b\r\n"):
        client.receive_data(data)
        seen += [client.has_buffered, client.next_reply() is not None, client.has_buffered]
    assert seen == [True, True, True, True, True, False]


def test_it_shows_itself() -> None:
    client = opened()
    client.send(MAIL, RCPT)
    assert repr(client) == "<ClientProtocol ready, awaiting [MAIL, RCPT]>"


# --- any backend at all --------------------------------------------------------------------------------

COMMANDS = [
    EHLO,
    MAIL,
    RCPT,
    b"DATA\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"BDAT 1\r\n",
    b"BDAT 0 LAST\r\n",
    b"STARTTLS\r\n",
]
SAYINGS = [b"220 a\r\n", b"250 a\r\n", b"250-a\r\n", b"250 PIPELINING\r\n", b"354 a\r\n", b"421 a\r\n", b"550 a\r\n"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(COMMANDS), st.sampled_from(SAYINGS), st.just(b""), st.just(END)), max_size=25)
)
def test_no_reply_without_a_command(steps: list[bytes | str]) -> None:
    """Whatever is said in whatever order: at most one reply a command, and only documented errors."""
    client = ClientProtocol()
    asked = 1
    got = 0
    for step in [b"220 mx\r\n", EHLO, b"250-mx\r\n250 PIPELINING\r\n", *steps]:
        try:
            if step == END:
                client.end_data()
                asked += 1
            elif step in COMMANDS:
                client.send(step)
                asked += 1
            elif step:
                client.receive_data(step)
            else:
                client.receive_eof()
            while client.next_reply() is not None:
                got += 1
        except LocalProtocolError:
            pass
        except BackendProtocolError:
            assert client.state is ClientState.CLOSED
        assert got <= asked
        if client.state is not ClientState.CLOSED:
            assert asked - got == client.awaiting
        if client.can_reuse:
            assert asked == got
