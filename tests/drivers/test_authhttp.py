"""AuthHttp against a server that behaves, one that does not, and beside a real nginx."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest
from fakes import ManualClock
from gevent.event import Event
from gevent.server import StreamServer
from peers.fixtures import StartNginx
from peers.process import HOST, free_port
from turns import turns

from smtpgate.clock import SystemClock
from smtpgate.drivers.authbreaker import PAUSE
from smtpgate.drivers.authhttp import KEEP_OUT, NOT_ASKED, TOO_MANY_GUESSES, AuthHttp
from smtpgate.drivers.authlane import PLACES, Lane
from smtpgate.drivers.authwire import MAX_HEAD, write_request
from smtpgate.drivers.stream import SocketStream
from smtpgate.session.ports import AuthGranted, AuthQuery, AuthRefused, AuthUnavailable
from smtpgate.session.streams import Peer, StreamLost

QUERY = AuthQuery(
    method="plain",
    attempt=1,
    peer=Peer("192.0.2.7", 40000, "192.0.2.1", 25),
    client_host="[UNAVAILABLE]",
    user=b"ann",
    password=b"hunter2",
)
GRANTED = AuthGranted(server=("192.0.2.10", 25))
OK = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 192.0.2.10\r\nAuth-Port: 25\r\nContent-Length: 0\r\n\r\n"

Open = Callable[..., AuthHttp]


def without_length(response: bytes) -> bytes:
    return response.replace(b"Content-Length: 0\r\n", b"")


# --- asking ---


def test_one_request_and_its_answer(auth_server: Any, open_auth: Open) -> None:
    auth_server.say(OK)
    auth = open_auth(auth_server.url("/auth?tenant=1"), headers={"X-Auth-Key": "abc", "X-Two": "d e"})
    assert auth.ask(QUERY) == GRANTED
    static = [("X-Auth-Key", b"abc"), ("X-Two", b"d e")]
    assert auth_server.requests == [write_request("/auth?tenant=1", HOST, QUERY, static)]
    assert repr(auth) == f"<AuthHttp {HOST}:{auth_server.port}>"


def test_connections_are_kept(auth_server: Any, open_auth: Open) -> None:
    body = OK.replace(b"Content-Length: 0", b"Content-Length: 5000") + b"x" * 5000
    auth_server.say(OK, body, b"HTTP/1.1 204 No Content\r\nAuth-Status: no\r\n\r\n", OK)
    auth = open_auth(auth_server.url())
    refused = AuthRefused("535 5.7.0", "no", 0)
    assert [auth.ask(QUERY) for _ in range(5)] == [GRANTED, GRANTED, refused, GRANTED, GRANTED]
    assert auth_server.connections == 1


@pytest.mark.parametrize(
    "response",
    [
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length"),
        without_length(OK) + b"a body that only the end of the connection ends",
        without_length(OK).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        OK + b"more than was announced",
        OK.replace(b"Content-Length: 0", b"Content-Length: 70000"),
    ],
)
def test_a_connection_in_doubt_is_closed_and_the_answer_taken(
    auth_server: Any, open_auth: Open, response: bytes
) -> None:
    auth_server.say(response)
    auth = open_auth(auth_server.url())
    assert [auth.ask(QUERY), auth.ask(QUERY)] == [GRANTED, GRANTED]
    assert auth_server.connections == 2


def test_a_body_that_does_not_come_delays_little_and_costs_the_connection(auth_server: Any, open_auth: Open) -> None:
    auth_server.say(OK.replace(b"Content-Length: 0", b"Content-Length: 10"))
    auth = open_auth(auth_server.url(), timeout=0.05)
    assert auth.ask(QUERY) == GRANTED  # in spite of a deadline shorter than the wait for the body
    assert auth.ask(QUERY) == GRANTED
    assert auth_server.connections == 2


def test_an_answer_in_single_octets(auth_server: Any, open_auth: Open) -> None:
    def dribble(sock: gevent.socket.socket, _n: int) -> None:
        for octet in OK:
            sock.sendall(bytes([octet]))
            gevent.sleep(0)

    auth_server.behave = dribble
    auth = open_auth(auth_server.url())
    assert [auth.ask(QUERY), auth.ask(QUERY)] == [GRANTED, GRANTED]
    assert auth_server.connections == 1


def test_questions_at_once_are_bounded_and_nobody_is_forgotten(auth_server: Any, open_auth: Open) -> None:
    at_once, most = 0, 0

    def slow(sock: gevent.socket.socket, _n: int) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        gevent.sleep(0.01)
        at_once -= 1
        sock.sendall(OK)

    auth_server.behave = slow
    auth = open_auth(auth_server.url(), max_connections=4)
    jobs = [gevent.spawn(auth.ask, replace(QUERY, attempt=n)) for n in range(1, 41)]
    gevent.joinall(jobs, raise_error=True)
    assert [job.value for job in jobs] == [GRANTED] * 40
    assert (most, auth_server.connections) == (4, 4)
    attempts = sorted(int(request.split(b"Attempt: ")[1].split(b"\r")[0]) for request in auth_server.requests)
    assert attempts == list(range(1, 41))


def test_a_unix_socket(tmp_path: Path, open_auth: Open) -> None:
    listener = gevent.socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "auth.sock"))
    listener.listen()
    seen = []

    def serve(sock: gevent.socket.socket, _address: object) -> None:
        seen.append(sock.recv(65536))
        sock.sendall(OK)

    server = StreamServer(listener, serve)
    server.start()
    auth = open_auth(f"unix:{tmp_path}/auth.sock:/check?x=1")
    assert auth.ask(QUERY) == GRANTED
    assert seen == [write_request("/check?x=1", "localhost", QUERY)]
    server.stop()
    answer = auth.ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith(f"auth server unix:{tmp_path}/auth.sock: ")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate for HOST, its own authority, and its key."""
    paths = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=auth", "-addext", f"subjectAltName=IP:{HOST}"]
    command += ["-out", paths[0], "-keyout", paths[1]]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def test_https_believes_only_who_can_prove_the_name(certificate: tuple[str, str], open_auth: Open) -> None:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    seen = []

    def serve(sock: gevent.socket.socket, _address: object) -> None:
        while request := sock.recv(65536):
            seen.append(request)
            sock.sendall(OK)

    server = StreamServer((HOST, 0), serve, ssl_context=context)
    server.start()
    url = f"https://{HOST}:{server.server_port}/auth"
    trusting = open_auth(url, ca=certificate[0])
    assert [trusting.ask(QUERY), trusting.ask(QUERY)] == [GRANTED, GRANTED]
    assert seen == [write_request("/auth", HOST, QUERY)] * 2
    wary = open_auth(url).ask(QUERY)
    assert isinstance(wary, AuthUnavailable)
    assert "CERTIFICATE_VERIFY_FAILED" in wary.reason
    assert len(seen) == 2
    trusting.close()
    server.stop()


