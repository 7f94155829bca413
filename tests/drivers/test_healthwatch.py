"""What workers tell each other: probes from one, ejections from all, and what listeners may offer."""

import json
from dataclasses import replace

import gevent
import pytest
from fakes import ListJournal, ManualClock
from turns import turns

from smtpgate.clock import Deadline
from smtpgate.drivers import healthwatch
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.healthwatch import HealthWatch
from smtpgate.drivers.nodestate import LEADER
from smtpgate.drivers.probes import Finding, Subject
from smtpgate.routing.model import BackendSettings, BackendSpec, BreakerSpec, HealthSpec, PoolSpec
from smtpgate.session.ports import DialFailed, PoolTarget, Seeker
from smtpgate.session.streams import StreamLost
from smtpgate.smtp.capabilities import MINIMUM
from smtpgate.smtp.extensions import Extensions
from smtpgate.smtp.replies import Reply

HEALTH = HealthSpec(rise=2, fall=2)


def spec(*hosts, name="core"):
    backends = tuple(BackendSpec(f"mta{n}", host, 25) for n, host in enumerate(hosts, 1))
    return PoolSpec(name, backends, health=HEALTH, breaker=BreakerSpec(connect=2, max_open=1.0))


def offering(*lines):
    return Extensions.from_ehlo(Reply(250, ("mta.test", *lines)))


class Node:
    """The boards of workers in one process, and who leads."""

    def __init__(self):
        self.areas = {}
        self.leader = None
        self.workers = 0
        self.full = False

    def board(self):
        self.workers += 1
        return NodeBoard(self, self.workers)


class NodeBoard:
    """As nodestate.Board, with JSON between."""

    def __init__(self, node, area):
        self.node, self.area, self.seen = node, area, {}

    @property
    def leads(self):
        return self.node.leader is self

    def lead(self):
        self.node.leader = self.node.leader or self
        return self.leads

    def resign(self):
        if self.leads:
            self.node.leader = None

    def publish(self, value, *, as_leader=False):
        assert not as_leader or self.leads
        if self.node.full:
            return False
        self.node.areas[LEADER if as_leader else self.area] = json.dumps(value)
        return True

    def news(self):
        mine = {self.area, LEADER} if self.leads else {self.area}
        new = {
            area: text for area, text in self.node.areas.items() if area not in mine and self.seen.get(area) != text
        }
        self.seen.update(new)
        return [(area, json.loads(text)) for area, text in new.items()]


class WatchedProbes:
    def __init__(self):
        self.watched = None

    def watch(self, pools):
        self.watched = {name: [one.name for one in spec.backends] for name, spec in pools.items()}

    def stop(self):
        self.watched = None


class Worker:
    def __init__(self, node, clock, pools):
        self.clock = clock
        self.journal = ListJournal()
        self.offered = []
        self.fault = None
        self.backends = PoolBackends(
            clock, self.dial, BackendSettings(), lambda: 0.0, changed=lambda *turned: self.watch.turned(*turned)
        )
        self.watch = HealthWatch(clock, self.backends, node.board(), self.journal, self.offered.append)
        self.probes = WatchedProbes()
        self.watch._probes = self.probes
        self.edit(*pools)

    def dial(self, *_):
        raise StreamLost("ECONNREFUSED")

    def edit(self, *pools):
        self.backends.replace({spec.name: spec for spec in pools})
        self.watch.edited()

    def fail(self, name, times=2):
        others = {one.name for one in self.backends.pools["core"].spec.backends} - {name}
        seeker = Seeker("192.0.2.7", None, "b.test")
        for _ in range(times):
            with pytest.raises(DialFailed):
                self.backends.lease(PoolTarget("core"), seeker, others, Deadline(self.clock, 5.0))

    def find(self, backend, up, *lines, pool="core", times=1, reason="no greeting"):
        finding = Finding(up, "" if up else reason, offering(*lines) if up else None)
        for _ in range(times):
            self.watch.found(Subject(pool, backend, BackendSettings(), HEALTH), finding)

    def state(self, name, pool="core"):
        return next(v.state for v in self.backends.pools[pool].view(self.clock.monotonic()) if v.name == name)

    def reason(self, name):
        return next(v.reason for v in self.backends.pools["core"].view(self.clock.monotonic()) if v.name == name)


class World:
    def __init__(self, *pools):
        self.clock = ManualClock()
        self.node = Node()
        self.workers = [Worker(self.node, self.clock, pools) for _ in range(3)]
        self.leader, self.second, self.third = self.workers
        self.look()

    def look(self):
        for worker in self.workers:
            worker.watch.look()

    def states(self, name):
        return [worker.state(name) for worker in self.workers]


