"""Real sockets on loopback: deadlines, backpressure, interrupts, and one kind of exception for every fault."""

import socket
import ssl
import subprocess
import time
import warnings

import gevent
import gevent.socket
import gevent.ssl
import pytest
from turns import turns

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.listenertls import CertificateFiles, ListenerTls, TlsSettings
from smtpgate.drivers.stream import MAX_AHEAD, SocketStream
from smtpgate.session.streams import READ_SIZE, StreamInterrupted, StreamLost, StreamTimeout

CLOCK = SystemClock()


def soon(seconds=5.0):
    return Deadline(CLOCK, seconds)


def listening(address=("127.0.0.1", 0), family=socket.AF_INET):
    server = gevent.socket.socket(family)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(address)
    server.listen()
    return server


@pytest.fixture
def pair():
    """(stream under test, the peer's gevent socket), connected over loopback."""
    with listening() as server:
        peer = gevent.socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    stream = SocketStream(accepted)
    yield stream, peer
    stream.close()
    peer.close()


def test_reads_what_the_peer_wrote_and_then_its_end(pair):
    stream, peer = pair
    peer.sendall(b"EHLO c.test\r\n")
    assert stream.read(soon()) == b"EHLO c.test\r\n"
    peer.close()
    assert stream.read(soon()) == b""


def test_reads_no_more_than_it_is_asked_for(pair):
    stream, peer = pair
    peer.sendall(b"0123456789")
    assert [stream.read(soon(), 4), stream.read(soon(), 4), stream.read(soon(), 4)] == [b"0123", b"4567", b"89"]


def test_nor_of_what_was_read_ahead(pair):
    stream, peer = pair
    peer.sendall(b"0123456789")
    with stream.abort_on_close():
        gevent.sleep(0.05)
    assert [stream.read(soon(), 6), stream.readable(), stream.read(soon())] == [b"012345", True, b"6789"]


def test_knows_both_ends(pair):
    stream, peer = pair
    assert (stream.peer.host, stream.peer.port) == peer.getsockname()
    assert (stream.peer.local_host, stream.peer.local_port) == peer.getpeername()
    assert stream.tls is None


def test_sets_nodelay(pair):
    stream, _ = pair
    assert stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_read_ends_with_its_deadline(pair):
    stream, _ = pair
    began = time.monotonic()
    with pytest.raises(StreamTimeout):
        stream.read(soon(0.05))
    assert 0.04 < time.monotonic() - began < 10.0


@pytest.mark.parametrize("act", ["read", "write"])
def test_a_deadline_that_has_passed_is_a_timeout_at_once(pair, act):
    stream, peer = pair
    peer.sendall(b"x")
    with pytest.raises(StreamTimeout):
        stream.read(soon(0)) if act == "read" else stream.write(b"x", soon(0))


def test_a_write_to_a_peer_that_does_not_read_ends_with_its_deadline(pair):
    stream, _ = pair
    with pytest.raises(StreamTimeout):
        stream.write(b"x" * (64 << 20), soon(0.1))


def test_a_large_write_arrives_whole(pair):
    stream, peer = pair
    text = bytes(range(256)) * 40_000
    got = bytearray()

    def drain():
        while len(got) < len(text):
            got.extend(peer.recv(READ_SIZE))

    reader = gevent.spawn(drain)
    stream.write(text, soon())
    reader.join(5)
    assert bytes(got) == text


def test_a_reset_is_a_lost_stream(pair):
    stream, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    with pytest.raises(StreamLost, match="ECONNRESET"):
        stream.read(soon())


def test_a_closed_stream_is_lost_and_may_be_closed_again(pair):
    stream, _ = pair
    stream.close()
    stream.close()
    with pytest.raises(StreamLost):
        stream.read(soon())


def test_interrupt_wakes_a_waiting_read_and_nothing_is_lost(pair):
    stream, peer = pair
    gevent.spawn_later(0.02, stream.interrupt)
    with pytest.raises(StreamInterrupted):
        stream.read(soon())
    peer.sendall(b"later")
    assert stream.read(soon()) == b"later"


def test_interrupt_of_a_stream_that_does_not_read_does_nothing(pair):
    stream, peer = pair
    stream.interrupt()
    gevent.sleep(0)
    peer.sendall(b"x")
    assert stream.read(soon()) == b"x"


def test_readable_tells_octets_and_ends_without_taking_them(pair):
    stream, peer = pair
    assert stream.readable() is False
    peer.sendall(b"421 bye\r\n")
    turns()
    assert stream.readable() is True
    assert stream.read(soon()) == b"421 bye\r\n"
    peer.close()
    turns()
    assert stream.readable() is True


@pytest.fixture
def tls(tmp_path):
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.test", "-days", "1"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return ListenerTls(TlsSettings((CertificateFiles(tmp_path / "cert.pem", tmp_path / "key.pem"),)))


