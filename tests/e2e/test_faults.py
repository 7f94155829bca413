"""Backends that fail, each in its own way and at each step: what the client is told, and how it goes on.

One real proxy; the backend is a recorder, because no real server can be made to do these things on demand. The
replies are those of reference/nginx_mail.md and the fault matrix of reference/security.md section 3: a 4xx that
claims nothing, on a session that stays.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from peers.process import HOST, LATE, free_port, pause, wait_until
from rawclient import RawClient
from recorder import Act, Recorder
from stack import RELAY, Stack
from watch import Memory

NO_BACKEND = b"451 4.4.1 no mail server available, try again later\r\n"
LOST = b"451 4.4.2 Mail server lost, try again later\r\n"
CONFUSED = b"451 4.3.0 Mail server broke the protocol, try again later\r\n"
DONE = b"250 2.0.0 recorded\r\n"
TEXT = b"Subject: x\r\n\r\nx\r\n"

ONE, TWO = free_port(), free_port()
SEARCH = 3.0  # seconds; `failover: deadline` below

# What one test does to a backend is not held against it in the next, and each session has a connection of its own.
FORGETFUL = """
    health: {probe: off}
    breaker: {max_open: 0%}
    reuse: {idle: 0s}"""

# A pool of one backend; one of two; and one that shows its backend's own words. The recipient chooses.
ROUTES = f"""
version: 1
routes:
  - {{name: two, match: {{rcpt_domain: two.example}}, pool: two}}
  - {{name: frank, match: {{rcpt_domain: frank.example}}, pool: frank}}
  - {{name: default, match: {{}}, pool: core}}
pools:
  core:{FORGETFUL}
    backends: [{{name: b1, addr: "{HOST}:{ONE}"}}]
    failover: {{deadline: {SEARCH:g}s}}
  two:{FORGETFUL}
    backends: [{{name: b1, addr: "{HOST}:{ONE}"}}, {{name: b2, addr: "{HOST}:{TWO}"}}]
    failover: {{deadline: {SEARCH:g}s}}
  frank:{FORGETFUL}
    pass_error_message: true
    backends: [{{name: b1, addr: "{HOST}:{ONE}"}}]
