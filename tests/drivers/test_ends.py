"""Who is at the ends of a socket."""

import socket

import gevent
import gevent.socket
import pytest

from smtpgate.drivers.ends import host_of, peer_of, reason_of
from smtpgate.drivers.stream import SocketStream
from smtpgate.session.streams import StreamLost


def listening(address=("127.0.0.1", 0), family=socket.AF_INET):
    server = gevent.socket.socket(family)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(address)
    server.listen()
    return server


def test_a_client_that_is_gone_before_it_is_served():
    with listening() as server:
        peer = gevent.socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        gevent.sleep(0.01)
        with pytest.raises(StreamLost):
            peer_of(accepted)
        accepted.close()


def test_a_unix_socket_has_no_addresses(tmp_path):
    path = str(tmp_path / "s")
    with gevent.socket.socket(socket.AF_UNIX) as server, gevent.socket.socket(socket.AF_UNIX) as peer:
        server.bind(path)
        server.listen()
        peer.connect(path)
        accepted, _ = server.accept()
        stream = SocketStream(accepted)
        assert (stream.peer.host, stream.peer.port) == ("unix:", 0)
        stream.close()


def test_a_v4_client_of_a_v6_socket_is_a_v4_client():
    with listening(("::", 0), socket.AF_INET6) as server:
        peer = gevent.socket.create_connection(("127.0.0.1", server.getsockname()[1]))
        accepted, _ = server.accept()
        stream = SocketStream(accepted)
        assert stream.peer.host == "127.0.0.1"
        stream.close()
        peer.close()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("192.0.2.1", 4), "192.0.2.1"),
        (("::ffff:192.0.2.1", 4, 0, 0), "192.0.2.1"),
        (("fe80::1%eth0", 4, 0, 2), "fe80::1"),
        ("", "unix:"),
        (b"", "unix:"),
    ],
)
def test_the_host_of_what_accept_tells(address, host):
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "ECONNRESET: Connection reset by peer"),
        (OSError(99999, "strange"), "99999: strange"),
        (OSError("no number"), "no number"),
        (OSError(), "OSError"),
    ],
)
def test_words_for_a_fault(error, words):
    assert reason_of(error) == words