@pytest.fixture
def world():
    return World(spec("10.0.0.1", "10.0.0.2"))


MTA1 = BackendSpec("mta1", "10.0.0.1", 25)
MTA2 = BackendSpec("mta2", "10.0.0.2", 25)


def test_one_probes(world):
    assert world.leader.probes.watched == {"core": ["mta1", "mta2"]}
    assert [worker.probes.watched for worker in (world.second, world.third)] == [None, None]
    assert [worker.journal.of("health_leader") for worker in world.workers] == [[{}], [], []]


def test_what_the_leader_finds_all_know_at_their_next_look(world):
    world.leader.find(MTA1, False)
    world.look()
    assert world.states("mta1") == ["up"] * 3
    world.leader.find(MTA1, False)
    assert world.states("mta1") == ["down", "up", "up"]
    world.look()
    assert world.states("mta1") == ["down"] * 3
    assert world.third.reason("mta1") == "no greeting"
    world.leader.find(MTA1, True, times=2)
    world.look()
    assert world.states("mta1") == ["up"] * 3


def test_a_change_is_one_line_of_the_log_on_the_node(world):
    world.leader.find(MTA1, False, times=3)
    world.look()
    world.clock.time += 60.0
    world.leader.find(MTA1, True, times=3)
    world.look()
    told = {"pool": "core", "backend": "mta1", "by": "probe"}
    assert world.leader.journal.of("backend_down") == [
        {**told, "reason": "no greeting", "since": "1970-01-12T13:46:40.000Z"}
    ]
    assert world.leader.journal.of("backend_up") == [{**told, "since": "1970-01-12T13:47:40.000Z"}]
    for worker in (world.second, world.third):
        assert worker.journal.of("backend_down") == worker.journal.of("backend_up") == []


def test_what_one_worker_ejects_all_eject_until_it_has_been_out_for_long_enough(world):
    world.second.fail("mta1")
    assert world.states("mta1") == ["up", "open", "up"]
    world.look()
    assert world.states("mta1") == ["open"] * 3
    assert world.third.reason("mta1") == "2 failed connects in a row"
    assert [len(worker.journal.of("backend_down")) for worker in world.workers] == [0, 1, 0]
    assert world.second.journal.of("backend_down")[0]["by"] == "sessions"
    world.clock.time += BreakerSpec().open
    pool = world.third.backends.pools["core"]
    assert pool.acquire(world.clock.monotonic(), tried={"mta2"}).trial
    pool.served("mta1", world.clock.monotonic())
    world.third.watch.turned("core", "mta1", True)
    world.look()
    assert world.states("mta1") == ["up"] * 3
    assert world.third.journal.of("backend_up")[0]["by"] == "sessions"


def test_an_old_ejection_is_nobodys_news(world):
    world.second.fail("mta1")
    world.clock.time += BreakerSpec().open
    late = Worker(world.node, world.clock, [spec("10.0.0.1", "10.0.0.2")])
    late.watch.look()
    assert late.state("mta1") == "up"


def test_another_leads_when_the_leader_drains_and_knows_what_it_knew(world):
    world.leader.find(MTA1, False, times=2)
    world.look()
    world.leader.watch.drain()
    assert world.leader.probes.watched is None
    world.second.watch.look()
    assert world.second.probes.watched == {"core": ["mta1", "mta2"]}
    world.leader.watch.look()
    assert world.leader.probes.watched is None
    world.second.find(MTA2, True, "8BITMIME")
    late = Worker(world.node, world.clock, [spec("10.0.0.1", "10.0.0.2")])
    late.watch.look()
    assert [late.state(name) for name in ("mta1", "mta2")] == ["down", "up"]


def test_a_worker_with_other_policies_does_not_take_one_machine_for_another(world):
    world.second.edit(spec("10.0.0.9", "10.0.0.2"))
    world.third.edit(spec("10.0.0.1", name="other"))
    world.leader.find(MTA1, False, times=2)
    world.look()
    assert (world.second.state("mta1"), world.third.state("mta1", "other")) == ("up", "up")


def test_an_edit_that_comes_later_finds_what_is_known(world):
    world.second.edit(spec("10.0.0.2"))
    world.leader.find(MTA1, False, times=2)
    world.look()
    world.second.edit(spec("10.0.0.1"))
    assert world.second.state("mta1") == "down"