def client_context():
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def old_context():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what this is about
        context = client_context()
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def test_start_tls_and_what_it_learnt(pair, tls):
    plain, peer = pair
    stream = SocketStream(plain._sock, tls)
    done = gevent.spawn(lambda: client_context().wrap_socket(peer, server_hostname="mx.test"))
    info = stream.start_tls(soon())
    secure = done.get(timeout=5)
    assert info.protocol == "TLSv1.3"
    assert info.cipher == secure.cipher()[0]
    assert stream.tls == info
    secure.sendall(b"EHLO\r\n")
    assert stream.read(soon()) == b"EHLO\r\n"
    gevent.spawn_later(0.02, stream.interrupt)
    with pytest.raises(StreamInterrupted):
        stream.read(soon())
    stream.write(b"250 ok\r\n", soon())
    assert secure.recv(100) == b"250 ok\r\n"
    secure.close()
    stream.close()


def test_a_handshake_that_stalls_ends_with_its_deadline(pair, tls):
    plain, _ = pair
    with pytest.raises(StreamTimeout):
        SocketStream(plain._sock, tls).start_tls(soon(0.1))


def test_last_words_after_a_handshake_that_stalled_do_not_wait_either(pair, tls):
    plain, _ = pair
    stream = SocketStream(plain._sock, tls)
    with pytest.raises(StreamTimeout):
        stream.start_tls(soon(0.1))
    stream.write(b"421 4.4.2 Timeout\r\n", soon(0.1))  # nothing of TLS has begun yet
    with pytest.raises(StreamTimeout):
        stream.read(soon(0.1))
    stream.close()


def test_a_handshake_with_nonsense_is_a_lost_stream(pair, tls):
    plain, peer = pair
    peer.sendall(b"EHLO c.test\r\n" * 4)
    with pytest.raises(StreamLost, match="TLS handshake"):
        SocketStream(plain._sock, tls).start_tls(soon())


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (ssl.create_default_context(), r"TLS handshake: (TLSV1_ALERT_UNKNOWN_CA|SSLV3_ALERT_BAD_CERTIFICATE)"),
        (old_context(), "TLS handshake: UNSUPPORTED_PROTOCOL"),
    ],
    ids=["the client believes nobody", "the client is too old"],
)
def test_after_a_handshake_that_failed_nothing_is_said_in_clear(pair, tls, context, reason):
    plain, peer = pair
    stream = SocketStream(plain._sock, tls)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="mx.test")
    shaking = gevent.spawn(stream.start_tls, soon())
    shaking.link_exception(lambda failed: None)

    def shake():
        while True:
            try:
                client.do_handshake()
                return
            except ssl.SSLWantReadError:
                peer.sendall(outgoing.read())
                incoming.write(peer.recv(READ_SIZE))

    with pytest.raises(ssl.SSLError):
        shake()
    peer.sendall(outgoing.read())
    with pytest.raises(StreamLost, match=reason):
        shaking.get(timeout=5)
    with pytest.raises(StreamLost, match="EPIPE"):
        stream.write(b"421 4.3.0 Internal server error\r\n", soon())
    stream.close()
    assert peer.recv(100) == b""


@pytest.fixture
def secure_pair(pair, tls):
    """(stream inside TLS, the peer's TLS socket)."""
    plain, peer = pair
    stream = SocketStream(plain._sock, tls)
    done = gevent.spawn(lambda: client_context().wrap_socket(peer, server_hostname="mx.test"))
    stream.start_tls(soon())
    secure = done.get(timeout=5)
    yield stream, secure
    stream.close()
    secure.close()


# --- waiting for somebody else ---


@pytest.fixture(params=["tcp", "tls"])
def talking(request, pair):
    """(stream under test, the client's socket), in clear and after STARTTLS."""
    if request.param == "tcp":
        yield pair
        return
    yield request.getfixturevalue("secure_pair")


def linger_for_reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def wait_for_gone(stream, seconds=30.0):
    """Seconds until the client's going ended a wait for something else."""
    began = time.monotonic()
    with pytest.raises(StreamLost) as lost, stream.abort_on_close():
        gevent.sleep(seconds)
    return time.monotonic() - began, str(lost.value)


def test_a_wait_ends_when_the_client_closes(talking):
    stream, peer = talking
    gevent.sleep(0)  # the loop's clock stood still while openssl ran
    gevent.spawn_later(0.05, peer.close)
    took, reason = wait_for_gone(stream)
    assert 0.04 < took < 10.0
    assert reason == "client closed the connection"


def test_a_wait_ends_when_the_client_resets(pair):
    stream, peer = pair
    linger_for_reset(peer)
    gevent.spawn_later(0.05, peer.close)
    took, reason = wait_for_gone(stream)
    assert took < 10.0
    assert reason.startswith("ECONNRESET")


def test_a_client_that_had_gone_before_the_wait(talking):
    stream, peer = talking
    peer.close()
    turns(0.05)
    took, _ = wait_for_gone(stream)
    assert took < 10.0


def test_a_client_that_stays_is_waited_for_and_what_it_says_is_kept(talking):
    stream, peer = talking
    with stream.abort_on_close():
        peer.sendall(b"NOOP\r\n")
        gevent.sleep(0.05)
        peer.sendall(b"QUIT\r\n")
        gevent.sleep(0.05)
    assert stream.readable()
    assert stream.read(soon()) == b"NOOP\r\nQUIT\r\n"
    assert not stream.readable()
    peer.sendall(b"more")
    assert stream.read(soon()) == b"more"
    stream.write(b"250 ok\r\n", soon())
    assert peer.recv(100) == b"250 ok\r\n"