"""


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack]) -> Stack:
    return start_module_stack([], listeners=[RELAY], auth_url=None, policy={"routes.yaml": ROUTES})


@pytest.fixture
def backend() -> Iterator[Recorder]:
    """b1, well until told otherwise."""
    with Recorder(HOST, ONE) as recorder:
        yield recorder


@pytest.fixture
def other() -> Iterator[Recorder]:
    """b2."""
    with Recorder(HOST, TWO) as recorder:
        yield recorder


@pytest.fixture
def client(stack: Stack) -> Iterator[RawClient]:
    with RawClient(stack.proxy) as client:
        yield client.greeted()


def transaction(client: RawClient, recipient: bytes = b"b@example.com", text: bytes = TEXT) -> list[bytes]:
    """The replies to RCPT, DATA and the end; as far as it came."""
    assert client.ask(b"MAIL FROM:<a@example.com>") == b"250 2.0.0 OK\r\n"
    heard = [client.ask(b"RCPT TO:<%b>" % recipient)]
    if heard[-1].startswith(b"250"):
        heard.append(client.ask(b"DATA"))
    if heard[-1].startswith(b"354"):
        heard.append(client.end(text))
    return heard


def healed(client: RawClient, backend: Recorder) -> None:
    """The session goes on, as soon as its backend does, and nothing of the failed transaction is left."""
    backend.script = {}
    before = len(backend.messages)
    assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
    assert client.deliver(b"Subject: next\r\n\r\nnext\r\n") == DONE
    [message] = backend.messages[before:]
    assert message.text == b"Subject: next\r\n\r\nnext\r\n"
    assert message.recipients == (b"RCPT TO:<b@example.com>",)


# --- nobody there ------------------------------------------------------------------------------------------------


def test_no_backend(stack: Stack, client: RawClient) -> None:
    assert transaction(client) == [NO_BACKEND]
    assert client.ask(b"DATA") == b"503 5.5.1 Bad sequence of commands\r\n"
    with Recorder(HOST, ONE) as backend:
        healed(client, backend)
    assert stack.wait_for_event("backend_failed")[0]["reason"] == "b1: ECONNREFUSED: Connection refused"


def test_a_backend_that_takes_no_connection_costs_a_bounded_time(client: RawClient, other: Recorder) -> None:
    """Its listen queue is full: SYNs go unanswered, as where a firewall drops them."""
    with socket.create_server((HOST, ONE), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        started = time.monotonic()
        assert transaction(client) == [NO_BACKEND]
        assert SEARCH * 0.9 < time.monotonic() - started < SEARCH + LATE
        assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
        for _ in range(2):  # round robin: one of them begins with the dead one
            assert transaction(client, b"c@two.example")[-1] == DONE
            assert client.ask(b"EHLO again").startswith(b"250")
        for one in waiting:
            one.close()
    assert len(other.messages) == 2


def test_a_backend_that_never_greets_leaves_time_for_the_next(
    stack: Stack, backend: Recorder, other: Recorder
) -> None:
    """As a stopped process: the kernel takes the connection, nobody speaks."""
    backend.script = {"GREETING": Act(then="hang")}
    slowest = 0.0
    for _ in range(2):
        with RawClient(stack.proxy) as client:
            client.greeted()
            started = time.monotonic()
            assert transaction(client, b"c@two.example")[-1] == DONE
            slowest = max(slowest, time.monotonic() - started)
    assert len(other.messages) == 2
    assert SEARCH / 2 * 0.9 < slowest < SEARCH


# --- before the text: another backend, or 451, and the session stays ---------------------------------------------

EARLY = ["GREETING", "EHLO", "XCLIENT", "MAIL", "RCPT", "DATA"]
BREAKS: dict[str, Act] = {
    "closes": Act(then="close"),
    "resets": Act(then="reset"),
    "says 421": Act(b"421 4.3.2 going down\r\n", "close"),
    "says 421 and stays": Act(b"421 4.3.2 going down\r\n"),
    "garbage": Act(b"\x16\x03\x01\x02\x00\xff\r\n"),
    "no code": Act(b"ok\r\n"),
    "code 999": Act(b"999 ok\r\n"),
    "code 150": Act(b"150 ok\r\n"),
    "bare LF": Act(b"250 ok\n"),
    "mixed codes": Act(b"250-one\r\n550 two\r\n"),
    "a line of 64 KiB": Act(b"250 " + b"a" * 65536 + b"\r\n"),
    "1000 lines": Act(b"250-a\r\n" * 1000 + b"250 a\r\n"),
    "control octets": Act(b"250 ok \x1b[2J\x07\r\n"),
    "a NUL": Act(b"250 o\0k\r\n"),
    "half a reply": Act(b"250-half\r\n250", "close"),
}

GARBLED = BREAKS.keys() - {"closes", "resets", "says 421", "says 421 and stays", "half a reply"}
"""What is no SMTP, where the others are an end."""


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("step", EARLY)
def test_a_backend_that_breaks_before_the_text(step: str, fault: str, client: RawClient, backend: Recorder) -> None:
    backend.script = {step: BREAKS[fault]}
    heard = transaction(client)
    # Whoever was told that its recipient is fine had a mail server; before, there is none.
    after = CONFUSED if fault in GARBLED else LOST
    assert heard == ([b"250 2.1.5 recipient taken\r\n", after] if step == "DATA" else [NO_BACKEND])
    assert backend.messages == []
    healed(client, backend)


@pytest.mark.parametrize("fault", ["closes", "resets", "says 421", "garbage", "a line of 64 KiB", "half a reply"])
@pytest.mark.parametrize("step", EARLY)
def test_another_backend_takes_over_before_the_text(
    step: str, fault: str, stack: Stack, backend: Recorder, other: Recorder
) -> None:
    """Two sessions, so that round robin begins with the broken one once."""
    backend.script = {step: BREAKS[fault]}
    for name in (b"one", b"two"):
        with RawClient(stack.proxy) as client:
            client.greeted()
            heard = transaction(client, b"c@two.example", text=TEXT + name + b"\r\n")
            assert heard == [b"250 2.1.5 recipient taken\r\n", b"354 go ahead\r\n", DONE]
    assert len(backend.conversations) == 1
    assert [message.text for message in other.messages] == [TEXT + b"one\r\n", TEXT + b"two\r\n"]
    assert {message.recipients for message in other.messages} == {(b"RCPT TO:<c@two.example>",)}


@pytest.mark.parametrize(
    ("step", "reply"),
    [("GREETING", b"554 5.7.1 no service here\r\n"), ("EHLO", b"550 5.7.1 not you\r\n")],
)
def test_a_backend_that_refuses_the_session(
    step: str, reply: bytes, stack: Stack, client: RawClient, backend: Recorder
) -> None:
    backend.script = {step: Act(reply), "HELO": Act(reply)}
    assert transaction(client) == [NO_BACKEND]
    healed(client, backend)
    # Shown where the pool says so; then the session ends, as nginx's does.
    backend.script = {step: Act(reply), "HELO": Act(reply)}
    with RawClient(stack.proxy) as frank:
        frank.greeted()
        assert transaction(frank, b"b@frank.example") == [reply]
        assert frank.at_end()


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "XCLIENT"])
@pytest.mark.parametrize("reply", [b"421 4.3.2 full\r\n", b"450 4.3.2 later\r\n", b"554 5.7.1 not you\r\n"])
def test_another_takes_the_session_that_one_refuses(
    reply: bytes, step: str, stack: Stack, backend: Recorder, other: Recorder
) -> None:
    backend.script = {step: Act(reply), "HELO": Act(reply)}
    for _ in range(2):
        with RawClient(stack.proxy) as client:
            assert transaction(client.greeted(), b"c@two.example")[-1] == DONE
    assert (len(backend.messages), len(other.messages)) == (0, 2)


@pytest.mark.parametrize("code", [b"450 4.2.1 later", b"550 5.1.1 nobody"])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
def test_a_backends_own_refusal_is_passed_on(step: str, code: bytes, client: RawClient, backend: Recorder) -> None:
    backend.script = {step: Act(code + b"\r\n")}
    assert transaction(client)[-1] == code + b"\r\n"
    assert backend.messages == []
    healed(client, backend)


def test_the_time_of_a_slow_client_is_not_the_backends(client: RawClient, backend: Recorder) -> None:
    """Longer between RCPT and DATA than a backend may take to be found."""
    client.envelope()
    time.sleep(SEARCH + 0.2)
    assert client.opened().end(TEXT) == DONE
    assert len(backend.conversations) == 1


# --- in the text and after it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_backend_that_leaves_in_the_text(how: str, stack: Stack, client: RawClient, backend: Recorder) -> None:
    """The text is read to its end, whatever it is; then 451, and not one command of it is carried out."""
    backend.script = {"TEXT": Act(then=how)}  # type: ignore[arg-type]
    client.envelope().opened().send(TEXT)
    wait_until(lambda: backend.open == 0, "the backend has left")
    client.send(b"RSET\r\nQUIT\r\n" * 10_000)
    client.send(b".\r\n")
    assert client.reply() == LOST
    assert client.ask(b"RCPT TO:<b@example.com>") == b"503 5.5.1 Bad sequence of commands\r\n"
    healed(client, backend)
    assert stack.log_events("transaction", outcome="refused")[-1]["reply"].startswith("451 4.4.2 ")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"552 5.3.4 enough\r\n", b"552 5.3.4 enough\r\n"),
        (b"451 4.3.1 disk full\r\n", b"451 4.3.1 disk full\r\n"),
        (b"421 4.3.2 going down\r\n", LOST),
        (b"250 2.0.0 queued already\r\n", CONFUSED),
        (b"\0\r\n", CONFUSED),
    ],
)
@pytest.mark.parametrize("then", ["go on", "close"])
def test_what_a_backend_says_in_the_text_is_not_the_answer_to_its_end(
    said: bytes, expected: bytes, then: str, client: RawClient, backend: Recorder
) -> None:
    backend.script = {"TEXT": Act(said, then)}  # type: ignore[arg-type]
    client.envelope().opened().send(TEXT)
    wait_until(lambda: backend.conversations[0].octets.endswith(TEXT[:-2]), "the text has come")
    pause(0.1)  # for the reply to be on its way back
    client.send(b"more\r\n.\r\n")
    assert client.reply() == expected
    assert backend.messages == []
    healed(client, backend)


@pytest.mark.parametrize("fault", BREAKS)
def test_a_backend_that_is_lost_after_the_end_may_have_taken_it(
    fault: str, stack: Stack, client: RawClient, backend: Recorder, other: Recorder
) -> None:
    """451 that claims nothing, and nothing is sent twice: not to the same backend, and not to the other."""
    backend.script = {".": BREAKS[fault]}
    other.script = {".": BREAKS[fault]}
    told = CONFUSED if fault in GARBLED else LOST
    assert transaction(client, b"c@two.example")[-1] == told
    assert len(backend.conversations) + len(other.conversations) == 1
    assert stack.wait_for_event("transaction", outcome="unknown")[-1]["reply"].encode() == told.rstrip()
    healed(client, backend)


def test_250_comes_after_the_backends_250(client: RawClient, backend: Recorder) -> None:
    backend.script = {".": Act(DONE, delay=1.0)}
    client.envelope().opened()
    started = time.monotonic()
    client.send(TEXT + b".\r\n")
    assert client.reply(timeout=0.8) == b""
    assert not client.ended
    assert client.reply() == DONE
    heard = time.monotonic()
    [message] = backend.messages
    assert started + 1.0 <= message.answered <= heard


def test_354_comes_after_the_backends_354(client: RawClient, backend: Recorder) -> None:
    backend.script = {"DATA": Act(b"354 at last\r\n", delay=0.5)}
    client.envelope()
    started = time.monotonic()
    assert client.ask(b"DATA") == b"354 at last\r\n"
    assert time.monotonic() - started >= 0.5


# --- extra replies, and between transactions ---------------------------------------------------------------------


@pytest.mark.parametrize("step", ["RCPT", "DATA", "."])
def test_a_reply_too_many_is_never_the_answer_to_the_next_command(
    step: str, client: RawClient, backend: Recorder
) -> None:
    good = {"RCPT": b"250 2.1.5 taken\r\n", "DATA": b"354 go\r\n", ".": DONE}[step]
    backend.script = {step: Act(good + b"250 2.0.0 extra\r\n")}
    heard = transaction(client)
    if step == "RCPT":  # sent in one group with MAIL: nobody can tell which of three answers is whose
        assert heard == [NO_BACKEND]
        assert backend.messages == []
    elif step == "DATA":
        assert heard[1:] == [good, CONFUSED]
        assert backend.messages == []
    else:
        assert heard[2] == DONE
        assert len(backend.messages) == 1
    healed(client, backend)


@pytest.mark.parametrize(
    ("words", "leaves"),
    [
        (b"421 4.4.2 idle too long\r\n", True),
        (b"421 4.4.2 idle too long\r\n", False),
        (b"250 2.0.0 out of the blue\r\n", False),
        (b"", True),
    ],
)
def test_a_backend_that_stirs_between_transactions_is_replaced_unnoticed(
    words: bytes, leaves: bool, client: RawClient, backend: Recorder
) -> None:
    assert transaction(client)[-1] == DONE
    backend.interject(words, close=leaves)
    pause(0.1)
    assert transaction(client)[-1] == DONE
    assert [len(one.messages) for one in backend.conversations] == [1, 1]


def test_421_within_a_transaction_moves_it(stack: Stack, backend: Recorder, other: Recorder) -> None:
    """The backend goes down between RCPT and DATA, with two recipients accepted."""
    with RawClient(stack.proxy) as client:
        client.greeted().envelope(recipient=b"c@two.example")
        assert client.ask(b"RCPT TO:<d@two.example>").startswith(b"250 ")
        first, second = (backend, other) if backend.conversations else (other, backend)
        first.interject(b"421 4.3.2 going down\r\n", close=True)
        assert client.opened().end(TEXT) == DONE
    [message] = second.messages
    assert first.messages == []
    assert message.recipients == (b"RCPT TO:<c@two.example>", b"RCPT TO:<d@two.example>")


def test_a_recipient_that_the_second_backend_refuses_ends_the_transaction(
    stack: Stack, backend: Recorder, other: Recorder
) -> None:
    """What the client was told is fine cannot be taken back in silence."""
    with RawClient(stack.proxy) as client:
        client.greeted().envelope(recipient=b"c@two.example")
        first, second = (backend, other) if backend.conversations else (other, backend)
        second.script = {"RCPT": Act(b"550 5.1.1 not here\r\n")}
        first.interject(b"", close=True)
        assert client.ask(b"DATA") == LOST
        assert client.ask(b"RCPT TO:<d@two.example>") == LOST
        assert second.messages == first.messages == []


def test_a_backend_that_talks_without_end_is_cut(stack: Stack, client: RawClient, backend: Recorder) -> None:
    """100 MB of a reply that never ends, at each step: refused by its first 4096 octets."""
    memory = Memory(*stack.worker_pids())
    for reply in (b"250 " + b"a" * 10_000_000, b"250-" + b"a\r\n250-" * 1_000_000):
        backend.script = {"EHLO": Act(reply)}
        assert transaction(client) == [NO_BACKEND]
        assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
    assert memory.growth() < 4 * 1024 * 1024
    healed(client, backend)
