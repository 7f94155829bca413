"""Connections to backends on loopback: every address of a name, equal parts of the time, header and TLS in order."""

import errno
import socket
import time

import gevent
import gevent.socket
import gevent.ssl
import pytest
from certificates import Authority
from fakes import ManualClock
from peers.process import HOST

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.connecting import OutOfResources
from smtpgate.drivers.dial import FAIL_TIMEOUT, Dialler
from smtpgate.drivers.proxyheader import LOCAL_V2, SIGNATURE
from smtpgate.drivers.resolver import Resolver
from smtpgate.routing.model import BackendSettings, BackendTls
from smtpgate.session.ports import Seeker
from smtpgate.session.streams import Peer, StreamLost, StreamTimeout

CLOCK = SystemClock()
# Two more addresses of this process's own network.
SECOND, THIRD = (HOST.rsplit(".", 1)[0] + f".{(int(HOST.rsplit('.', 1)[1]) + n) % 256}" for n in (1, 2))


def soon(seconds=5.0):
    return Deadline(CLOCK, seconds)


@pytest.fixture
def dialler(tmp_path):
    """Its names are those of `hosts`, a file that a test writes."""
    resolver = Resolver(CLOCK, hosts=str(tmp_path / "hosts"))
    yield Dialler(CLOCK, resolver, ClientTls(CLOCK))
    resolver.close()


@pytest.fixture
def hosts(tmp_path):
    def write(*addresses):
        (tmp_path / "hosts").write_text("".join(f"{address} mta.test\n" for address in addresses))

    return write


@pytest.fixture
def listen():
    """`listen(address, ...)`: listening sockets that share one port; the port."""
    opened = []

    def start(*addresses, backlog=16):
        port = 0
        for address in addresses:
            server = gevent.socket.socket()
            opened.append(server)
            server.bind((address, port))
            server.listen(backlog)
            port = server.getsockname()[1]
        return port

    yield start
    for server in opened:
        server.close()


@pytest.fixture
def swallow(listen):
    """`swallow(address, port)`: a black hole there: its backlog is full, so that further SYNs are dropped."""
    held = []

    def start(address, port):
        hole = socket.socket()
        held.append(hole)
        hole.bind((address, port))
        hole.listen(0)
        for _ in range(4):
            one = socket.socket()
            held.append(one)
            one.setblocking(False)
            one.connect_ex((address, port))
        time.sleep(0.02)

    yield start
    for one in held:
        one.close()


def dialled(dialler, host, port, settings=None, deadline=None):
    """The address that was reached."""
    stream = dialler.dial(host, port, settings or BackendSettings(), None, deadline or soon())
    stream.close()
    return stream.peer.host


def test_all_addresses_of_a_name_are_used_in_turn(dialler, hosts, listen):
    hosts(HOST, SECOND, THIRD)
    port = listen(HOST, SECOND, THIRD)
    assert [dialled(dialler, "mta.test", port) for _ in range(4)] == [HOST, SECOND, THIRD, HOST]
    assert dialled(dialler, HOST, port) == HOST


def test_an_address_that_refuses_is_passed_over_and_comes_last_for_a_while(tmp_path, hosts, listen):
    clock = ManualClock()
    dialler = Dialler(clock, Resolver(CLOCK, hosts=str(tmp_path / "hosts")), ClientTls(CLOCK))
    hosts(HOST, SECOND)
    port = listen(SECOND)
    assert [dialled(dialler, "mta.test", port) for _ in range(3)] == [SECOND] * 3
    assert set(dialler._failed) == {(HOST, port)}
    listen_again = gevent.socket.socket()
    with listen_again:
        listen_again.bind((HOST, port))
        listen_again.listen()
        assert dialled(dialler, "mta.test", port) == SECOND
        clock.time += FAIL_TIMEOUT + 1
        assert {dialled(dialler, "mta.test", port) for _ in range(2)} == {HOST, SECOND}
    assert dialler._failed == {}


def test_a_black_hole_costs_its_part_of_the_time_and_the_next_address_is_reached(dialler, hosts, listen, swallow):
    port = listen(SECOND)
    swallow(HOST, port)
    hosts(HOST, SECOND)
    began = time.monotonic()
    assert dialled(dialler, "mta.test", port, deadline=soon(2.0)) == SECOND
    assert 0.8 < time.monotonic() - began < 1.8
    began = time.monotonic()
    assert dialled(dialler, "mta.test", port, deadline=soon(2.0)) == SECOND
    assert time.monotonic() - began < 0.8


