"""What went wrong towards a peer leaves nothing that only the garbage collector would free."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from circles import nothing_left_to_the_collector
from gevent.server import StreamServer
from peers.process import HOST, free_port

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.authhttp import AuthHttp
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.dial import Dialler
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.resolver import Resolver
from smtpgate.drivers.store import open_store
from smtpgate.drivers.tracebacks import let_go
from smtpgate.policy.store import Charge, StoreUnavailable
from smtpgate.routing.model import BackendSettings
from smtpgate.session.ports import AuthQuery, AuthUnavailable
from smtpgate.session.streams import Peer, StreamLost

QUERY = AuthQuery("plain", 1, Peer("192.0.2.7", 40000, "192.0.2.1", 25), "[UNAVAILABLE]", b"ann", b"hunter2")
CHARGE = Charge("some.limit:somebody", 1.0, 1.0, 1.0)


def silent() -> StreamServer:
    """Somebody who takes connections, and says nothing."""
    server = StreamServer((HOST, 0), lambda sock, address: gevent.sleep(5))
    server.start()
    return server


def ask_auth(port: int) -> None:
    service = AuthHttp([f"http://{HOST}:{port}/"], 0.05)
    assert isinstance(service.ask(QUERY), AuthUnavailable)
    service.close()


def ask_redis(port: int) -> None:
    """One by itself, and then some who share a call."""
    store = open_store(f"redis://{HOST}:{port}/0", clock=SystemClock(), timeout=0.05)
    assert isinstance(store, RedisBuckets)
    with pytest.raises(StoreUnavailable):
        store.take([CHARGE])
    crowd = [gevent.spawn(_taken, store) for _ in range(3)]
    assert [one.get() for one in crowd] == [False] * 3
    store.close()


def _taken(store: RedisBuckets) -> bool:
    try:
        store.take([CHARGE])
    except StoreUnavailable:
        return False
    return True


def dial(port: int) -> None:
    clock = SystemClock()
    dialler = Dialler(clock, Resolver(clock), ClientTls(clock))
    with pytest.raises(StreamLost):
        dialler.dial(HOST, port, BackendSettings(), None, Deadline(clock, 1.0))


@pytest.mark.parametrize("ask", [ask_auth, ask_redis, dial])
def test_nobody_listens(ask: Callable[[int], None]) -> None:
    port = free_port()
    ask(port)  # what is made once is made
    with nothing_left_to_the_collector():
        ask(port)


@pytest.mark.parametrize("ask", [ask_auth, ask_redis])
def test_nobody_answers(ask: Callable[[int], None]) -> None:
    server = silent()
    ask(server.server_port)
    with nothing_left_to_the_collector():
        ask(server.server_port)
    server.stop()


def test_all_that_led_to_an_exception_is_let_go() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise OSError("second") from error
        except OSError:
            raise ValueError("third")  # noqa: B904 - with a context, and without a cause

    with pytest.raises(ValueError, match="third") as caught:
        fail()
    third = caught.value
    second = third.__context__
    assert second is not None
    let_go(third)
    first = second.__cause__
    assert [one.__traceback__ for one in (first, second, third) if one is not None] == [None] * 3


def test_a_circle_of_exceptions_is_followed_once() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__cause__ = two, one
    let_go(one)
    assert (one.__traceback__, two.__traceback__) == (None, None)
