"""Clients that fail, or try it on: each has its reply, bounded memory and bounded time, and delivers nothing.

One real proxy with two listeners: `relay`, and `hasty`, whose clients have a second. The backend is a recorder:
what counts is what it did not get.
"""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from peers.process import HOST, LATE, free_port, wait_until
from rawclient import RawClient
from recorder import Act, Conversation, Recorder
from stack import RELAY, SUBMISSION, UNSHARED, Stack
from watch import Memory

PORT = free_port()
SECOND = 2.0  # `timeout` and `idle_timeout` of the hasty listener
ERROR_DELAY = 1.0
LIMIT = 10 * 1024 * 1024  # `SIZE 10485760`
MEGABYTE = 1024 * 1024
SLACK = 4 * MEGABYTE  # what a worker may grow by for a session, allocator's fragments included

OK = b"250 2.0.0 OK\r\n"
DONE = b"250 2.0.0 recorded\r\n"
TIMED_OUT = b"421 4.4.2 Timeout, closing connection\r\n"
INVALID = b"500 5.5.1 Invalid command\r\n"


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack]) -> Stack:
    brief = {"timeout": f"{SECOND:g}s", "idle_timeout": f"{SECOND:g}s"}
    patient = {**RELAY, "max_junk": 1000, "error_delay": "0s"}
    boundless = {"name": "boundless", "auth": ["none"], "capabilities": [], "error_delay": f"{ERROR_DELAY:g}s"}
    nobody = {"url": f"http://{HOST}:{free_port()}/", "envelope": "never"}
    return start_module_stack(
        [(HOST, PORT)],
        listeners=[patient, {"name": "hasty", "auth": ["none"], **brief}, boundless, SUBMISSION],
        pool=UNSHARED,
        auth_url=None,
        proxy={"auth_http": nobody},
    )


@pytest.fixture
def backend() -> Iterator[Recorder]:
    with Recorder(HOST, PORT) as recorder:
        yield recorder


@pytest.fixture
def client(stack: Stack) -> Iterator[RawClient]:
    with RawClient(stack.proxy) as client:
        yield client.greeted()


@pytest.fixture
def hasty(stack: Stack) -> Iterator[RawClient]:
    with RawClient(stack.listeners["hasty"]) as client:
        yield client


def settled(backend: Recorder) -> Conversation:
    """The only conversation, once it is over."""
    wait_until(lambda: bool(backend.conversations) and backend.open == 0, "the proxy has left its backend")
    [conversation] = backend.conversations
    return conversation


# --- gone --------------------------------------------------------------------------------------------------------


def reset(client: RawClient) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("tail", [b"", b"\r\n", b"\r\n.", b"\r\n.\r"])
@pytest.mark.parametrize("leave", [RawClient.close, reset], ids=["closes", "resets"])
def test_a_client_lost_in_its_text_delivers_nothing(
    leave: Callable[[RawClient], None], tail: bytes, client: RawClient, backend: Recorder
) -> None:
    """The backend connection is closed: no dot, no QUIT, nothing after the last octet of the text."""
    client.envelope().opened().send(b"Subject: x\r\n\r\nhalf" + tail)
    wait_until(lambda: backend.conversations[0].octets.endswith(b"half"), "the text is on its way")
    leave(client)
    conversation = settled(backend)
    assert conversation.messages == []
    assert conversation.in_text
    assert conversation.octets.endswith(b"\r\nSubject: x\r\n\r\nhalf")
    assert conversation.ended == "client closed"


