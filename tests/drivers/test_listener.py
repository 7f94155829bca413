"""A Gate over real sockets: sessions live and die, a bug or a cut is never silent, a drain lets work finish."""

import gevent
import gevent.socket
import pytest
from fakes import FakeBackends, FakePolicy, ListJournal, ManualClock, ports

from smtpgate.clock import SystemClock
from smtpgate.drivers.listener import Gate, Listener
from smtpgate.policy.model import Event
from smtpgate.session.flow import SessionSettings
from smtpgate.smtp.server import ServerSettings

GREETING = b"220 mx.test ESMTP ready\r\n"


class World:
    def __init__(self, policy=None):
        self.journal = ListJournal()
        clock = ManualClock()
        settings = SessionSettings("demo", ServerSettings("mx.test", mechanisms=(), auth_required=False), timeout=5.0)
        world = ports(SystemClock(), FakeBackends(clock), policy=policy, journal=self.journal)
        self.gate = Gate([Listener(settings)], world, graceful_timeout=1.0)
        self.server = gevent.socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen()
        self.clients = []

    def client(self):
        client = gevent.socket.create_connection(self.server.getsockname())
        self.clients.append(client)
        accepted, address = self.server.accept()
        session = gevent.spawn(self.gate, 0, accepted, address)
        return client, session

    def close(self):
        for one in (self.server, *self.clients):
            one.close()


@pytest.fixture
def make_world():
    worlds = []

    def make(policy=None):
        worlds.append(World(policy))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world):
    return make_world()


def everything(client):
    data = b""
    with gevent.Timeout(5):
        while more := client.recv(4096):
            data += more
    return data


def test_a_session_from_greeting_to_end(world):
    client, session = world.client()
    client.sendall(b"NOOP\r\nQUIT\r\n")
    assert everything(client) == GREETING + b"250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    session.join(5)
    assert world.gate.sessions == 0


def test_a_bug_in_a_session_is_a_421_a_log_line_and_nobody_elses_matter(make_world):
    def decide(event, facts):
        if event is Event.MAIL:
            raise ZeroDivisionError("a bug")
        return FakePolicy().decide(event, facts)

    world = make_world(FakePolicy(decide))
    client, session = world.client()
    other, _ = world.client()
    client.sendall(b"MAIL FROM:<a@a.test>\r\n")
    assert everything(client) == GREETING + b"421 4.3.0 Internal server error\r\n"
    session.join(5)
    assert session.successful()
    assert "ZeroDivisionError: a bug" in world.journal.of("bug")[0]["traceback"]
    other.sendall(b"QUIT\r\n")
    assert everything(other).endswith(b"221 2.0.0 Bye\r\n")


def test_a_session_that_is_cut_says_421(world):
    client, session = world.client()
    client.sendall(b"MAIL FROM:<a@a.test>\r\n")
    gevent.sleep(0.05)
    assert client.recv(4096) == GREETING + b"250 2.0.0 OK\r\n"
    session.kill()
    assert everything(client).endswith(b"421 4.3.2 Service shutting down, try again later\r\n")
    assert world.gate.sessions == 0
    assert [line["end"] for line in world.journal.of("session")] == ["cut off"]


def test_a_drain_ends_sessions_at_rest_and_spares_the_others(world):
    resting, _ = world.client()
    busy, _ = world.client()
    busy.sendall(b"MAIL FROM:<a@a.test>\r\n")
    gevent.sleep(0.05)
    assert world.gate.sessions == 2
    world.gate.drain()
    assert everything(resting) == GREETING + b"421 4.3.2 Service shutting down, try again later\r\n"
    assert world.gate.sessions == 1
    busy.sendall(b"RSET\r\n")
    assert everything(busy).endswith(b"250 2.0.0 OK\r\n421 4.3.2 Service shutting down, try again later\r\n")


def test_a_client_that_leaves_at_once_leaves_nothing(world):
    client, session = world.client()
    client.close()
    session.join(5)
    assert session.successful()
    assert world.gate.sessions == 0
