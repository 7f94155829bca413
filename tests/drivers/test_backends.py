"""Pools as they are leased: what is counted, what is given back, which addresses an answer may name."""

import ipaddress

import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline
from smtpgate.drivers.backends import CONNECT_TIMEOUT, PoolBackends, is_local
from smtpgate.routing.model import BackendSettings, BackendSpec, Failover, PoolSpec
from smtpgate.session.ports import AddressTarget, BackendRefused, DialFailed, PoolTarget, StreamLost, StreamTimeout

CORE = PoolTarget("core")


def spec(*hosts, **kwargs):
    backends = tuple(BackendSpec(f"mta{n}", host, 25, max_conns=1) for n, host in enumerate(hosts, 1))
    return PoolSpec("core", backends, **kwargs)


class World:
    def __init__(self, faults=(), **kwargs):
        self.clock = ManualClock()
        self.faults = dict(faults)
        self.dialled = []
        self.streams = []
        self.backends = PoolBackends(self.clock, self.connect, BackendSettings(smtp_auth=True), **kwargs)

    def connect(self, host, port, deadline):
        self.dialled.append((host, port, deadline.remaining()))
        if host in self.faults:
            raise self.faults[host]
        self.streams.append(ScriptedBackend([]))
        return self.streams[-1]

    def lease(self, target=CORE, tried=()):
        return self.backends.lease(target, tried, Deadline(self.clock, 20.0))


@pytest.fixture
def world():
    world = World()
    world.backends.replace({"core": spec("10.0.0.1", "10.0.0.2")})
    return world


def test_leases_are_counted_until_they_are_released(world):
    first, second = world.lease(), world.lease()
    assert {first.backend, second.backend} == {"mta1", "mta2"}
    with pytest.raises(BackendRefused, match="full") as refused:
        world.lease()
    assert refused.value.reply.wire() == b"451 4.4.1 no mail server available, try again later\r\n"
    first.release()
    first.release()
    assert world.streams[0].closed
    assert world.lease().backend == first.backend
    with pytest.raises(BackendRefused):
        world.lease()


def test_what_was_tried_is_not_dialled_again(world):
    assert world.lease(tried={"mta1"}).backend == "mta2"
    with pytest.raises(BackendRefused, match="tried"):
        world.lease(tried={"mta1", "mta2"})


@pytest.mark.parametrize("fault", [StreamLost("ECONNREFUSED"), StreamTimeout()])
def test_a_failed_dial_gives_its_slot_back(fault):
    world = World({"10.0.0.1": fault})
    world.backends.replace({"core": spec("10.0.0.1")})
    for _ in range(3):
        with pytest.raises(DialFailed, match="mta1: "):
            world.lease()


def test_a_dial_has_no_more_than_the_connect_timeout_and_no_more_than_what_is_left(world):
    world.lease()
    world.backends.lease(CORE, (), Deadline(world.clock, 2.0))
    assert [budget for _, _, budget in world.dialled] == [CONNECT_TIMEOUT, 2.0]


def test_an_unknown_pool_is_our_fault_and_ends_the_session(world):
    with pytest.raises(BackendRefused, match="unknown pool 'gone'") as refused:
        world.backends.plan(PoolTarget("gone"))
    assert (refused.value.reply.code, refused.value.reply.close) == (451, True)


def test_a_pool_says_how_to_speak_to_it(world):
    hosts = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    own = spec(*hosts, settings=BackendSettings(xclient="off"), failover=Failover(attempts=1, deadline=3.0))
    world.backends.replace({"core": own})
    assert world.backends.plan(CORE) == (own.settings, own.failover)


def test_no_more_tries_than_there_are_other_backends(world):
    world.backends.replace({"core": spec("10.0.0.1", "10.0.0.2", failover=Failover(attempts=5, deadline=3.0))})
    assert world.backends.plan(CORE)[1] == Failover(attempts=1, deadline=3.0)


def test_an_edit_keeps_counts_and_forgets_pools_that_are_gone(world):
    held = world.lease()
    world.backends.replace({"core": spec("10.0.0.1", "10.0.0.2", unavailable="421 4.3.2 gone home")})
    world.lease()
    with pytest.raises(BackendRefused) as refused:
        world.lease()
    assert refused.value.reply.wire() == b"421 4.3.2 gone home\r\n"
    world.backends.replace({})
    with pytest.raises(BackendRefused, match="unknown pool"):
        world.lease()
    held.release()


def test_an_address_goes_to_that_address_with_the_default_settings(world):
    target = AddressTarget("203.0.113.9", 2525)
    assert world.backends.plan(target) == (BackendSettings(smtp_auth=True), Failover(attempts=0))
    assert world.lease(target).backend == "203.0.113.9:2525"
    assert world.dialled[-1][:2] == ("203.0.113.9", 2525)
    assert world.backends.unavailable(target).wire() == b"451 4.3.2 Internal server error\r\n"
    assert world.backends.unavailable(target).close


def test_an_address_outside_allow_is_never_dialled():
    world = World(allow=[ipaddress.ip_network("10.1.0.0/16")])
    assert world.lease(AddressTarget("10.1.2.3", 25)).backend == "10.1.2.3:25"
    for host in ("127.0.0.1", "10.2.0.1", "::1"):
        with pytest.raises(BackendRefused, match="not allowed"):
            world.lease(AddressTarget(host, 25))
    assert len(world.dialled) == 1


def test_an_address_that_is_our_own_listener_is_a_loop():
    world = World(own_ports={20025})
    for host in ("127.0.0.1", "127.9.9.9", "::1"):
        with pytest.raises(BackendRefused, match="listener of ours"):
            world.lease(AddressTarget(host, 20025))
    assert world.lease(AddressTarget("127.0.0.1", 25)).backend == "127.0.0.1:25"
    assert world.lease(AddressTarget("203.0.113.9", 20025)).backend == "203.0.113.9:20025"


def test_an_allowed_network_does_not_allow_a_loop():
    world = World(allow=[ipaddress.ip_network("127.0.0.0/8")], own_ports={20025})
    with pytest.raises(BackendRefused, match="listener of ours"):
        world.lease(AddressTarget("127.0.0.1", 20025))
    assert world.lease(AddressTarget("127.0.0.1", 25)).backend == "127.0.0.1:25"


def test_is_local():
    assert is_local("127.0.0.1")
    assert is_local("::1")
    assert not is_local("203.0.113.9")