def test_https_shows_a_certificate_where_it_is_asked_for(certificate: tuple[str, str], open_auth: Open) -> None:
    """A server that takes our certificate alone (its own authority), and what it says of who has none."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(certificate[0])
    context.verify_mode = ssl.CERT_REQUIRED
    seen = []

    def serve(sock: Any, _address: object) -> None:
        while sock.recv(65536):
            seen.append(dict(field[0] for field in sock.getpeercert()["subject"])["commonName"])
            sock.sendall(OK)

    server = StreamServer((HOST, 0), serve, ssl_context=context)
    server.start()
    url = f"https://{HOST}:{server.server_port}/auth"
    assert open_auth(url, ca=certificate[0], certificate=certificate).ask(QUERY) == GRANTED
    assert seen == ["auth"]
    answer = open_auth(url, ca=certificate[0]).ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith(f"auth server {HOST}:{server.server_port}: ")
    assert len(seen) == 1
    server.stop()


def test_a_certificate_that_cannot_be_used_is_refused_at_once(open_auth: Open, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="PEM"):
        open_auth("https://auth.example/", certificate=(__file__, __file__))
    with pytest.raises(FileNotFoundError):
        open_auth("https://auth.example/", certificate=(str(tmp_path / "a"), str(tmp_path / "b")))


# --- faults: each is an AuthUnavailable that says why, in time ---


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"", "hung up without an answer"),
        (b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n", "hung up before the end of the header"),
        (b"garbage\0\xff", "hung up before the end of the header"),
        (b"garbage\r\n\r\n", "without Auth-Server and Auth-Port, or Auth-Pool"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP 502 without Auth-Server and Auth-Port, or Auth-Pool"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:6379/\r\n\r\n",
            "HTTP 302 without Auth-Server and Auth-Port, or Auth-Pool",
        ),
        (OK.replace(b"192.0.2.10", b"mta"), "Auth-Server 'mta'; expected an address"),
        (OK.replace(b": 25", b": smtp"), "Auth-Port 'smtp'; expected 1 to 65535"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", "header of more than 16384 octets"),
        (b"x" * (MAX_HEAD + 5000), "header of more than 16384 octets"),
    ],
)
def test_what_is_no_answer(auth_server: Any, open_auth: Open, response: bytes, reason: str) -> None:
    def once(sock: gevent.socket.socket, _n: int) -> bool:
        sock.sendall(response)
        return False

    auth_server.behave = once
    answer = open_auth(auth_server.url()).ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith(f"auth server {HOST}:{auth_server.port}: {reason}")
    assert len(auth_server.requests) == 1


def test_a_header_of_exactly_the_bound_is_read(auth_server: Any, open_auth: Open) -> None:
    filler = OK.replace(b"\r\n\r\n", b"\r\nX: \r\n\r\n")
    full = OK.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * (MAX_HEAD - len(filler)) + b"\r\n\r\n")
    assert len(full) == MAX_HEAD
    auth_server.say(full)
    assert open_auth(auth_server.url()).ask(QUERY) == GRANTED


def test_nobody_listens(open_auth: Open) -> None:
    port = free_port()
    answer = open_auth(f"http://{HOST}:{port}/").ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith(f"auth server {HOST}:{port}: ConnectionRefusedError: ")


def test_a_name_that_nobody_has(open_auth: Open) -> None:
    answer = open_auth("http://auth.invalid/").ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith("auth server auth.invalid:80: gaierror: ")


@pytest.mark.parametrize("between", [None, 0.02], ids=["silent", "dripping"])
def test_the_deadline_is_total(auth_server: Any, open_auth: Open, between: float | None) -> None:
    def hang(sock: gevent.socket.socket, _n: int) -> None:
        for octet in OK * 100:
            gevent.sleep(between or 30)
            sock.sendall(bytes([octet]))

    auth_server.behave = hang
    began = time.monotonic()
    answer = open_auth(auth_server.url(), timeout=0.3).ask(QUERY)
    assert answer == AuthUnavailable(f"auth server {HOST}:{auth_server.port}: no answer within 0.3 s")
    assert 0.25 < time.monotonic() - began < 10.0
    assert len(auth_server.requests) == 1


def test_waiting_for_a_free_connection_counts(auth_server: Any, open_auth: Open) -> None:
    auth_server.behave = lambda sock, n: gevent.sleep(30)
    clock = ManualClock()
    auth = open_auth(auth_server.url(), timeout=0.2, max_connections=1, clock=clock)
    jobs = [gevent.spawn(auth.ask, QUERY) for _ in range(3)]
    began = time.monotonic()
    gevent.joinall(jobs, raise_error=True)
    assert time.monotonic() - began < 10.0
    assert all(job.value.reason.endswith("no answer within 0.2 s") for job in jobs)
    auth_server.say(OK)
    clock.time += PAUSE
    assert auth.ask(QUERY) == GRANTED  # the slots came back


def test_a_callers_own_timeout_passes_through_and_frees_the_connection(auth_server: Any, open_auth: Open) -> None:
    auth_server.behave = lambda sock, n: gevent.sleep(30)
    auth = open_auth(auth_server.url(), max_connections=1)
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.1) as mine:
        auth.ask(QUERY)
    assert raised.value is mine
    auth_server.say(OK)
    assert auth.ask(QUERY) == GRANTED


def test_after_close_nothing_is_asked(auth_server: Any, open_auth: Open) -> None:
    auth = open_auth(auth_server.url())
    auth.close()
    answer = auth.ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.endswith("connection pool closed")
    assert auth_server.requests == []


def test_no_secret_in_any_reason(auth_server: Any, open_auth: Open) -> None:
    auth_server.say(b"HTTP/1.1 500 hunter2\r\nAuth-Pass: hunter2\r\nX: hunter2\r\n\r\n")
    answer = open_auth(auth_server.url("/?key=hunter2"), headers={"X-Key": "hunter2"}).ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert "hunter2" not in repr(answer)


# --- asking twice ---


def test_an_idle_connection_that_was_closed_is_noticed_before_it_is_used(auth_server: Any, open_auth: Open) -> None:
    def answer_and_close(sock: gevent.socket.socket, _n: int) -> bool:
        sock.sendall(OK)
        return False

    auth_server.behave = answer_and_close
    auth = open_auth(auth_server.url())
    for _ in range(3):
        assert auth.ask(QUERY) == GRANTED
        gevent.sleep(0.01)  # the close arrives
    assert (len(auth_server.requests), auth_server.connections) == (3, 3)


@pytest.mark.parametrize("rudely", [False, True], ids=["FIN", "RST"])
def test_a_kept_connection_that_breaks_without_an_answer_is_replaced_once(
    auth_server: Any, open_auth: Open, rudely: bool
) -> None:
    """The second question on the first connection gets no answer, as when a server closes an idle connection
    at the very moment; everything on the second connection works.
    """

    def behave(sock: gevent.socket.socket, n: int) -> bool:
        if n == 2:
            if rudely:
                linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        sock.sendall(OK)
        return True

    auth_server.behave = behave
    auth = open_auth(auth_server.url())
    assert [auth.ask(QUERY) for _ in range(3)] == [GRANTED] * 3
    assert (len(auth_server.requests), auth_server.connections) == (4, 2)


def test_the_second_try_is_on_a_new_connection_and_the_last(auth_server: Any, open_auth: Open) -> None:
    """Four connections are idle and the service has just lost its mind: 2 questions, not 5 and not 129."""
    auth_server.behave = lambda sock, n: (gevent.sleep(0.05), sock.sendall(OK))
    auth = open_auth(auth_server.url())
    gevent.joinall([gevent.spawn(auth.ask, QUERY) for _ in range(4)], raise_error=True)
    assert auth_server.connections == 4
    auth_server.behave = lambda sock, n: False
    answer = auth.ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.endswith("hung up without an answer")
    assert (len(auth_server.requests), auth_server.connections) == (4 + 2, 4 + 1)


@pytest.mark.parametrize("part", [b"H", OK[:-1]])
def test_once_an_octet_of_the_answer_was_seen_nothing_is_asked_again(
    auth_server: Any, open_auth: Open, part: bytes
) -> None:
    def behave(sock: gevent.socket.socket, n: int) -> bool:
        sock.sendall(OK if n == 1 else part)
        return n == 1

    auth_server.behave = behave
    auth = open_auth(auth_server.url())
    assert auth.ask(QUERY) == GRANTED
    assert isinstance(auth.ask(QUERY), AuthUnavailable)
    assert len(auth_server.requests) == 2


def test_a_timeout_is_never_asked_again(auth_server: Any, open_auth: Open) -> None:
    auth_server.behave = lambda sock, n: sock.sendall(OK) if n == 1 else gevent.sleep(30)
    auth = open_auth(auth_server.url(), timeout=0.2)
    assert auth.ask(QUERY) == GRANTED
    assert isinstance(auth.ask(QUERY), AuthUnavailable)
    assert len(auth_server.requests) == 2


def test_kept_connections_above_descriptor_1023(auth_server: Any, open_auth: Open) -> None:
    """select() knows none of those; a proxy with a thousand sessions would keep no connection."""
    auth_server.say(OK)
    auth = open_auth(auth_server.url())
    left, right = socket.socketpair()
    pads = [left.dup() for _ in range(1100)]
    try:
        assert [auth.ask(QUERY) for _ in range(3)] == [GRANTED] * 3
    finally:
        for pad in [left, right, *pads]:
            pad.close()
    assert auth_server.connections == 1


# --- several servers ---


@pytest.fixture
def granters(servers: list[Any]) -> list[Any]:
    """Three servers that grant, each with a pool of its own name."""
    for n, server in enumerate(servers):
        server.say(granting(n))
    return servers


def granting(n: int) -> bytes:
    return OK.replace(b"Auth-Status", b"Auth-Pool: s%d\r\nAuth-Status" % n)


def counts(servers: list[Any]) -> list[int]:
    return [len(server.requests) for server in servers]


def urls(servers: list[Any]) -> list[str]:
    return [server.url() for server in servers]


def test_the_first_server_is_asked_as_long_as_it_answers(granters: list[Any], open_auth: Open) -> None:
    auth = open_auth(urls(granters))
    assert [auth.ask(QUERY) for _ in range(3)] == [AuthGranted(pool="s0")] * 3
    assert counts(granters) == [3, 0, 0]
    assert repr(auth) == f"<AuthHttp {' '.join(f'{HOST}:{server.port}' for server in granters)}>"


def test_a_server_that_is_not_there_is_passed_over_and_the_next_one_remembered(
    granters: list[Any], open_auth: Open
) -> None:
    told: list[str] = []
    gone = free_port()
    auth = open_auth([f"http://{HOST}:{gone}/", *urls(granters[:2])], on_failover=told.append)
    assert [auth.ask(QUERY) for _ in range(3)] == [AuthGranted(pool="s0")] * 3
    assert counts(granters) == [3, 0, 0]
    assert len(told) == 1
    assert told[0].startswith(f"auth server {HOST}:{gone}: ConnectionRefusedError: ")


@pytest.mark.parametrize("fault", ["hangs up", "resets"])
def test_no_octet_of_an_answer_asks_the_next(granters: list[Any], open_auth: Open, fault: str) -> None:
    def behave(sock: gevent.socket.socket, _n: int) -> bool:
        if fault == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return False

    granters[0].behave = granters[1].behave = behave
    auth = open_auth(urls(granters))
    assert [auth.ask(QUERY), auth.ask(QUERY)] == [AuthGranted(pool="s2")] * 2
    assert counts(granters) == [1, 1, 2]


def test_a_silent_server_has_its_part_of_the_time(granters: list[Any], open_auth: Open) -> None:
    told: list[str] = []
    granters[0].behave = granters[1].behave = lambda sock, n: gevent.sleep(30)
    auth = open_auth(urls(granters), timeout=1.5, on_failover=told.append)
    began = time.monotonic()
    assert auth.ask(QUERY) == AuthGranted(pool="s2")
    assert 0.9 < time.monotonic() - began < 10.0
    assert [line.rpartition(": ")[2] for line in told] == ["no answer within 0.5 s"] * 2
    assert auth.ask(QUERY) == AuthGranted(pool="s2")
    assert counts(granters) == [1, 1, 2]


def test_an_answer_that_has_begun_may_take_the_rest_of_the_time(granters: list[Any], open_auth: Open) -> None:
    def slowly(sock: gevent.socket.socket, _n: int) -> None:
        sock.sendall(b"H")
        gevent.sleep(0.6)
        sock.sendall(granting(0)[1:])

    granters[0].behave = slowly
    auth = open_auth(urls(granters), timeout=1.5)
    assert auth.ask(QUERY) == AuthGranted(pool="s0")
    assert counts(granters) == [1, 0, 0]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"H", "hung up before the end of the header"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP 502 without Auth-Server and Auth-Port, or Auth-Pool"),
        (b"HTTP/1.1 200 OK\r\nAuth_Status: no\r\n\r\n", "header name 'Auth_Status'; expected letters and hyphens"),
    ],
)
def test_an_answer_that_has_begun_is_the_answer_and_the_next_question_goes_elsewhere(
    granters: list[Any], open_auth: Open, octets: bytes, reason: str
) -> None:
    def once(sock: gevent.socket.socket, _n: int) -> bool:
        sock.sendall(octets)
        return False

    granters[0].behave = once
    auth = open_auth(urls(granters))
    answer = auth.ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith(f"auth server {HOST}:{granters[0].port}: {reason}")
    assert counts(granters) == [1, 0, 0]
    assert auth.ask(QUERY) == AuthGranted(pool="s1")


def test_a_refusal_is_an_answer(granters: list[Any], open_auth: Open) -> None:
    granters[0].say(b"HTTP/1.1 204 No Content\r\nAuth-Status: no\r\n\r\n")
    assert open_auth(urls(granters)).ask(QUERY) == AuthRefused("535 5.7.0", "no", 0)
    assert counts(granters) == [1, 0, 0]


def test_the_deadline_is_one_for_all_servers(granters: list[Any], open_auth: Open) -> None:
    for server in granters:
        server.behave = lambda sock, n: gevent.sleep(30)
    auth = open_auth(urls(granters), timeout=1.5)
    began = time.monotonic()
    answer = auth.ask(QUERY)
    assert 1.4 < time.monotonic() - began < 10.0
    assert answer == AuthUnavailable(f"auth server {HOST}:{granters[2].port}: no answer within 1.5 s")
    assert counts(granters) == [1, 1, 1]


def test_a_server_that_comes_back_is_found_when_the_next_one_goes(granters: list[Any], open_auth: Open) -> None:
    granters[0].behave = lambda sock, n: False
    clock = ManualClock()
    auth = open_auth(urls(granters), clock=clock)
    assert auth.ask(QUERY) == AuthGranted(pool="s1")
    granters[0].say(granting(0))
    granters[1].behave = granters[2].behave = lambda sock, n: False
    clock.time += PAUSE
    assert auth.ask(QUERY) == AuthGranted(pool="s0")


def test_all_of_them_are_away(open_auth: Open) -> None:
    ports = [free_port(), free_port()]
    answer = open_auth([f"http://{HOST}:{port}/" for port in ports]).ask(QUERY)
    assert isinstance(answer, AuthUnavailable)
    assert answer.reason.startswith(f"auth server {HOST}:{ports[1]}: ConnectionRefusedError: ")


# --- servers that give no answer ---


def cut_off(sock: gevent.socket.socket, _n: int) -> bool:
    sock.sendall(OK[:20])
    return False


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (lambda sock, n: False, "hung up without an answer"),
        (lambda sock, n: gevent.sleep(30), "no answer within 0.3 s"),
        (cut_off, "hung up before the end of the header"),
        (lambda sock, n: sock.sendall(b"x" * 2 * MAX_HEAD), f"header of more than {MAX_HEAD} octets"),
    ],
    ids=["hangs up", "silent", "cut off", "endless"],
)
def test_one_question_a_second_to_a_server_that_gives_no_answer(
    auth_server: Any, open_auth: Open, behave: Callable[[Any, int], object], reason: str
) -> None:
    auth_server.behave = behave
    clock, told = ManualClock(), list[tuple[str, ...]]()
    auth = open_auth(
        auth_server.url(),
        timeout=0.3,
        clock=clock,
        on_down=lambda *words: told.append(words),
        on_up=lambda *words: told.append(words),
    )
    name = f"{HOST}:{auth_server.port}"
    asked = AuthUnavailable(f"auth server {name}: {reason}")
    assert [auth.ask(QUERY) for _ in range(3)] == [asked, AuthUnavailable(NOT_ASKED), AuthUnavailable(NOT_ASKED)]
    clock.time += PAUSE
    assert [auth.ask(QUERY) for _ in range(2)] == [asked, AuthUnavailable(NOT_ASKED)]
    assert len(auth_server.requests) == 2
    auth_server.say(OK)
    clock.time += PAUSE
    assert [auth.ask(QUERY) for _ in range(3)] == [GRANTED] * 3
    assert told == [(name, reason), (name,)]


@pytest.mark.parametrize("octets", [b"HTTP/1.1 500 Oops\r\n\r\n", b"\x16\x03\x01\r\n\r\n"], ids=["500", "garbage"])
def test_whoever_says_a_whole_header_is_not_down(auth_server: Any, open_auth: Open, octets: bytes) -> None:
    """Else one user whose record breaks the service would keep everybody out."""
    auth_server.say(octets, OK)
    auth = open_auth(auth_server.url(), clock=ManualClock())
    assert isinstance(auth.ask(QUERY), AuthUnavailable)
    assert auth.ask(QUERY) == GRANTED


def test_a_slow_server_that_answers_others_is_not_down(auth_server: Any, open_auth: Open) -> None:
    def behave(sock: gevent.socket.socket, n: int) -> None:
        if n == 1:
            gevent.sleep(30)
        sock.sendall(OK)

    auth_server.behave = behave
    auth = open_auth(auth_server.url(), timeout=1.0, clock=ManualClock())
    slow = gevent.spawn(auth.ask, QUERY)
    turns(0.05)
    assert auth.ask(QUERY) == GRANTED
    assert slow.get() == AuthUnavailable(f"auth server {HOST}:{auth_server.port}: no answer within 1 s")
    assert auth.ask(QUERY) == GRANTED


def test_questions_under_way_are_not_cut(auth_server: Any, open_auth: Open) -> None:
    def behave(sock: gevent.socket.socket, n: int) -> bool:
        if n == 1:
            gevent.sleep(0.2)
            sock.sendall(OK)
        return n == 1

    auth_server.behave = behave
    auth = open_auth(auth_server.url(), clock=ManualClock())
    first = gevent.spawn(auth.ask, QUERY)
    turns(0.05)
    assert isinstance(auth.ask(QUERY), AuthUnavailable)
    assert auth.ask(QUERY) == AuthUnavailable(NOT_ASKED)
    assert first.get() == GRANTED
    auth_server.say(OK)
    assert auth.ask(QUERY) == GRANTED  # it has answered, so it is asked again


def test_whoever_is_down_gets_no_part_of_the_time(granters: list[Any], open_auth: Open) -> None:
    for server in granters[:2]:
        server.behave = lambda sock, n: gevent.sleep(30)
    auth = open_auth(urls(granters), timeout=1.5, clock=ManualClock())
    assert auth.ask(QUERY) == AuthGranted(pool="s2")
    granters[2].behave = lambda sock, n: gevent.sleep(30)
    began = time.monotonic()
    reason = f"auth server {HOST}:{granters[2].port}: no answer within 1.5 s"
    assert auth.ask(QUERY) == AuthUnavailable(reason)
    assert 1.4 < time.monotonic() - began < 10.0
    assert counts(granters) == [1, 1, 2]


# --- grants that are kept ---

CACHED = OK.replace(b"Auth-Status", b"Auth-Cache: 60\r\nAuth-Status")


def test_a_grant_is_given_again_for_as_long_as_both_sides_say(auth_server: Any, open_auth: Open) -> None:
    auth_server.say(CACHED)
    clock = ManualClock()
    auth = open_auth(auth_server.url(), cache=30.0, clock=clock)
    assert [auth.ask(replace(QUERY, attempt=n)) for n in range(1, 4)] == [GRANTED] * 3
    assert len(auth_server.requests) == 1
    clock.sleep(30.0)
    assert auth.ask(QUERY) == GRANTED
    assert len(auth_server.requests) == 2
    auth.forget()
    assert auth.ask(QUERY) == GRANTED
    assert len(auth_server.requests) == 3


def test_after_a_refusal_a_kept_grant_is_asked_for_again(auth_server: Any, open_auth: Open) -> None:
    auth = open_auth(auth_server.url(), cache=30.0)
    auth_server.say(CACHED)
    assert [auth.ask(QUERY), auth.ask(QUERY)] == [GRANTED] * 2
    auth_server.say(b"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\n")
    assert auth.ask(replace(QUERY, password=b"guess")) == AuthRefused("535 5.7.0", "no", 0.0)
    assert auth.ask(QUERY) == AuthRefused("535 5.7.0", "no", 0.0)
    assert len(auth_server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "cache"),
    [
        (OK, 30.0),
        (CACHED, 0.0),
        (CACHED.replace(b"Status: OK", b"Status: no"), 30.0),
        (CACHED.replace(b"Status: OK", b"Status: WAIT"), 30.0),
        (CACHED.replace(b"Auth-Port: 25", b"Auth-Port: no"), 30.0),
    ],
    ids=["the service does not say so", "the operator does not", "refused", "wait", "no answer"],
)
def test_what_is_not_kept(auth_server: Any, open_auth: Open, answer: bytes, cache: float) -> None:
    auth_server.say(answer)
    auth = open_auth(auth_server.url(), cache=cache)
    assert auth.ask(QUERY) == auth.ask(QUERY)
    assert len(auth_server.requests) == 2


# --- a client that goes away meanwhile ---


def test_a_client_that_goes_away_ends_the_question_and_frees_its_connection(
    auth_server: Any, open_auth: Open
) -> None:
    auth_server.behave = lambda sock, n: gevent.sleep(30)
    auth = open_auth(auth_server.url(), max_connections=1)
    ours, theirs = gevent.socket.socketpair()
    client = SocketStream(ours)
    gevent.spawn_later(0.1, theirs.close)
    began = time.monotonic()
    with pytest.raises(StreamLost), client.abort_on_close():
        auth.ask(QUERY)
    assert time.monotonic() - began < 10.0
    client.close()
    auth_server.say(OK)
    assert auth.ask(QUERY) == GRANTED


# --- beside nginx ---


def mail_conf(auth_port: int, port: int) -> str:
    return f"""
    server_name mail.example.com;
    auth_http http://{HOST}:{auth_port}/auth/x?y=1;
    auth_http_header X-Key "a b";
    server {{ listen {HOST}:{port}; protocol smtp; smtp_auth plain cram-md5 login none; }}
    """


def smtp(port: int, *lines: bytes) -> tuple[list[bytes], tuple[str, int]]:
    """Say each line when the last has its reply; the replies, greeting first, and our end of the connection."""
    replies = []
    with gevent.socket.create_connection((HOST, port), timeout=10) as sock:
        replies.append(sock.recv(4096))
        for line in lines:
            salt = base64.b64decode(replies[-1][4:]) if line == b"<digest>" else b""
            sock.sendall((base64.b64encode(b"ann " + b"0" * 32) if salt else line) + b"\r\n")
            replies.append(sock.recv(4096))
        return replies, sock.getsockname()


@pytest.mark.parametrize(
    ("lines", "query"),
    [
        (
            [b"EHLO c", b"AUTH PLAIN " + base64.b64encode(b"\0us er%+\xc3\xa9\x7f=\0p w\t%")],
            replace(QUERY, user=b"us er%+\xc3\xa9\x7f=", password=b"p w\t%"),
        ),
        (
            [b"EHLO c", b"AUTH CRAM-MD5", b"<digest>"],
            replace(QUERY, method="cram-md5", user=b"ann", password=b"0" * 32),
        ),
        (
            [b"EHLO client.example", b"mail   From:<a@b>  SIZE=1", b"rcpt to:<c%d@e>"],
            replace(
                QUERY,
                method="none",
                user=b"",
                password=b"",
                helo="client.example",
                mail_line=b"mail   From:<a@b>  SIZE=1",
                rcpt_line=b"rcpt to:<c%d@e>",
            ),
        ),
    ],
    ids=["plain", "cram-md5", "none"],
)
def test_we_ask_as_nginx_asks(
    auth_server: Any, open_auth: Open, nginx_mail: StartNginx, lines: list[bytes], query: AuthQuery
) -> None:
    """Octet for octet, but for the HTTP version and the word that we are not nginx."""
    auth_server.say(b"HTTP/1.1 204 No Content\r\nAuth-Status: no\r\nAuth-Error-Code: 550 5.1.1\r\n\r\n")
    port = free_port()
    nginx_mail(mail_conf(auth_server.port, port), port)
    replies, (host, _) = smtp(port, *lines)
    assert replies[-1] == b"550 5.1.1 no\r\n"

    peer = replace(query.peer, host=host)
    salt = base64.b64decode(replies[-2][4:]).decode() if query.method == "cram-md5" else None
    auth = open_auth(auth_server.url("/auth/x?y=1"), headers={"X-Key": "a b"})
    assert auth.ask(replace(query, peer=peer, salt=salt)) == AuthRefused("550 5.1.1", "no", 0)
    theirs, ours = auth_server.requests
    assert theirs.startswith(b"GET /auth/x?y=1 HTTP/1.0\r\n")
    assert b"Auth-Gate" not in theirs
    assert ours.replace(b"Auth-Gate: smtpgate\r\n", b"", 1) == theirs.replace(b"HTTP/1.0", b"HTTP/1.1", 1)


def test_nginx_answers_us(open_auth: Open, nginx_mail: StartNginx) -> None:
    """nginx as the auth server: a real HTTP server takes our octets, and its connections are kept."""
    port = free_port()
    http = f"""
    server {{
        listen {HOST}:{port};
        location / {{
            add_header Auth-Status OK always;
            add_header Auth-Server 192.0.2.10 always;
            add_header Auth-Port 25 always;
            add_header Auth-User $http_auth_user always;
            add_header X-Connection-Requests $connection_requests always;
            return 503;
        }}
    }}
    """
    nginx_mail("", port, http)
    auth = open_auth(f"http://{HOST}:{port}/auth")
    query = replace(QUERY, user=b"j\xc3\xb6rg")
    assert [auth.ask(query) for _ in range(3)] == [replace(GRANTED, user="jörg")] * 3
    assert auth._servers[0].idle == 1


# --- guessers ---

WRONG = b"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nAuth-Error-Code: 535 5.7.8\r\nContent-Length: 0\r\n\r\n"


def test_guesses_stand_in_nobodys_way(auth_server: Any, open_auth: Open) -> None:
    """PLACES at once of who has failed; an honest client beside them is asked about at once."""
    let_go = Event()

    def behave(sock: gevent.socket.socket, n: int) -> None:
        guess = b"198.51.100.1" in auth_server.requests[n - 1]
        if guess and n > 1:
            let_go.wait()
        sock.sendall(WRONG if guess else OK)

    auth_server.behave = behave
    auth = open_auth(auth_server.url(), timeout=20.0)
    auth._lane = Lane(SystemClock(), waiting=3, rest=0.0)
    guess = replace(QUERY, peer=replace(QUERY.peer, host="198.51.100.1"))
    refused = auth.ask(guess)
    assert isinstance(refused, AuthRefused)
    guesses = [gevent.spawn(auth.ask, guess) for _ in range(PLACES + 4)]
    with gevent.Timeout(10):
        while len(auth_server.requests) < 1 + PLACES or not any(one.ready() for one in guesses):
            gevent.sleep(0.001)
    assert auth.ask(QUERY) == GRANTED
    assert len(auth_server.requests) == 1 + PLACES + 1
    assert [one.value for one in guesses if one.ready()] == [replace(TOO_MANY_GUESSES, keep_out=KEEP_OUT)]
    let_go.set()
    gevent.joinall(guesses, timeout=10, raise_error=True)
    assert [one.value for one in guesses].count(refused) == PLACES + 3


def test_nobody_is_kept_out_from_where_somebody_has_logged_in(auth_server: Any, open_auth: Open) -> None:
    """Whoever mistypes a password behind the same address as a guesser."""
    auth_server.behave = lambda sock, n: sock.sendall(WRONG if n > 1 else OK)
    auth = open_auth(auth_server.url())
    auth._lane = Lane(SystemClock(), places=1, waiting=0)
    assert auth.ask(QUERY) == GRANTED
    somebody = replace(QUERY, user=b"somebody")
    assert isinstance(auth.ask(somebody), AuthRefused)
    with auth._lane.turn(replace(somebody, user=b"else")):
        assert auth.ask(somebody) == TOO_MANY_GUESSES
    assert len(auth_server.requests) == 2
