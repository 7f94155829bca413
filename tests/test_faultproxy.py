"""The fault proxy of tests/lib: each fault does what it says, in its direction only, and can be switched off."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from faultproxy import NONE, FaultProxy, Faults
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient

LINE = b"0123456789abcdef"


class Echo:
    """Says what it hears, a thread a connection. heard: the pieces as they were read."""

    def __init__(self) -> None:
        self.address = (HOST, free_port())
        self.heard: list[bytes] = []
        self.ended: list[str] = []
        self._listener = socket.create_server(self.address)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
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
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while data := sock.recv(65536):
                    self.heard.append(data)
                    sock.sendall(data)
                self.ended.append("closed")
            except OSError as error:
                self.ended.append(type(error).__name__)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.stop()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy((HOST, free_port()), echo.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[RawClient]:
    with RawClient(proxy.address) as client:
        yield client


def hear(client: RawClient, octets: int, timeout: float = 5.0) -> bytes:
    """So many octets, or fewer where the connection ends or falls silent."""
    client.sock.settimeout(timeout)
    heard = b""
    try:
        while len(heard) < octets and (data := client.sock.recv(65536)):
            heard += data
    except TimeoutError:
        pass
    return heard


def test_without_faults_everything_passes(client: RawClient, echo: Echo, proxy: FaultProxy) -> None:
    text = LINE * 65536
    threading.Thread(target=client.send, args=(text,), daemon=True).start()
    assert hear(client, len(text)) == text
    client.sock.shutdown(socket.SHUT_WR)
    assert hear(client, 1) == b""
    wait_until(lambda: echo.ended == ["closed"] and proxy.open == 0, "both ends have closed")
    assert proxy.connections == 1


def test_latency_is_of_one_direction(client: RawClient, echo: Echo, proxy: FaultProxy) -> None:
    proxy.switch(to_client=Faults(latency=0.15))
    began = time.monotonic()
    client.send(LINE)
    wait_until(lambda: echo.heard == [LINE], "the echo has heard it")
    assert time.monotonic() - began < 0.14
    assert hear(client, len(LINE)) == LINE
    assert time.monotonic() - began >= 0.15


def test_bandwidth(client: RawClient, proxy: FaultProxy) -> None:
    proxy.switch(to_client=Faults(bandwidth=len(LINE) * 100))
    began = time.monotonic()
    client.send(LINE * 20)
    assert hear(client, len(LINE) * 20) == LINE * 20
    assert 0.15 <= time.monotonic() - began < 2


def test_slices_arrive_one_by_one(client: RawClient, echo: Echo, proxy: FaultProxy) -> None:
    proxy.switch(to_server=Faults(slice=5, gap=0.02))
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE
    assert echo.heard == [b"01234", b"56789", b"abcde", b"f"]


def test_a_stall_of_some_time(client: RawClient, proxy: FaultProxy) -> None:
    proxy.switch(to_client=Faults(stall=(4, 0.15)))
    began = time.monotonic()
    client.send(LINE)
    assert hear(client, 4) == b"0123"
    assert time.monotonic() - began < 0.14
    assert hear(client, len(LINE) - 4) == LINE[4:]
    assert time.monotonic() - began >= 0.15
    client.send(LINE)  # it is over for good
    assert hear(client, len(LINE), 0.1) == LINE


def test_a_stall_until_the_switch(client: RawClient, proxy: FaultProxy) -> None:
    proxy.switch(to_client=Faults(stall=(0, math.inf)))
    client.send(LINE)
    assert hear(client, 1, 0.05) == b""
    proxy.switch()
    assert hear(client, len(LINE)) == LINE


def test_a_close_after_some_octets(client: RawClient, proxy: FaultProxy) -> None:
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE  # before the switch nothing counts
    proxy.switch(to_client=Faults(limit=4))
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE[:4]
    wait_until(lambda: proxy.open == 0, "the connection has gone")


def test_a_reset_after_some_octets(client: RawClient, echo: Echo, proxy: FaultProxy) -> None:
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE
    proxy.switch(to_server=Faults(reset=4))
    client.send(LINE)
    with pytest.raises(ConnectionResetError):
        hear(client, 100)
    wait_until(lambda: echo.ended == ["ConnectionResetError"], "the echo was reset too")


def test_an_edge_of_no_octets_ends_idle_connections(client: RawClient, proxy: FaultProxy) -> None:
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE
    proxy.switch(to_client=Faults(limit=0))
    assert hear(client, 1) == b""
    wait_until(lambda: proxy.open == 0, "the connection has gone")


def test_cut_ends_what_there_is_and_serves_what_comes(client: RawClient, proxy: FaultProxy) -> None:
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        hear(client, 1)
    with RawClient(proxy.address) as another:
        another.send(LINE)
        assert hear(another, len(LINE)) == LINE


def test_a_corrupted_reply(client: RawClient, echo: Echo, proxy: FaultProxy) -> None:
    proxy.switch(to_client=Faults(corrupt=(b"250 ", b"99\x00 ")))
    client.send(b"250 ok\r\n")
    assert hear(client, 8) == b"99\x00 ok\r\n"
    assert echo.heard == [b"250 ok\r\n"]


def test_nobody_behind_it_is_a_reset() -> None:
    with FaultProxy((HOST, free_port()), (HOST, free_port())) as proxy:
        # Now and then it comes before `connect` has looked at what it began.
        with pytest.raises(ConnectionResetError), RawClient(proxy.address) as client:
            hear(client, 1)


def test_nothing_is_left_of_a_stopped_proxy(echo: Echo) -> None:
    before = threading.active_count()
    proxy = FaultProxy((HOST, free_port()), echo.address)
    client = RawClient(proxy.address)
    client.send(LINE)
    assert hear(client, len(LINE)) == LINE
    proxy.stop()
    proxy.stop()
    with pytest.raises(ConnectionResetError):
        hear(client, 1)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address)
    wait_until(lambda: threading.active_count() == before, "no thread of it is left")


@pytest.mark.parametrize(
    ("faults", "passed", "stalled", "octets"),
    [
        (NONE, 10**9, False, 65536),
        (Faults(slice=3), 10, False, 3),
        (Faults(bandwidth=100), 0, False, 5),
        (Faults(bandwidth=1), 0, False, 1),
        (Faults(stall=(8, 1.0)), 5, False, 3),
        (Faults(stall=(8, 1.0)), 8, False, 0),
        (Faults(stall=(8, 1.0)), 8, True, 65536),
        (Faults(limit=8, reset=6, slice=4), 5, False, 1),
    ],
)
def test_the_next_write(faults: Faults, passed: int, stalled: bool, octets: int) -> None:
    assert faults.step(passed, stalled=stalled) == octets