def test_a_client_that_only_stops_sending_hears_the_outcome(client: RawClient, backend: Recorder) -> None:
    client.envelope().opened().send(b"Subject: x\r\n\r\nx\r\n.\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.reply() == DONE
    assert client.at_end()
    assert len(backend.messages) == 1


def test_a_client_lost_before_the_answer_has_sent_its_message(
    stack: Stack, client: RawClient, backend: Recorder
) -> None:
    backend.script = {".": Act(DONE, delay=0.3)}
    client.envelope(sender=b"gone@example.com").opened().send(b"Subject: x\r\n\r\nx\r\n.\r\n")
    client.close()
    [line] = stack.wait_for_event("transaction", sender="gone@example.com")
    assert line["outcome"] == "delivered"
    assert len(backend.messages) == 1


# --- slow --------------------------------------------------------------------------------------------------------


def timed_out(client: RawClient, since: float) -> None:
    assert client.reply() == TIMED_OUT
    assert SECOND * 0.9 < time.monotonic() - since < SECOND + LATE
    assert client.at_end()


@pytest.mark.parametrize("half", [b"", b"NOO", b"EHLO client.example\r\nMAIL FR"])
def test_a_silent_client_is_told_and_let_go(half: bytes, hasty: RawClient) -> None:
    since = time.monotonic()
    assert hasty.reply().startswith(b"220 ")
    hasty.send(half)
    if b"\r\n" in half:
        assert hasty.reply().startswith(b"250")
    timed_out(hasty, since)


def test_a_dripping_client_does_not_stretch_its_time(hasty: RawClient) -> None:
    """Before a backend is reached the time is for everything."""
    since = time.monotonic()
    assert hasty.reply().startswith(b"220 ")
    heard = b""
    while not heard:
        hasty.send(b"N")
        heard = hasty.reply(0.1)
    assert heard == TIMED_OUT
    assert time.monotonic() - since < SECOND + LATE


def test_a_client_silent_at_its_backend(hasty: RawClient, backend: Recorder) -> None:
    hasty.greeted().envelope()
    timed_out(hasty, time.monotonic())
    assert settled(backend).messages == []


def test_a_client_silent_in_its_text_delivers_nothing(hasty: RawClient, backend: Recorder) -> None:
    hasty.greeted().envelope().opened().send(b"Subject: x\r\n\r\nhalf\r\n")
    timed_out(hasty, time.monotonic())
    conversation = settled(backend)
    assert conversation.messages == []
    assert conversation.octets.endswith(b"half")


def flood(client: RawClient, octets: bytes) -> None:
    """64 times, unless the other side ends it with an OSError."""
    for _ in range(64):
        client.send(octets)


def test_a_client_that_never_reads(stack: Stack) -> None:
    """Its replies fill what the kernel holds; then it has its time, and memory does not grow."""
    memory = Memory(*stack.worker_pids())
    with RawClient(stack.listeners["hasty"], rcvbuf=4096) as client:
        since = time.monotonic()
        with pytest.raises(OSError):
            flood(client, b"NOOP\r\n" * 170_000)
        assert time.monotonic() - since < SECOND + LATE
    assert memory.growth() < SLACK


def test_a_slow_backend_slows_its_client(stack: Stack, backend: Recorder) -> None:
    """Backpressure: 32 MiB wait at the client, and not in the proxy."""
    memory = Memory(*stack.worker_pids())
    backend.script = {"TEXT": Act(delay=1.0)}
    text = (b"a" * 1022 + b"\r\n") * (32 * 1024)
    with RawClient(stack.listeners["boundless"]) as client:
        client.greeted().envelope().opened()
        heard: list[bytes] = []
        sender = threading.Thread(target=lambda: heard.append(client.end(text)))
        sender.start()
        wait_until(lambda: bool(backend.conversations) and backend.conversations[0].in_text, "the text has begun")
        time.sleep(0.5)
        assert memory.growth() < SLACK
        sender.join(30)
    assert heard == [DONE]
    assert backend.messages[0].text == text


# --- big ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"", b"NOOP ", b"AUTH PLAIN ", b"MAIL FROM:<"], ids=lambda start: start.decode())
def test_a_line_without_end_is_refused_within_bounded_memory(start: bytes, stack: Stack) -> None:
    memory = Memory(*stack.worker_pids())
    with RawClient(stack.listeners["submission"]) as client:
        client.greeted().send(start)
        with pytest.raises(OSError):  # the proxy has closed
            flood(client, b"a" * MEGABYTE)
    assert memory.growth() < SLACK
    with RawClient(stack.listeners["submission"]) as client:
        client.greeted().send(start + b"a" * 20_000)
        assert client.reply() == INVALID
        assert client.at_end()


def test_ten_megabytes_arrive_identical_within_bounded_memory(
    stack: Stack, client: RawClient, backend: Recorder
) -> None:
    chance = random.Random(1)
    lines = [bytes(chance.choices(b"\t !.~abcxyz\x80\xff", k=chance.randrange(998))) for _ in range(21_000)]
    text = b"Subject: big\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)
    assert 10_000_000 < len(text) < LIMIT
    stuffed = text.replace(b"\r\n.", b"\r\n..")
    memory = Memory(*stack.worker_pids())
    assert client.envelope().opened().end(stuffed) == DONE
    assert memory.growth() < SLACK
    [message] = backend.messages
    unstuffed = message.text.replace(b"\r\n..", b"\r\n.")
    assert hashlib.sha256(unstuffed).hexdigest() == hashlib.sha256(text).hexdigest()


TOO_BIG = b"552 5.3.4 Message size exceeds fixed limit\r\n"


def test_a_size_that_is_announced_too_big(client: RawClient, backend: Recorder) -> None:
    assert client.ask(b"MAIL FROM:<a@example.com> SIZE=%d" % (LIMIT + 1)) == TOO_BIG
    assert client.ask(b"MAIL FROM:<a@example.com> SIZE=%d" % LIMIT) == OK
    assert backend.conversations == []


def test_a_text_too_big_is_refused_after_its_end(client: RawClient, backend: Recorder) -> None:
    """Exactly one reply, whatever the rest of the text looks like; then the session goes on."""
    client.envelope().opened()
    client.send(b"a" * 70 + b"\r\n")
    for _ in range(11):
        client.send((b"a" * 1022 + b"\r\n") * 1024)
    assert client.reply(0.2) == b""
    assert client.end(b"RSET\r\nMAIL FROM:<smug@example.com>\r\n" * 1000) == TOO_BIG
    assert client.ask(b"DATA") == b"503 5.5.1 Bad sequence of commands\r\n"
    assert client.deliver() == DONE
    first, second = backend.conversations
    assert (first.messages, len(second.messages)) == ([], 1)
    assert b"smug" not in first.octets + second.octets


def test_a_text_of_exactly_the_limit_passes(client: RawClient, backend: Recorder) -> None:
    text = b"a" * (LIMIT - 2) + b"\r\n"
    assert client.envelope().opened().end(text) == DONE
    assert len(backend.messages[0].text) == LIMIT
    assert client.envelope().opened().end(b"a" + text) == TOO_BIG


# --- malformed ---------------------------------------------------------------------------------------------------

MALFORMED = [
    (b"FOO", INVALID),
    (b"", INVALID),
    (b"NO\0OP", INVALID),
    (b"NOOP \0", INVALID),
    (b"MAIL FROM:<a\0@example.com>", INVALID),
    (b"MAIL FROM:<a@example.com> " + b" ".join(b"X%d=1" % n for n in range(11)), INVALID),
    (b"NOOP " + b"x " * 12, INVALID),
    (b"EHLO", b"501 5.5.4 Invalid argument\r\n"),
    (b"MAIL", b"501 5.5.4 Invalid argument\r\n"),
    (b"MAIL FROM:a b", b"501 5.1.7 Bad sender address syntax\r\n"),
    (b"MAIL FROM:<a@example.com> FOO=1", b"555 5.5.4 Unsupported parameter\r\n"),
    (b"RCPT TO:<b@example.com>", b"503 5.5.1 Bad sequence of commands\r\n"),
    (b"DATA", b"503 5.5.1 Bad sequence of commands\r\n"),
    (b"STARTTLS", INVALID),
    (b"VRFY postmaster", INVALID),
    (b"AUTH PLAIN AGEAYg==", INVALID),  # not offered here
]


@pytest.mark.parametrize(("line", "reply"), MALFORMED)
def test_a_malformed_command_is_refused_and_the_session_stays(
    line: bytes, reply: bytes, client: RawClient, backend: Recorder
) -> None:
    assert client.ask(line) == reply
    assert client.deliver() == DONE
    assert len(backend.messages) == 1


@pytest.mark.parametrize(
    "exchange",
    [
        [b"AUTH PLAIN !!!!"],
        [b"AUTH PLAIN AGEAYg"],
        [b"AUTH PLAIN", b"*"],
        [b"AUTH PLAIN", b"not base64"],
        [b"AUTH PLAIN YWI="],  # no NUL inside
        [b"AUTH LOGIN", b"dXNlcg==", b"="],
        [b"AUTH LOGIN", b"@@@"],
        [b"AUTH CRAM-MD5", b"bm8gZGlnZXN0"],
        [b"AUTH NTLM"],
    ],
    ids=lambda exchange: b" ".join(exchange).decode(),
)
def test_a_malformed_login_asks_nobody_and_the_session_stays(exchange: list[bytes], stack: Stack) -> None:
    """The auth service is away: had it been asked, the answer would be 451."""
    with RawClient(stack.listeners["submission"]) as client:
        client.greeted()
        *first, last = exchange
        for line in first:
            assert client.ask(line).startswith(b"334 ")
        assert client.ask(last) == INVALID
        assert client.ask(b"MAIL FROM:<a@example.com>") == b"530 5.7.1 Authentication required\r\n"
        assert client.ask(b"NOOP") == OK


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"NOOP\nNOOP\r\n", b"521 5.5.2 bare <LF> received\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"521 5.5.1 This is an SMTP server\r\n"),
        (b"BDAT 5 LAST\r\nabcde", b"502 5.5.1 BDAT is not offered here\r\n"),
    ],
)
def test_what_cannot_be_a_mistake_ends_the_session(octets: bytes, reply: bytes, client: RawClient) -> None:
    client.send(octets)
    assert client.reply() == reply
    assert client.at_end()


