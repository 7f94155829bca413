"""Connections that rest: how long, how many, and how they end."""

import gevent
import pytest
from fakes import ManualClock, ScriptedBackend
from turns import turns

from smtpgate.drivers import idle as module
from smtpgate.drivers.idle import IdleLinks, Way
from smtpgate.routing.model import BackendSettings, ReuseSpec
from smtpgate.session.link import BackendLink


class World:
    def __init__(self):
        self.clock = ManualClock()
        self.idle = IdleLinks(self.clock)
        self.streams = []

    def way(self, backend="mta1", **reuse):
        return Way("core", backend, "10.0.0.1", 25, BackendSettings(), ReuseSpec(**reuse))

    def put(self, way, *, age=0.0, messages=1):
        stream = ScriptedBackend([])
        self.streams.append(stream)
        link = BackendLink(stream, self.clock)
        return self.idle.put(way, link, self.clock.monotonic() - age, messages)

    def taken(self, way):
        """The number of the stream that was taken."""
        kept = self.idle.take(way)
        return None if kept is None else next(n for n, one in enumerate(self.streams) if one is kept.link._stream)

    def parted(self, n):
        """How the connection ended: "quit", "closed" or "" if it did not."""
        stream = self.streams[n]
        return ("quit" if stream.received.endswith(b"QUIT\r\n") else "closed") if stream.closed else ""


@pytest.fixture
def world():
    return World()


def test_the_last_to_rest_is_the_first_to_work(world):
    way = world.way()
    assert [world.put(way) for _ in range(3)] == [True] * 3
    assert [world.taken(way) for _ in range(4)] == [2, 1, 0, None]
    assert len(world.idle) == 0


def test_ways_are_kept_apart(world):
    world.put(world.way("mta1"))
    assert world.taken(world.way("mta2")) is None
    assert world.taken(world.way("mta1", idle=19.0)) is None
    assert world.taken(world.way("mta1")) == 0


def test_bounds(world, monkeypatch):
    way = world.way(max_idle=2, messages=5, age=100.0)
    assert not world.put(way, messages=5)
    assert not world.put(way, age=100.0)
    assert [world.put(way, messages=4, age=99.0) for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    assert [world.put(world.way("mta2")) for _ in range(2)] == [True, False]


def test_what_spoke_or_left_while_it_rested_is_closed(world):
    way = world.way()
    for _ in range(3):
        world.put(way)
    world.streams[2].outgoing += b"421 4.3.2 going down\r\n"
    world.streams[1].hung_up = True
    assert world.taken(way) == 0
    assert [world.parted(n) for n in range(3)] == ["", "closed", "closed"]


@pytest.mark.parametrize(("reuse", "age", "passed"), [({"idle": 5.0}, 0.0, 5.0), ({"age": 50.0}, 45.0, 5.0)])
def test_what_has_rested_too_long_or_is_too_old_is_not_used(world, reuse, age, passed):
    way = world.way(**reuse)
    world.put(way, age=age)
    world.clock.time += passed
    assert world.taken(way) is None
    assert world.parted(0) == "quit"


def test_what_rests_too_long_is_left_politely_in_the_background(world, monkeypatch):
    monkeypatch.setattr(module, "SWEEP_INTERVAL", 0.005)
    short, long = world.way(idle=5.0), world.way(idle=50.0)
    world.put(short)
    world.put(long)
    world.clock.time += 3.0
    world.put(short)
    turns()
    assert [world.parted(n) for n in range(3)] == ["", "", ""]
    world.clock.time += 2.0
    turns()
    assert [world.parted(n) for n in range(3)] == ["quit", "", ""]
    world.clock.time += 50.0
    turns()
    assert [world.parted(n) for n in range(3)] == ["quit"] * 3
    assert world.idle._sweeper is None  # nobody is left to look after


def test_no_connection_is_handed_out_twice_though_a_goodbye_takes_its_time(world, monkeypatch):
    monkeypatch.setattr(module, "SWEEP_INTERVAL", 0.001)
    way = world.way(age=100.0)
    for age in (0.0, 0.0, 95.0):
        world.put(way, age=age)
    world.clock.time += 5.0
    goodbye = world.streams[2].write

    def slow(data, deadline):
        gevent.sleep(0.02)
        goodbye(data, deadline)

    world.streams[2].write = slow
    first = gevent.spawn(world.taken, way)
    turns()  # a sweep comes by
    assert sorted([world.taken(way), first.get(timeout=10)]) == [0, 1]
    assert world.taken(way) is None


def test_retain_and_close(world):
    world.put(world.way("mta1"))
    world.put(world.way("mta2"))
    world.idle.retain(lambda way: way.backend == "mta2")
    gevent.idle()
    assert [world.parted(n) for n in range(2)] == ["quit", ""]
    world.idle.close()
    gevent.idle()
    assert [world.parted(n) for n in range(2)] == ["quit", "quit"]


def test_a_sweep_looks_at_each_connection_by_itself(world, monkeypatch):
    """And compares none with another: a thousand would be half a million comparisons, while every session waits."""
    monkeypatch.setattr(module, "SWEEP_INTERVAL", 0.001)

    def compared(one, other):
        pytest.fail("two connections are compared")

    monkeypatch.setattr(module.Kept, "__eq__", compared)
    way = world.way(age=100.0)
    for age in (95.0, 96.0, 0.0):
        world.put(way, age=age)
    world.clock.time += 6.0
    turns()
    assert [world.parted(n) for n in range(3)] == ["quit", "quit", ""]
    assert len(world.idle) == 1
