"""Pools as they are leased: what is counted, who waits, what is used again, which addresses an answer may name."""

import ipaddress
import time
from contextlib import nullcontext

import gevent
import gevent.socket
import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers import backends
from smtpgate.drivers.backends import CONNECT_TIMEOUT, Direct, ListenerBackends, PoolBackends, is_local
from smtpgate.drivers.connecting import OutOfResources
from smtpgate.drivers.stream import SocketStream
from smtpgate.routing.model import (
    BackendAuth,
    BackendSettings,
    BackendSpec,
    Balance,
    BreakerSpec,
    Failover,
    PoolSpec,
    QueueSpec,
    ReuseSpec,
    State,
)
from smtpgate.session.ports import AddressTarget, BackendRefused, DialFailed, PoolTarget, Seeker
from smtpgate.session.streams import Peer, StreamLost, StreamTimeout
from smtpgate.smtp import replies

CORE = PoolTarget("core")
SEEKER = Seeker("192.0.2.7", "ann", "b.test", Peer("192.0.2.7", 40000, "198.51.100.1", 587))
NO_QUEUE = QueueSpec(wait=0.0)
DOWN = StreamLost("ECONNREFUSED")


def spec(*hosts, name="core", max_conns=1, queue=NO_QUEUE, states=(), **kwargs):
    backends = []
    for n, host in enumerate(hosts):
        state = states[n] if n < len(states) else State.ACTIVE
        backends.append(BackendSpec(f"mta{n + 1}", host, 25, max_conns=max_conns, state=state))
    return PoolSpec(name, tuple(backends), queue=queue, **kwargs)


class World:
    def __init__(self, faults=(), settings=None, **kwargs):
        self.clock = ManualClock()
        self.faults = dict(faults)
        self.dialled = []
        self.seekers = []
        self.streams = []
        self.turned = []
        self.backends = PoolBackends(
            self.clock,
            self.dial,
            settings or BackendSettings(pass_error_message=True),
            lambda: 0.5,
            changed=lambda *turned: self.turned.append(turned),
            **kwargs,
        )

    def dial(self, host, port, settings, seeker, deadline):
        self.dialled.append((host, port, deadline.remaining()))
        self.seekers.append(seeker)
        if host in self.faults:
            raise self.faults[host]
        self.streams.append(ScriptedBackend([]))
        return self.streams[-1]

    def pool(self, *hosts, **kwargs):
        self.backends.replace({"core": spec(*hosts, **kwargs)})

    def lease(self, target=CORE, tried=(), seeker=SEEKER, seconds=20.0):
        return self.backends.lease(target, seeker, tried, Deadline(self.clock, seconds))

    def view(self, pool="core"):
        return {one.name: one for one in self.backends.pools[pool].view(self.clock.monotonic())}

    @property
    def hosts(self):
        return [host for host, _, _ in self.dialled]


@pytest.fixture
def world():
    world = World()
    world.pool("10.0.0.1", "10.0.0.2")
    return world


# --- places ---


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


def test_a_lease_tells_whom_it_is_for_and_how_to_speak(world):
    lease = world.lease()
    assert (lease.backend, lease.host, lease.settings, lease.greeted) == (
        "mta1",
        "10.0.0.1",
        BackendSettings(),
        False,
    )


def test_what_was_tried_is_not_dialled_again(world):
    assert world.lease(tried={"mta1"}).backend == "mta2"
    with pytest.raises(BackendRefused, match="pool core: tried"):
        world.lease(tried={"mta1", "mta2"})


@pytest.mark.parametrize(
    ("fault", "told"),
    [(StreamLost("ECONNREFUSED"), "mta1: ECONNREFUSED"), (StreamTimeout(), "mta1: connect timed out")],
)
def test_a_failed_dial_gives_its_slot_back_and_is_told_to_the_pool(fault, told):
    world = World({"10.0.0.1": fault})
    world.pool("10.0.0.1", "10.0.0.2", max_conns=5)
    for _ in range(3):
        with pytest.raises(DialFailed) as failed:
            world.lease(tried={"mta2"})
        assert str(failed.value) == told
    assert world.turned == [("core", "mta1", False)]
    assert world.view()["mta1"].state == "open"
    assert world.view()["mta1"].reason == "3 failed connects in a row"
    assert [world.backends.pools["core"].conns(name) for name in ("mta1", "mta2")] == [0, 0]


