"""An auth service that fails: whatever it does, nobody is let in, nobody is told that his password is wrong, and the
client may try again (RFC 4954 section 6).

One real proxy; the service is a socket that answers with given octets, because no real HTTP server can be made to
send them. reference/auth_http.md section 7 is what a client of nginx sees.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from corpora import Case, cases, expand
from peers.process import HOST, LATE, free_port, wait_until
from rawclient import RawClient, plain
from recorder import Recorder
from stack import RELAY, SUBMISSION, Stack
from watch import leaked

DOWN = b"454 4.7.0 Temporary authentication failure\r\n"
LOOKUP_FAILED = b"451 4.3.0 Temporary lookup failure\r\n"
OK = b"250 2.0.0 OK\r\n"
PASSWORD = "Sesam-oeffne-dich-4711"
LOGIN = b"AUTH PLAIN " + plain("ann", PASSWORD)
TIMEOUT = 3.0  # seconds; `auth_http: timeout` below

AUTH_PORT, BACKEND_PORT = free_port(), free_port()


def answer(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


WAY = (f"Auth-Server: {HOST}", f"Auth-Port: {BACKEND_PORT}")
GOOD = answer("Auth-Status: OK", *WAY)


class FakeService:
    """Answers every request with `answer`, octet for octet, and hangs up; None: says nothing at all.

    drip: seconds between two octets. requests: what was asked, in raw octets.
    """

    def __init__(self, answer: bytes | None, port: int = AUTH_PORT, drip: float = 0.0) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self._drip = drip
        self._stopping = threading.Event()
        self._listener = socket.create_server((HOST, port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):  # the proxy may hang up in the middle of an answer
            request = b""
            while b"\r\n\r\n" not in request:
                data = sock.recv(65536)
                if not data:
                    return
                request += data
            self.requests.append(request)
            if self.answer is None:
                self._stopping.wait()
            elif self._drip:
                for octet in self.answer:
                    sock.sendall(bytes([octet]))
                    if self._stopping.wait(self._drip):
                        return
            else:
                sock.sendall(self.answer)


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = begun(start_module_stack)
    yield stack
    assert leaked(stack.show(), PASSWORD) == []


def begun(start: Callable[..., Stack], **keys: object) -> Stack:
    auth_http = {"url": f"http://{HOST}:{AUTH_PORT}/auth", "timeout": f"{TIMEOUT:g}s"}
    return start(
        [],
        listeners=[SUBMISSION, RELAY],
        auth_url=None,
        policy={"routes.yaml": "version: 1\n"},
        proxy={"auth_http": auth_http, **keys},
    )


@pytest.fixture
def client(stack: Stack) -> Iterator[RawClient]:
    with FakeService(GOOD):
        wait_until(lambda: lets_in(stack), "the service is asked again")  # drivers/authbreaker.py: once a second
    with RawClient(stack.proxy) as client:
        yield client.greeted()


def lets_in(stack: Stack) -> bool:
    with RawClient(stack.proxy) as client:
        return client.greeted().ask(LOGIN).startswith(b"235 ")


def test_a_good_answer_delivers(client: RawClient) -> None:
    """What the faults below are faults of."""
    with FakeService(GOOD) as service, Recorder(HOST, BACKEND_PORT) as backend:
        assert client.ask(LOGIN) == b"235 2.0.0 OK\r\n"
        assert client.deliver() == b"250 2.0.0 recorded\r\n"
        assert len(backend.messages) == 1
    assert len(service.requests) == 1


def test_the_status_code_counts_for_nothing(client: RawClient) -> None:
    """nginx does not look at it, so services exist that answer so."""
    with FakeService(answer("Auth-Status: OK", *WAY, status="500 Oops")), Recorder(HOST, BACKEND_PORT) as backend:
        assert client.ask(LOGIN) == b"235 2.0.0 OK\r\n"
        assert client.deliver() == b"250 2.0.0 recorded\r\n"
        assert len(backend.messages) == 1


NONSENSE = {
    "empty": (b"", "hung up"),
    "a line of nothing": (b"\r\n\r\n", "without Auth-Server"),
    "garbage": (b"\x16\x03\x01\x02\x00\xfe\xfd" * 40 + b"\r\n\r\n", "without Auth-Server"),
    "another protocol": (b"220 mail.example.com ESMTP\r\n\r\n", "without Auth-Server"),
    "cut off": (GOOD[:-2], "before the end of the header"),
    "no status, no way": (answer(), "without Auth-Server"),
    "OK, but no way": (answer("Auth-Status: OK"), "without Auth-Server"),
    "no port": (answer("Auth-Status: OK", WAY[0]), "without Auth-Server"),
    "port 0": (answer("Auth-Status: OK", WAY[0], "Auth-Port: 0"), "Auth-Port"),
    "port 65536": (answer("Auth-Status: OK", WAY[0], "Auth-Port: 65536"), "Auth-Port"),
    "port +25": (answer("Auth-Status: OK", WAY[0], "Auth-Port: +25"), "Auth-Port"),
    "port smtp": (answer("Auth-Status: OK", WAY[0], "Auth-Port: smtp"), "Auth-Port"),
    "host name": (answer("Auth-Status: OK", "Auth-Server: localhost", WAY[1]), "Auth-Server"),
    "host with port": (answer("Auth-Status: OK", f"Auth-Server: {HOST}:25", WAY[1]), "Auth-Server"),
    "underscore for hyphen": (answer("Auth_Status: no", *WAY), "Auth_Status"),
    "folded": (answer("Auth-Status: OK", WAY[0], " , 127.0.0.9", WAY[1]), "folded"),
    "20 kB of headers": (
        answer("Auth-Status: OK", *[f"X-{n}: {'a' * 1000}" for n in range(20)], *WAY),
        "more than 16384",
    ),
    "headers without end": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "more than 16384"),
    "404": (answer("Content-Length: 0", status="404 Not Found"), "HTTP 404"),
    "unknown pool": (answer("Auth-Status: OK", "Auth-Pool: no such", *WAY), "Auth-Pool"),
}


@pytest.mark.parametrize("fault", NONSENSE)
def test_no_answer_of_auth_http(fault: str, stack: Stack, client: RawClient) -> None:
    octets, reason = NONSENSE[fault]
    before = len(stack.log_events("auth_unavailable"))
    with FakeService(octets):
        assert client.ask(LOGIN) == DOWN
        assert client.ask(b"NOOP") == OK
    [line] = stack.log_events("auth_unavailable")[before:]
    assert reason in line["reason"]


def test_a_redirect_is_not_followed(client: RawClient) -> None:
    other = free_port()
    away = answer(f"Location: http://{HOST}:{other}/auth", "Content-Length: 0", status="302 Found")
    with FakeService(away), FakeService(GOOD, other) as there:
        assert client.ask(LOGIN) == DOWN
        assert client.ask(b"NOOP") == OK
    assert there.requests == []


def test_nobody_listens(stack: Stack, client: RawClient) -> None:
    assert client.ask(LOGIN) == DOWN
    assert client.ask(b"NOOP") == OK
    assert "ECONNREFUSED" in stack.output() or "Connection refused" in stack.output()


@pytest.mark.parametrize("drip", [0.0, 0.05])
def test_a_service_that_hangs_or_drips_has_its_time(drip: float, client: RawClient) -> None:
    """The time is for the whole question: an octet now and then does not stretch it."""
    with FakeService(GOOD * 20 if drip else None, drip=drip):
        started = time.monotonic()
        if drip:  # its first blank line must not come within the time
            assert len(GOOD) * drip > TIMEOUT
        assert client.ask(LOGIN) == DOWN
        assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + LATE
        assert client.ask(b"NOOP") == OK


def test_while_one_question_hangs_others_are_answered(stack: Stack, client: RawClient) -> None:
    with FakeService(None) as service, RawClient(stack.proxy) as second:
        second.greeted()
        client.send(LOGIN + b"\r\n")
        while not service.requests:
            assert client.reply(0.05) == b""
        service.answer = GOOD
        assert second.ask(LOGIN) == b"235 2.0.0 OK\r\n"
        assert client.reply(0.05) == b""  # it waits still
        assert client.reply() == DOWN


def test_a_service_that_is_away_for_recipients(stack: Stack) -> None:
    """A listener without AUTH asks for each RCPT: 451, the session stays, and nothing is sent."""
    with RawClient(stack.listeners["relay"]) as client, Recorder(HOST, BACKEND_PORT) as backend:
        client.greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>") == b"250 2.0.0 OK\r\n"
        assert client.ask(b"RCPT TO:<b@example.com>") == LOOKUP_FAILED
        assert client.ask(b"NOOP") == OK
        assert backend.conversations == []


@pytest.mark.parametrize("host", [pytest.param(HOST, id="own"), "127.0.0.1", "127.99.99.99", "::ffff:127.0.0.1"])
def test_an_answer_may_not_send_us_to_ourselves(host: str, stack: Stack, client: RawClient) -> None:
    """A loop would take every connection that there is."""
    port = stack.listeners["relay"][1]
    before = len(stack.log_events("auth_unavailable"))
    with FakeService(answer("Auth-Status: OK", f"Auth-Server: {host}", f"Auth-Port: {port}")):
        assert client.ask(LOGIN) == DOWN
        assert client.ask(b"NOOP") == OK
    [said] = stack.log_events("auth_unavailable")[before:]
    assert "is not allowed by backend.allow, or is a listener of ours" in said["reason"]


def test_an_answer_may_name_only_what_backend_allow_holds(start_stack: Callable[..., Stack]) -> None:
    stack = begun(start_stack, backend={"allow": [f"{HOST}/32"]})
    with FakeService(GOOD) as service, Recorder(HOST, BACKEND_PORT) as backend:
        with RawClient(stack.proxy) as client:
            client.greeted()
            assert client.ask(LOGIN) == b"235 2.0.0 OK\r\n"
            assert client.deliver() == b"250 2.0.0 recorded\r\n"
        with Recorder("127.0.0.1", BACKEND_PORT) as outside, RawClient(stack.proxy) as client:
            service.answer = answer("Auth-Status: OK", "Auth-Server: 127.0.0.1", WAY[1])
            client.greeted()
            assert client.ask(LOGIN) == DOWN
            assert outside.conversations == []
        assert len(backend.messages) == 1


@pytest.mark.parametrize(
    "case", [case for case in cases("hostile_commands.json") if "authsvc" in case], ids=lambda case: str(case["name"])
)
def test_a_user_name_does_not_become_a_header(case: Case, client: RawClient) -> None:
    with FakeService(answer("Auth-Status: no", "Auth-Wait: 0")) as service:
        client.send(expand(case["send"]))
        assert client.reply()[:1] == b"5"
    for request in service.requests:
        lines = request.split(b"\r\n")
        assert len([line for line in lines if line.lower().startswith(b"auth-user:")]) == 1
        assert re.fullmatch(rb"[\t -~]+", b"".join(lines))
        assert request.count(b"\r\n\r\n") == 1
        assert request.count(b"\n") == request.count(b"\r") == request.count(b"\r\n")


def test_an_envelope_does_not_become_a_header(stack: Stack) -> None:
    with FakeService(answer("Auth-Status: no", "Auth-Error-Code: 550", "Auth-Wait: 1")) as service:
        with RawClient(stack.listeners["relay"]) as client:
            client.greeted(b"client.example")
            assert client.ask(b'MAIL FROM:<"a%0D%0AAuth-Status: OK"@example.com>') == b"250 2.0.0 OK\r\n"
            assert client.ask(b"RCPT TO:<b%c@example.com>") == b"550 no\r\n"
    [request] = service.requests
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:-2])
    assert lines[b"Auth-SMTP-To"] == b"RCPT TO:<b%c@example.com>"
    assert b"Auth-Status" not in lines