def test_a_client_that_said_more_and_ended_its_side_is_still_there(pair):
    stream, peer = pair
    peer.sendall(b"QUIT\r\n")
    peer.shutdown(socket.SHUT_WR)
    with stream.abort_on_close():
        gevent.sleep(0.1)
    assert stream.read(soon()) == b"QUIT\r\n"
    assert stream.read(soon()) == b""
    stream.write(b"221 bye\r\n", soon())
    assert peer.recv(100) == b"221 bye\r\n"


def test_waiting_for_somebody_else_costs_no_cpu(pair):
    """With octets unread as well: the watcher is level-triggered, and must not spin."""
    stream, peer = pair
    peer.sendall(b"x" * (8 * MAX_AHEAD))
    with stream.abort_on_close():
        gevent.sleep(0.05)
        before = time.process_time()
        gevent.sleep(0.5)
        assert time.process_time() - before < 0.1
    assert MAX_AHEAD <= len(stream.read(soon())) < MAX_AHEAD + READ_SIZE


def test_after_the_wait_nobody_is_thrown_at(pair):
    stream, peer = pair
    with stream.abort_on_close():
        gevent.sleep(0.01)
    peer.close()
    turns(0.05)
    assert stream.read(soon()) == b""


def test_whoever_is_waited_for_is_not_blamed(pair):
    """What is thrown passes all who look out for a fault of the other side."""
    stream, peer = pair
    near, far = gevent.socket.socketpair()
    backend = SocketStream(near)
    gevent.spawn_later(0.02, peer.close)

    def ask():
        with stream.abort_on_close():
            try:
                backend.read(soon())
            except Exception:
                pytest.fail("the backend is there")

    with pytest.raises(StreamLost, match="client closed the connection"):
        ask()
    far.sendall(b"220 still here\r\n")
    assert backend.read(soon()) == b"220 still here\r\n"
    backend.close()
    far.close()


def test_a_wait_within_a_wait_ends_once(pair):
    stream, peer = pair
    gevent.spawn_later(0.02, peer.close)
    ends = []

    def wait():
        with stream.abort_on_close():
            try:
                with stream.abort_on_close():
                    gevent.sleep(5)
            finally:
                ends.append("inner")
                gevent.sleep(0.05)  # cleaning up is not interrupted again
                ends.append("cleaned up")

    with pytest.raises(StreamLost):
        wait()
    assert ends == ["inner", "cleaned up"]
    gevent.spawn_later(0.02, peer.close)
    with pytest.raises(StreamLost), stream.abort_on_close():
        gevent.sleep(5)  # and the next wait is a wait like any other


def test_octets_in_clear_that_were_read_ahead_do_not_survive_starttls(pair, tls):
    plain, peer = pair
    stream = SocketStream(plain._sock, tls)
    with stream.abort_on_close():
        peer.sendall(b"MAIL FROM:<injected@a.test>\r\n")
        gevent.sleep(0.05)
    done = gevent.spawn(lambda: client_context().wrap_socket(peer, server_hostname="mx.test"))
    stream.start_tls(soon())
    secure = done.get(timeout=5)
    secure.sendall(b"EHLO c.test\r\n")
    assert stream.read(soon()) == b"EHLO c.test\r\n"
    secure.close()
    stream.close()


def test_a_tls_record_that_drips_in_does_not_stretch_the_deadline(secure_pair):
    stream, secure = secure_pair
    raw = socket.socket(fileno=socket.dup(secure.fileno()))
    raw.setblocking(True)

    def drip():
        # The head of a record of 16 KB, then an octet at a time.
        for octet in b"\x17\x03\x03\x40\x00" + bytes(100):
            raw.send(bytes([octet]))
            gevent.sleep(0.05)

    dripping = gevent.spawn(drip)
    began = time.monotonic()
    with pytest.raises(StreamTimeout):
        stream.read(soon(0.3))
    assert time.monotonic() - began < 4.0
    dripping.kill()
    raw.close()


def test_a_peer_that_does_not_read_inside_tls_ends_with_the_deadline(secure_pair):
    stream, _ = secure_pair
    with pytest.raises(StreamTimeout):
        stream.write(b"x" * (64 << 20), soon(0.2))


def test_a_part_of_a_tls_record_is_not_lost_and_not_waited_for(secure_pair):
    stream, peer = secure_pair
    peer.sendall(b"0123456789")
    assert [stream.read(soon(), 4), stream.read(soon(0.5), 4), stream.read(soon(0.5), 4)] == [b"0123", b"4567", b"89"]


def test_the_end_of_tls_is_told(secure_pair):
    """close_notify: without it a strict client takes the end for an attack."""
    stream, secure = secure_pair
    stream.write(b"221 bye\r\n", soon())
    stream.close()
    assert secure.recv(100) == b"221 bye\r\n"
    assert secure.recv(100) == b""