def test_want_of_descriptors_of_our_own_is_held_against_nobody():
    world = World({"10.0.0.1": OutOfResources("EMFILE: Too many open files")})
    world.pool("10.0.0.1")
    for _ in range(5):
        with pytest.raises(BackendRefused, match="mta1: EMFILE") as refused:
            world.lease()
        assert refused.value.reply == replies.NO_RESOURCES  # no other backend could be connected to either
    assert (world.turned, world.view()["mta1"].state) == ([], "up")
    assert world.backends.pools["core"].conns("mta1") == 0


def test_a_killed_dial_gives_its_slot_back_and_is_nobodys_failure(world):
    started = gevent.event.Event()

    def dial(*_):
        started.set()
        gevent.sleep(60)

    world.backends._dial_stream = dial
    one = gevent.spawn(world.lease)
    started.wait()
    assert world.backends.pools["core"].conns("mta1") == 1
    one.kill()
    assert world.backends.pools["core"].conns("mta1") == 0
    assert world.turned == []


def test_a_dial_has_no_more_than_the_connect_timeout_and_no_more_than_what_is_left(world):
    world.lease()
    world.lease(seconds=2.0)
    assert [budget for _, _, budget in world.dialled] == [CONNECT_TIMEOUT, 2.0]


def test_a_dial_without_time_says_nothing_of_the_backend(world):
    for _ in range(4):
        with pytest.raises(DialFailed, match="no time was left"):
            world.lease(seconds=0.0, tried={"mta2"})
    assert (world.dialled, world.turned) == ([], [])


def test_an_unknown_pool_is_our_fault_and_ends_the_session(world):
    with pytest.raises(BackendRefused, match="unknown pool 'gone'") as refused:
        world.backends.plan(PoolTarget("gone"))
    assert (refused.value.reply.code, refused.value.reply.close) == (451, True)


@pytest.mark.parametrize(
    ("attempts", "states", "planned"),
    [(1, (), 1), (5, (), 2), (0, (), 0), (5, (State.DRAIN, State.OFF), 0)],
)
def test_no_more_tries_than_there_are_other_backends(world, attempts, states, planned):
    failover = Failover(attempts=attempts, deadline=3.0)
    world.pool("10.0.0.1", "10.0.0.2", "10.0.0.3", failover=failover, states=states)
    assert world.backends.plan(CORE) == Failover(attempts=planned, deadline=3.0)


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("user", [Seeker("192.0.2.7", f"user{n}", "b.test") for n in range(9)]),
        ("client", [Seeker(f"192.0.2.{n}", "ann", "b.test") for n in range(9)]),
        ("domain", [Seeker("192.0.2.7", "ann", f"{n}.test") for n in range(9)]),
    ],
)
def test_the_hash_is_of_what_the_pool_says(world, key, others):
    def reached(seeker):
        lease = world.lease(seeker=seeker)
        lease.release()
        return lease.backend

    hosts = [f"10.0.0.{n}" for n in range(1, 9)]
    world.pool(*hosts, balance=Balance.HASH, hash_key=key)
    assert len({reached(SEEKER) for _ in range(9)}) == 1
    first = [reached(other) for other in others]
    assert len(set(first)) > 2
    assert [reached(other) for other in others] == first


def test_the_dialler_hears_whose_connection_it_makes(world):
    world.lease()
    assert world.seekers == [SEEKER]


# --- those who wait ---