def test_a_backend_that_is_probed_no_more_is_down_for_nobody(world):
    world.leader.find(MTA1, False, times=2)
    world.look()
    assert world.states("mta1") == ["down"] * 3
    unprobed = replace(spec("10.0.0.1", "10.0.0.2"), health=HealthSpec(probe="off"))
    world.second.edit(unprobed)
    world.leader.edit(unprobed)
    world.third.edit(unprobed)
    world.look()
    assert world.states("mta1") == ["up"] * 3


def test_a_worker_that_drains_still_hears_what_the_others_find(world, monkeypatch):
    monkeypatch.setattr(healthwatch, "INTERVAL", 0.001)
    looking = gevent.spawn(world.leader.watch._run)
    world.leader.watch.drain()
    world.second.watch.look()
    world.second.find(MTA1, False, times=2)
    turns()
    looking.kill()
    assert world.leader.state("mta1") == "down"
    assert world.leader.probes.watched is None


def test_an_edit_changes_who_is_probed(world):
    world.leader.edit(spec("10.0.0.1"), spec("10.5.0.1", name="other"))
    assert world.leader.probes.watched == {"core": ["mta1"], "other": ["mta1"]}
    assert world.second.probes.watched is None


def test_a_finding_about_a_pool_that_has_gone_is_forgotten(world):
    world.leader.edit(spec("10.0.0.1", name="other"))
    world.leader.find(MTA1, False, times=2)
    assert world.leader.journal.of("backend_down") == []


def test_a_finding_about_an_address_that_was_edited_away_is_forgotten(world):
    world.leader.edit(spec("10.0.0.9", "10.0.0.2"))
    world.leader.find(MTA1, False, times=2)  # its probe was under way
    assert world.leader.state("mta1") == "up"


def test_those_who_wait_find_the_place_that_came_up(world, monkeypatch):
    served = []
    for worker in world.workers:
        monkeypatch.setattr(worker.backends, "serve", lambda worker=worker: served.append(worker))
    world.leader.find(MTA1, False, times=2)
    world.look()
    assert served == [world.leader, world.second, world.third]


def test_memory_that_is_too_small_is_told(world):
    world.node.full = True
    world.leader.find(MTA1, False, times=2)
    assert world.leader.state("mta1") == "down"
    assert "no room" in world.leader.journal.of("health_unshared")[0]["reason"]


def test_a_long_reason_is_cut(world):
    world.leader.find(MTA1, False, times=2, reason="x" * 500)
    assert world.leader.journal.of("backend_down")[0]["reason"] == "x" * healthwatch.MAX_REASON


# --- what listeners may offer ---


def test_every_worker_offers_what_all_live_backends_take(world):
    world.leader.find(MTA1, True, "SIZE 1000", "8BITMIME", "DSN", "XCLIENT NAME")
    world.look()
    assert [worker.offered for worker in world.workers] == [[]] * 3  # mta2 may offer nothing
    world.leader.find(MTA2, True, "SIZE 2000", "8BITMIME", "CHUNKING")
    world.look()
    assert [worker.offered for worker in world.workers] == [[("PIPELINING", "SIZE 1000", "8BITMIME")]] * 3


def test_a_backend_that_is_down_does_not_narrow_the_offer(world):
    world.leader.find(MTA1, True, "SIZE 1000", "8BITMIME")
    world.leader.find(MTA2, True, "SIZE 2000")
    world.leader.find(MTA2, False, times=2)
    world.look()
    offers = [("PIPELINING", "SIZE 1000"), ("PIPELINING", "SIZE 1000", "8BITMIME")]
    assert world.leader.offered == offers
    assert world.second.offered == offers[1:]
    world.leader.find(MTA1, False, times=2)  # nobody is there: nothing new is known
    world.look()
    assert world.leader.offered == offers
    world.leader.find(MTA2, True, "SIZE 2000", times=2)
    assert world.leader.offered[-1] == ("PIPELINING", "SIZE 2000")


def test_a_new_backend_is_asked_before_anything_is_promised_in_its_name(world):
    world.leader.edit(spec("10.0.0.1"))
    world.leader.find(MTA1, True, "8BITMIME")
    world.leader.edit(spec("10.0.0.1", "10.0.0.2"))
    assert world.leader.offered == [("PIPELINING", "SIZE", "8BITMIME"), MINIMUM]


def test_whoever_leads_next_goes_on_from_what_was_found(world):
    """Also a worker that was born at that moment."""
    world.leader.find(MTA1, False, times=2)
    world.leader.watch.drain()
    late = Worker(world.node, world.clock, [spec("10.0.0.1", "10.0.0.2")])
    late.watch.look()
    assert late.probes.watched is not None
    assert late.state("mta1") == "down"
    late.find(MTA1, False, times=3)
    assert late.journal.of("backend_down") == []