def test_black_holes_alone_cost_no_more_than_the_deadline(dialler, hosts, listen, swallow):
    port = listen(THIRD)
    swallow(HOST, port)
    swallow(SECOND, port)
    hosts(HOST, SECOND)
    began = time.monotonic()
    with pytest.raises(StreamTimeout):
        dialled(dialler, "mta.test", port, deadline=soon(0.2))
    assert 0.15 < time.monotonic() - began < 10.0


def test_a_dial_without_a_descriptor_blames_no_address(dialler, hosts, monkeypatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    hosts(HOST, SECOND)
    monkeypatch.setattr(gevent.socket, "socket", none_left)
    with pytest.raises(OutOfResources, match="EMFILE: Too many open files"):
        dialled(dialler, "mta.test", 25)
    assert dialler._failed == {}


def test_who_refused_is_told(dialler, hosts, listen):
    port = listen(THIRD)
    hosts(HOST)
    with pytest.raises(StreamLost) as lost:
        dialled(dialler, "mta.test", port)
    assert str(lost.value) == f"{HOST}: ECONNREFUSED: Connection refused"
    with pytest.raises(StreamLost) as lost:
        dialled(dialler, HOST, port)
    assert str(lost.value) == "ECONNREFUSED: Connection refused"


def test_a_name_that_nobody_knows():
    def ask(name):
        raise OSError(101, "Network is unreachable")

    resolver = Resolver(CLOCK, ask, hosts="/nowhere")
    with pytest.raises(StreamLost, match=r"look-up of mta.test: Network is unreachable"):
        Dialler(CLOCK, resolver, ClientTls(CLOCK)).dial("mta.test", 25, BackendSettings(), None, soon())
    resolver.close()


SEEKER = Seeker("192.0.2.7", None, "b.test", Peer("192.0.2.7", 40000, "198.51.100.1", 587))


@pytest.mark.parametrize(
    ("version", "seeker", "header"),
    [
        ("v1", SEEKER, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\r\n"),
        ("v2", SEEKER, SIGNATURE + bytes.fromhex("21 11 000c c0000207 c6336401 9c40 024b")),
        ("v2", None, LOCAL_V2),
    ],
)
def test_header_then_tls(dialler, hosts, tmp_path, version, seeker, header):
    length = len(header)
    authority = Authority(tmp_path / "pki")
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mta.test"))
    hosts(HOST)
    got = []
    with gevent.socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()

        def serve():
            sock, _ = server.accept()
            got.append(sock.recv(length))
            with context.wrap_socket(sock, server_side=True) as secure:
                got.append(secure.recv(100))

        served = gevent.spawn(serve)
        settings = BackendSettings(proxy_protocol=version, tls=BackendTls("implicit", ca=str(authority.ca)))
        stream = dialler.dial("mta.test", server.getsockname()[1], settings, seeker, soon())
        assert stream.tls is not None
        stream.write(b"EHLO\r\n", soon())
        served.get(timeout=5)
        stream.close()
    assert got == [header, b"EHLO\r\n"]


def test_tls_to_a_server_of_another_name_fails_like_a_connection(dialler, hosts, tmp_path):
    authority = Authority(tmp_path / "pki")
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("other.test"))
    hosts(HOST)
    with gevent.socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()

        def serve():
            sock, _ = server.accept()
            with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as secure:
                with pytest.raises(OSError, match="ALERT"):  # noqa: PT012 - TLS 1.3 tells it with the first read
                    secure.do_handshake()
                    secure.recv(1)

        served = gevent.spawn(serve)
        settings = BackendSettings(tls=BackendTls("implicit", ca=str(authority.ca)))
        with pytest.raises(StreamLost, match="certificate not believed: Hostname mismatch"):
            dialler.dial("mta.test", server.getsockname()[1], settings, None, soon())
        served.get(timeout=5)


def test_a_dial_that_is_killed_leaves_no_connection_behind(dialler):
    settings = BackendSettings(tls=BackendTls("implicit", verify=False))
    with gevent.socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        dial = gevent.spawn(dialler.dial, HOST, server.getsockname()[1], settings, None, soon())
        sock, _ = server.accept()
        with sock, gevent.Timeout(5):
            assert sock.recv(1) == b"\x16"  # the ClientHello: it waits for ours
            dial.kill()
            while sock.recv(4096):
                pass