def test_the_fifth_invalid_command_ends_the_session(client: RawClient) -> None:
    client.send(b"FOO\r\n" * 1000)
    assert [client.reply() for _ in range(5)] == [INVALID] * 5
    assert client.at_end()
    assert client.ended


def test_from_the_third_on_an_error_is_answered_later(stack: Stack) -> None:
    with RawClient(stack.listeners["boundless"]) as client:
        client.greeted()
        started = time.monotonic()
        assert [client.ask(b"FOO") for _ in range(2)] == [INVALID] * 2
        assert time.monotonic() - started < ERROR_DELAY
        assert client.ask(b"FOO") == INVALID
        assert ERROR_DELAY < time.monotonic() - started < ERROR_DELAY + LATE


def test_a_client_that_only_says_noop_is_let_go(stack: Stack) -> None:
    with RawClient(stack.listeners["boundless"]) as client:
        client.greeted()
        client.send(b"NOOP\r\n" * 1000)
        replies = client.replies(quiet=LATE)
        # The EHLO of greeted() is one of the hundred that are free.
        assert replies == [OK] * (100 - 1 + 4) + [b"421 4.7.0 Too many errors\r\n"]
        assert client.ended


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"a\nb\r\n", b"550 5.5.2 Message has a bare <CR> or <LF>\r\n"),
        (b"a\rb\r\n", b"550 5.5.2 Message has a bare <CR> or <LF>\r\n"),
        (b"a\0b\r\n", b"554 5.6.0 Message has a NUL octet\r\n"),
    ],
)
def test_a_malformed_text_is_refused_after_its_end_and_the_session_stays(
    octets: bytes, reply: bytes, client: RawClient, backend: Recorder
) -> None:
    client.envelope().opened().send(b"Subject: x\r\n\r\n" + octets)
    assert client.reply(0.2) == b""
    assert client.end(b"MAIL FROM:<smug@example.com>\r\n") == reply
    assert client.deliver() == DONE
    first, second = backend.conversations
    assert (first.messages, len(second.messages)) == ([], 1)


def test_a_thousand_commands_in_one_segment_are_answered_in_order(client: RawClient, backend: Recorder) -> None:
    """Pipelining (RFC 2920), transactions and all."""
    one = b"NOOP\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nRSET\r\nVRFY x\r\n"
    client.send(one * 200)
    told = [OK, OK, b"250 2.1.5 recipient taken\r\n", OK, INVALID]
    assert [client.reply() for _ in range(1000)] == told * 200
    assert len(backend.conversations) == 1
