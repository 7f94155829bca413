"""Whoever still speaks when we have ended hears our last words; whoever speaks for ever does not hold us."""

import socket
import time

import gevent
import gevent.socket
import pytest
from turns import turns

from smtpgate.drivers import lingering
from smtpgate.drivers.lingering import Lingering

WORDS = b"421 4.3.2 Too many connections, try again later\r\n"


@pytest.fixture
def pair():
    """A client and our end of its connection, over TCP."""
    made = []

    def make():
        with gevent.socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client = gevent.socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        made.extend((client, ours))
        return client, ours

    yield make
    for one in made:
        one.close()


def everything(client):
    data = b""
    with gevent.Timeout(5):
        while more := client.recv(4096):
            data += more
    return data


def pour(client, octets, pause=0.0):
    """Send until the other side has had enough of it, at most 1000 times: whether it had."""
    try:
        for _ in range(1000):
            client.sendall(octets)
            gevent.sleep(pause)
    except OSError:
        return True
    return False


def test_the_last_words_of_a_connection_with_unread_input_arrive(pair):
    client, ours = pair()
    client.sendall(b"x" * 5000)
    turns()
    ours.sendall(WORDS)
    lingering = Lingering()
    lingering.take(ours.detach())
    turns()
    client.sendall(b"y" * 5000)  # with RST this would be the end
    assert everything(client) == WORDS
    assert len(lingering) == 1
    client.close()
    turns()
    assert len(lingering) == 0


def test_a_client_that_never_ends_is_cut(pair, monkeypatch):
    monkeypatch.setattr(lingering, "LINGER_TIMEOUT", 0.1)
    client, ours = pair()
    waiting = Lingering()
    started = time.monotonic()
    waiting.take(ours.detach())
    assert pour(client, b"drip", pause=0.01)
    assert 0.1 <= time.monotonic() - started < 10
    assert len(waiting) == 0


def test_a_client_that_pours_is_cut(pair, monkeypatch):
    monkeypatch.setattr(lingering, "LINGER_OCTETS", 100_000)
    client, ours = pair()
    waiting = Lingering()
    started = time.monotonic()
    waiting.take(ours.detach())
    assert pour(client, bytes(65536))
    assert time.monotonic() - started < lingering.LINGER_TIMEOUT / 2
    assert len(waiting) == 0


def test_only_so_many_are_waited_for(pair):
    waiting = Lingering(most=2)
    clients = []
    for _ in range(3):
        client, ours = pair()
        ours.sendall(WORDS)
        waiting.take(ours.detach())
        clients.append(client)
    assert len(waiting) == 2
    assert [everything(client) for client in clients] == [WORDS] * 3  # nothing of theirs was unread
    waiting.close()
    assert len(waiting) == 0


def test_a_client_that_has_gone_is_not_waited_for(pair):
    client, ours = pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()  # by RST
    turns()
    waiting = Lingering()
    waiting.take(ours.detach())
    assert len(waiting) == 0