def test_a_plan_follows_an_edit(world):
    assert world.backends.plan(CORE).attempts == 1
    world.pool("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert world.backends.plan(CORE).attempts == 2


@pytest.fixture
def busy():
    """A pool of one place that is taken, and a queue of two."""
    world = World()
    world.pool("10.0.0.1", queue=QueueSpec(wait=5.0, max=2))
    world.held = world.lease()
    return world


def waiting(world, n=1, **kwargs):
    greenlets = [gevent.spawn(world.lease, **kwargs) for _ in range(n)]
    gevent.idle()
    return greenlets


def test_a_place_goes_to_whoever_has_waited_longest(busy):
    first, second = waiting(busy, 2)
    busy.held.release()
    lease = first.get(timeout=10)
    assert not second.ready()
    lease.release()
    second.get(timeout=10).release()
    assert busy.backends.pools["core"].conns("mta1") == 0


def test_nobody_overtakes_those_who_wait(busy):
    (first,) = waiting(busy)
    busy.held.release()  # the place is given away here
    (late,) = waiting(busy)
    assert first.get(timeout=10).backend == "mta1"
    assert not late.ready()
    late.kill()


def test_the_queue_is_bounded(busy):
    greenlets = waiting(busy, 2)
    with pytest.raises(BackendRefused, match="full"):
        busy.lease()
    gevent.killall(greenlets)


def test_a_wait_has_an_end(busy):
    busy.pool("10.0.0.1", queue=QueueSpec(wait=0.05, max=2))
    began = time.monotonic()
    with pytest.raises(BackendRefused, match="pool core: full"):
        busy.lease()
    assert 0.04 < time.monotonic() - began < 10.0


def test_a_wait_leaves_the_connection_half_of_the_time(busy):
    """Or a backend that is only busy would be blamed for a connection that had no time."""
    began = time.monotonic()
    with pytest.raises(BackendRefused, match="pool core: full"):
        busy.lease(seconds=1.0)
    assert 0.45 < time.monotonic() - began < 0.95


def test_whoever_is_killed_while_waiting_leaves_the_queue(busy):
    (first,) = waiting(busy)
    first.kill()
    busy.held.release()
    assert busy.lease().backend == "mta1"


@pytest.fixture
def client():
    """A client's connection, and the client."""
    near, far = gevent.socket.socketpair()
    stream = SocketStream(near)
    yield stream, far
    stream.close()
    far.close()


def queued(busy, attending):
    """Somebody who waits in the queue, within attending()."""
    deadline = Deadline(busy.clock, 20.0)
    one = gevent.spawn(lambda: busy.backends.lease(CORE, SEEKER, (), deadline, attending))
    gevent.idle()
    return one


def test_a_client_that_leaves_while_it_waits_leaves_the_queue(busy, client):
    stream, peer = client
    left, other = queued(busy, stream.abort_on_close), queued(busy, nullcontext)
    peer.close()
    with pytest.raises(StreamLost, match="client closed the connection"):
        left.get(timeout=10)
    assert not other.ready()
    busy.held.release()
    other.get(timeout=10).release()
    assert busy.backends.pools["core"].conns("mta1") == 0


def test_one_that_goes_on_talking_keeps_its_place_and_its_words(busy, client):
    stream, peer = client
    one = queued(busy, stream.abort_on_close)
    peer.sendall(b"NOOP\r\n")
    gevent.idle()
    busy.held.release()
    assert one.get(timeout=10).backend == "mta1"
    assert stream.read(Deadline(SystemClock(), 1.0)) == b"NOOP\r\n"


def test_one_that_leaves_while_its_backend_is_dialled_leaves_the_place_to_the_next(world, client):
    stream, peer = client
    world.pool("10.0.0.1")

    def never(*_):
        gevent.sleep(60)

    def look_for_a_backend():
        with stream.abort_on_close():
            backends.lease(CORE, SEEKER, (), Deadline(world.clock, 20.0))

    backends = world.backends
    answer, backends._dial_stream = backends._dial_stream, never
    one = gevent.spawn(look_for_a_backend)
    gevent.idle()
    assert backends.pools["core"].conns("mta1") == 1
    peer.close()
    with pytest.raises(StreamLost, match="client closed the connection"):
        one.get(timeout=1)
    assert backends.pools["core"].conns("mta1") == 0
    backends._dial_stream = answer
    assert world.lease().backend == "mta1"  # its breaker has heard of nothing


def test_nobody_is_watched_who_need_not_wait(world):
    def attending():
        raise AssertionError("there is a place")

    world.backends.lease(CORE, SEEKER, (), Deadline(world.clock, 20.0), attending).release()


def test_the_queue_of_a_listener_with_a_backend_of_its_own_is_left_too(busy, client):
    stream, peer = client
    own = ListenerBackends(busy.backends, Direct(BackendSettings()))
    deadline = Deadline(busy.clock, 20.0)
    one = gevent.spawn(lambda: own.lease(CORE, SEEKER, (), deadline, stream.abort_on_close))
    gevent.idle()
    peer.close()
    with pytest.raises(StreamLost):
        one.get(timeout=10)


def test_a_place_that_was_given_to_one_who_is_killed_goes_to_the_next(busy):
    first, second = waiting(busy, 2)
    first.kill(block=False)
    busy.held.release()
    assert second.get(timeout=10).backend == "mta1"


def test_an_edit_makes_room(busy):
    (first,) = waiting(busy)
    busy.pool("10.0.0.1", "10.0.0.2", queue=QueueSpec(wait=5.0, max=2))
    assert first.get(timeout=10).backend == "mta2"


def test_a_place_from_before_an_edit_leaves_nothing_behind_of_where_it_led(busy):
    """It is given away, then the backend moves, and only then does its session run."""
    (first,) = waiting(busy)
    busy.held.release()
    busy.pool("10.0.0.9", queue=QueueSpec(wait=5.0, max=2))
    lease = first.get(timeout=10)
    lease.served()
    lease.keep()
    assert (lease.host, busy.backends.idle) == ("10.0.0.1", 0)
    assert busy.lease().host == "10.0.0.9"


# --- fallback ---


@pytest.fixture
def site():
    """A pool of two and another for when it has nobody."""
    world = World()
    world.backends.replace(
        {
            "core": spec("10.0.0.1", "10.0.0.2", fallback="away", max_conns=None, breaker=BreakerSpec(max_open=1.0)),
            "away": spec("10.9.0.1", "10.9.0.2", name="away", max_conns=None, unavailable="421 4.3.2 gone home"),
        }
    )
    return world


def test_the_fallback_is_not_asked_while_somebody_is_healthy(site):
    assert [site.lease().backend for _ in range(3)] == ["mta1", "mta2", "mta1"]
    assert site.backends.plan(CORE).attempts == 3
    assert site.backends.unavailable(CORE).wire() == b"421 4.3.2 gone home\r\n"


def test_the_fallback_is_asked_when_all_were_tried(site):
    lease = site.lease(tried=["mta1", "mta2"])
    assert (lease.backend, lease.host) == ("away/mta1", "10.9.0.1")
    assert site.lease(tried=["mta1", "mta2", "away/mta1"]).backend == "away/mta2"
    with pytest.raises(BackendRefused, match="pool core: tried, pool away: tried") as refused:
        site.lease(tried=["mta1", "mta2", "away/mta1", "away/mta2"])
    assert refused.value.reply.wire() == b"421 4.3.2 gone home\r\n"


def test_the_fallback_is_asked_when_nobody_is_healthy_and_the_first_again_before_anybody_is_refused(site):
    for name in ("mta1", "mta2"):
        site.backends.pools["core"].told(name, False, "no answer", site.clock.monotonic())
    assert site.lease().backend == "away/mta1"
    for name in ("mta1", "mta2"):
        site.backends.pools["away"].told(name, False, "no answer", site.clock.monotonic())
    assert site.lease().backend == "mta1"
    assert site.backends.pools["core"].conns("mta1") == 1


def test_a_pool_whose_breakers_are_open_gets_its_trial(site):
    site.faults = {"10.0.0.1": DOWN, "10.0.0.2": DOWN}
    for _ in range(6):
        with pytest.raises(DialFailed):
            site.lease()
    assert site.lease().backend == "away/mta1"
    site.clock.time += BreakerSpec().open
    site.faults = {}
    assert site.lease().backend == "mta2"  # whose turn it was


def test_a_fallback_speaks_in_its_own_way(site):
    settings = BackendSettings(xclient="off")
    pools = {"core": spec("10.0.0.1", fallback="away"), "away": spec("10.9.0.1", name="away", settings=settings)}
    site.backends.replace(pools)
    assert site.lease(tried=["mta1"]).settings == settings


# --- reuse ---


def rested(world, **kwargs):
    """Lease and keep, once."""
    lease = world.lease(**kwargs)
    lease.served()
    lease.keep()
    return lease


def test_a_connection_is_used_again(world):
    first = rested(world)
    second = world.lease(tried={"mta2"})
    assert second.link is first.link
    assert (second.greeted, second.backend, second.host) == (True, "mta1", "10.0.0.1")
    assert len(world.dialled) == 1
    assert world.backends.idle == 0
    second.release()
    assert world.streams[0].closed


def test_a_kept_connection_holds_no_place(world):
    rested(world)
    assert world.backends.pools["core"].conns("mta1") == 0
    assert world.backends.idle == 1


def test_a_connection_that_ended_while_it_rested_is_not_used(world):
    rested(world)
    world.streams[0].hung_up = True
    second = world.lease(tried={"mta2"})
    assert not second.greeted
    assert world.streams[0].closed


@pytest.mark.parametrize(
    "settings",
    [
        BackendSettings(proxy_protocol="v1"),
        BackendSettings(auth=BackendAuth(replay=True)),
    ],
)
def test_a_connection_that_knows_its_client_for_good_is_never_anothers(world, settings):
    world.pool("10.0.0.1", settings=settings)
    rested(world)
    assert world.streams[0].closed
    assert world.streams[0].received.endswith(b"QUIT\r\n")
    assert not world.lease().greeted


def test_fixed_credentials_are_nobodys_in_particular(world):
    world.pool("10.0.0.1", settings=BackendSettings(auth=BackendAuth(user="proxy", password="secret")))
    rested(world)
    assert world.lease().greeted


@pytest.mark.parametrize(
    ("reuse", "kept"),
    [(ReuseSpec(idle=0.0), 0), (ReuseSpec(max_idle=0), 0), (ReuseSpec(messages=1), 0), (ReuseSpec(messages=2), 1)],
)
def test_what_the_pool_lets_rest(world, reuse, kept):
    world.pool("10.0.0.1", reuse=reuse)
    rested(world)
    assert world.backends.idle == kept
    assert world.streams[0].closed is (kept == 0)


def test_messages_and_age_count_from_the_connections_beginning(world):
    world.pool("10.0.0.1", reuse=ReuseSpec(messages=3, age=100.0))
    for _ in range(3):
        rested(world)
    assert (len(world.dialled), world.backends.idle) == (1, 0)
    rested(world)
    world.clock.time += 99.0
    assert not world.lease().greeted  # idle for longer than 20 s
    world.pool("10.0.0.1", max_conns=9, reuse=ReuseSpec(idle=60.0, age=100.0))
    rested(world)
    for _ in range(2):
        world.clock.time += 40.0
        rested(world)
    world.clock.time += 40.0
    assert not world.lease().greeted


@pytest.mark.parametrize(
    ("edited", "kept"),
    [
        (spec("10.0.0.1", "10.0.0.2"), 1),
        (spec("10.0.0.1", max_conns=7), 1),
        (spec("10.0.0.9"), 0),
        (spec("10.0.0.1", "10.0.0.2", states=[State.DRAIN]), 0),
        (spec("10.0.0.1", "10.0.0.2", states=[State.OFF]), 0),
        (spec("10.0.0.1", settings=BackendSettings(xclient="off")), 0),
        (spec("10.0.0.1", reuse=ReuseSpec(idle=0.0)), 0),
    ],
)
def test_an_edit_closes_what_would_not_be_made_now(world, edited, kept):
    rested(world)
    under_way = world.lease(tried={"mta2"})
    rested(world, tried={"mta1"})
    under_way.keep()
    assert world.backends.idle == 2
    world.backends.replace({"core": edited, "other": spec("10.5.0.1", name="other")})
    gevent.idle()
    assert world.streams[0].closed is (kept == 0)
    assert world.backends.idle == kept + (len(edited.backends) == 2)


def test_a_session_that_ends_after_its_backend_was_edited_away_leaves_nothing_behind(world):
    lease = world.lease()
    world.backends.replace({})
    lease.keep()
    assert world.streams[0].closed
    assert world.backends.idle == 0


def test_a_process_that_ends_keeps_nothing(world):
    rested(world)
    lease = world.lease(tried={"mta1"})
    world.backends.drain()
    gevent.idle()
    lease.keep()
    assert [stream.closed for stream in world.streams] == [True, True]
    assert all(stream.received.endswith(b"QUIT\r\n") for stream in world.streams)


def test_keep_and_release_may_both_be_called(world):
    lease = world.lease()
    lease.keep()
    lease.keep()
    lease.release()
    assert world.backends.idle == 1
    assert not world.streams[0].closed


# --- edits ---


def test_an_edit_keeps_counts_and_forgets_pools_that_are_gone(world):
    held = world.lease()
    world.pool("10.0.0.1", "10.0.0.2", unavailable="421 4.3.2 gone home")
    world.lease()
    with pytest.raises(BackendRefused) as refused:
        world.lease()
    assert refused.value.reply.wire() == b"421 4.3.2 gone home\r\n"
    world.backends.replace({})
    with pytest.raises(BackendRefused, match="unknown pool"):
        world.lease()
    held.release()


# --- addresses ---


def test_an_address_goes_to_that_address_with_the_default_settings(world):
    target = AddressTarget("203.0.113.9", 2525)
    assert world.backends.plan(target) == Failover(attempts=0)
    lease = world.lease(target)
    assert (lease.backend, lease.settings) == ("203.0.113.9:2525", BackendSettings(pass_error_message=True))
    assert world.dialled[-1][:2] == ("203.0.113.9", 2525)
    assert world.backends.unavailable(target) == replies.NO_BACKEND
    lease.failed(reason="it left")
    lease.release()
    assert world.streams[-1].closed


def test_a_connection_to_an_address_is_used_again_for_that_address_only(world):
    target = AddressTarget("203.0.113.9", 2525)
    first = rested(world, target=target)
    assert not world.lease(AddressTarget("203.0.113.9", 2526)).greeted
    assert world.lease(target).link is first.link


def test_an_address_that_cannot_be_reached(world):
    world.faults = {"203.0.113.9": DOWN}
    with pytest.raises(DialFailed, match=r"203\.0\.113\.9:2525: ECONNREFUSED"):
        world.lease(AddressTarget("203.0.113.9", 2525))


def test_an_address_outside_allow_is_never_dialled():
    world = World(allow=[ipaddress.ip_network("10.1.0.0/16")])
    assert world.lease(AddressTarget("10.1.2.3", 25)).backend == "10.1.2.3:25"
    for host in ("127.0.0.1", "10.2.0.1", "::1"):
        with pytest.raises(BackendRefused, match="not allowed"):
            world.lease(AddressTarget(host, 25))
    assert len(world.dialled) == 1


def test_a_listener_may_speak_to_addresses_in_its_own_way():
    world = World()
    world.pool("203.0.113.1")
    direct = Direct(BackendSettings(xclient="on"), (ipaddress.ip_network("10.0.0.0/8"),))
    own = ListenerBackends(world.backends, direct)
    deadline = Deadline(world.clock, 5.0)
    assert own.lease(AddressTarget("10.1.2.3", 25), SEEKER, (), deadline).settings == BackendSettings(xclient="on")
    with pytest.raises(BackendRefused, match="not allowed"):
        own.lease(AddressTarget("203.0.113.9", 25), SEEKER, (), deadline)
    assert world.lease(AddressTarget("203.0.113.9", 25)).settings == BackendSettings(pass_error_message=True)
    assert own.lease(CORE, SEEKER, (), deadline).settings == BackendSettings()
    assert own.plan(CORE) == world.backends.plan(CORE)
    assert own.unavailable(CORE) == world.backends.unavailable(CORE)


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


def test_an_address_may_become_our_own(monkeypatch):
    """As one does that keepalived moves to this machine."""

    class Probe:
        moved = False

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def bind(self, _):
            if not Probe.moved:
                raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(backends.socket, "socket", Probe)
    assert not is_local("192.0.2.99")
    Probe.moved = True
    assert is_local("192.0.2.99")


def test_is_local():
    assert is_local("127.0.0.1")
    assert is_local("::1")
    assert not is_local("203.0.113.9")


# --- orders ---


def test_a_drained_backend_gets_nobody_and_keeps_no_connection(world):
    rested(world)
    assert world.backends.resting == {("core", "mta1"): 1}
    world.backends.obey({"core": {"mta1": "ann"}, "gone": {"mta1": "ann"}})
    gevent.idle()
    assert world.streams[0].closed
    assert world.lease().backend == "mta2"
    with pytest.raises(BackendRefused, match="pool core: full"):
        world.lease()
    assert world.view()["mta1"].state == "drain"


def test_a_session_under_way_ends_on_its_drained_backend(world):
    lease = world.lease()
    world.backends.obey({"core": {lease.backend: "ann"}})
    assert not world.streams[0].closed
    lease.keep()
    assert world.streams[0].closed
    assert world.backends.idle == 0


def test_orders_outlast_edits_and_are_taken_back(world):
    world.backends.obey({"core": {"mta1": "ann"}, "new": {"mta1": "ann"}})
    world.pool("10.0.0.1", "10.0.0.2", unavailable="421 4.3.2 gone home")
    assert world.backends.plan(CORE).attempts == 0  # one is left to try
    world.backends.replace({"core": spec("10.0.0.1"), "new": spec("10.1.0.1", name="new")})
    for pool in ("core", "new"):
        with pytest.raises(BackendRefused, match="empty"):
            world.lease(PoolTarget(pool))
    world.backends.obey({})
    assert [world.lease(PoolTarget(pool)).backend for pool in ("core", "new")] == ["mta1", "mta1"]


def test_an_order_taken_back_serves_who_waits(world):
    world.backends.replace({"core": spec("10.0.0.1", queue=QueueSpec(wait=10.0))})
    first = world.lease()
    waiting = gevent.spawn(world.lease, CORE, (), SEEKER, 60.0)
    gevent.idle()
    assert world.backends.waiting == {"core": 1}
    world.backends.obey({"core": {"mta1": "ann"}})
    with pytest.raises(BackendRefused, match="empty"):
        waiting.get(timeout=5)
    first.release()


def test_where_nobody_may_go_is_known_before_anybody_goes():
    world = World(allow=[ipaddress.ip_network("10.1.0.0/16")], own_ports={20025})
    world.pool("10.0.0.1")
    own = ListenerBackends(world.backends, Direct(BackendSettings()))
    for target in (CORE, AddressTarget("10.1.2.3", 25)):
        world.backends.check(target)
        own.check(target)
    for target in (PoolTarget("nowhere"), AddressTarget("127.0.0.1", 20025)):
        for asked in (world.backends, own):
            with pytest.raises(BackendRefused):
                asked.check(target)
    with pytest.raises(BackendRefused, match="not allowed"):
        world.backends.check(AddressTarget("10.2.0.1", 25))
    own.check(AddressTarget("10.2.0.1", 25))  # whose own settings allow any
    assert world.dialled == []
