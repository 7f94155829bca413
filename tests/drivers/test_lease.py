"""What a pool hears of a session, and when: whose failure is whose."""

import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline
from smtpgate.drivers.idle import IdleLinks, Way
from smtpgate.drivers.lease import BackendLease, PoolSlot, network_of
from smtpgate.routing.model import BackendSettings, BackendSpec, BreakerSpec, PoolSpec, ReuseSpec
from smtpgate.routing.pool import PoolState
from smtpgate.session import handshake
from smtpgate.session.link import BackendLink
from smtpgate.session.ports import Identity

HELLO = [(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250-mta\r\n250 PIPELINING\r\n")]
NOBODY = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, None)
# One failure is enough to see which it was: of a session, of two networks, or of a connection.
BREAKER = BreakerSpec(connect=1, session=2, min_clients=2, max_open=1.0)


class World:
    def __init__(self, settings=None):
        self.clock = ManualClock()
        self.settings = settings or BackendSettings()
        self.pool = PoolState(PoolSpec("core", (BackendSpec("mta1", "10.0.0.1", 25),), breaker=BREAKER), 0.0)
        self.turned = []
        self.freed = 0
        self.idle = IdleLinks(self.clock)

    def free(self):
        self.freed += 1

    def lease(self, client="192.0.2.7", *, hello=True, **options):
        opened = self.pool.acquire(self.clock.monotonic())
        slot = PoolSlot(self.clock, self.pool, opened, lambda *turned: self.turned.append(turned), self.free)
        link = BackendLink(ScriptedBackend(HELLO), self.clock)
        if hello:
            handshake.greet(link, "mx.test", "", NOBODY, BackendSettings(), Deadline(self.clock, 1.0))
        way = Way("core", "mta1", "10.0.0.1", 25, self.settings, ReuseSpec())
        return BackendLease("mta1", way, slot, link, lambda: self.idle, client=client, made=0.0, **options)

    @property
    def reason(self):
        return self.pool.view(self.clock.monotonic())[0].reason


def test_a_backend_that_is_silent_before_its_ehlo_could_not_be_connected_to():
    world = World()
    world.lease(hello=False).failed(reason="no greeting")
    assert world.turned == [("mta1", False)]
    assert world.reason == "1 failed connects in a row"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (BackendSettings(), {}),
        (BackendSettings(), {"hello": False, "greeted": True}),
        (BackendSettings(proxy_protocol="v1"), {"hello": False}),
    ],
)
def test_a_backend_that_may_know_its_client_is_judged_by_several(settings, options):
    world = World(settings)
    for client in ("192.0.2.7", "192.0.2.8"):
        world.lease(client, **options).failed(reason="it left")
    assert world.turned == []
    world.lease("203.0.113.1", **options).failed(reason="it left")
    assert world.turned == [("mta1", False)]
    assert world.reason == "3 failed sessions in a row, from 2 or more client networks"


def test_a_failure_is_told_once_and_not_after_the_end():
    world = World()
    lease = world.lease(hello=False)
    lease.release()
    lease.failed(reason="late")
    assert world.turned == []


def test_a_session_that_was_served_ends_a_row():
    world = World()
    world.lease("192.0.2.7").failed(reason="it left")
    world.lease().served()
    world.lease("203.0.113.1").failed(reason="it left")
    assert world.turned == []


def test_a_new_connection_that_was_answered_ends_a_row_of_connects():
    world = World()
    world.pool = PoolState(PoolSpec("core", (BackendSpec("mta1", "h", 25),), breaker=BreakerSpec(connect=2)), 0.0)
    world.lease(hello=False).failed(reason="no greeting")
    world.lease().release()
    world.lease(hello=False).failed(reason="no greeting")
    assert world.turned == []
    world.lease(greeted=True).release()  # made long ago
    world.lease(hello=False).failed(reason="no greeting")
    assert world.turned == [("mta1", False)]


def test_a_slot_is_given_back_once():
    world = World()
    lease = world.lease()
    assert world.pool.conns("mta1") == 1
    for end in (lease.release, lease.keep, lease.release):
        end()
    assert (world.freed, world.pool.conns("mta1")) == (1, 0)


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("unix:", "unix:"),
    ],
)
def test_the_network_of_a_client(client, network):
    assert network_of(client) == network
