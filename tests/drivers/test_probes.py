"""Probes against scripted backends: what is said, what counts as up, and when they come."""

import time
from types import SimpleNamespace

import gevent
import pytest
from fakes import ListJournal, ManualClock, ScriptedBackend

from smtpgate.clock import SystemClock
from smtpgate.drivers import probes as module
from smtpgate.drivers.connecting import OutOfResources
from smtpgate.drivers.probes import Finding, Prober, Probes, Subject
from smtpgate.routing.model import (
    BackendAuth,
    BackendSettings,
    BackendSpec,
    BackendTls,
    HealthSpec,
    PoolSpec,
    State,
)
from smtpgate.session.streams import StreamLost, StreamTimeout

BACKEND = BackendSpec("mta1", "mta.test", 25)
GREETING = (b"", b"220 mta.test ESMTP\r\n")
HELLO = b"EHLO mx.test\r\n"
OFFER = b"250-mta.test\r\n250-SIZE 1000\r\n250-XCLIENT NAME ADDR\r\n250 STARTTLS\r\n"
QUIT = (b"QUIT\r\n", b"221 bye\r\n")


class World:
    def __init__(self, *script, fault=None):
        self.clock = ManualClock()
        self.stream = ScriptedBackend(script)
        self.fault = fault
        self.dialled = []
        self.prober = Prober(self.clock, self.dial, "mx.test")

    def dial(self, host, port, settings, seeker, deadline):
        self.dialled.append((host, port, seeker, deadline.remaining()))
        if self.fault is not None:
            raise self.fault
        return self.stream

    def probe(self, settings=None, **health):
        finding = self.prober.probe(BACKEND, settings or BackendSettings(), HealthSpec(**health))
        assert self.fault is not None or self.stream.closed
        assert not self.stream.unexpected
        return finding


def test_a_backend_that_greets_is_up_and_left_politely():
    world = World(GREETING, (HELLO, OFFER), QUIT)
    finding = world.probe(timeout=3.0)
    assert (finding.up, finding.reason) == (True, "")
    assert finding.extensions.size == 1000
    assert world.dialled == [("mta.test", 25, None, 3.0)]
    assert world.stream.received == HELLO + b"QUIT\r\n"


def test_nobody_is_introduced_and_nobody_logs_in():
    world = World(GREETING, (HELLO, OFFER), QUIT)
    assert world.probe(BackendSettings(xclient="on", auth=BackendAuth(user="proxy", password="secret"))).up


@pytest.mark.parametrize("mode", ["starttls", "required"])
def test_what_counts_is_what_is_offered_inside_tls(mode):
    world = World(
        GREETING,
        (HELLO, OFFER),
        (b"STARTTLS\r\n", b"220 go\r\n"),
        (HELLO, b"250-mta.test\r\n250 SIZE 2000\r\n"),
        QUIT,
    )
    finding = world.probe(BackendSettings(tls=BackendTls(mode)))
    assert finding.extensions.size == 2000
    assert world.stream.handshakes == [(BackendTls(mode), "mta.test")]


@pytest.mark.parametrize(
    ("script", "settings", "reason"),
    [
        ([(b"", b"554 go away\r\n"), QUIT], None, "greeting answered 554 go away"),
        ([(b"", b"421 later\r\n")], None, "backend said 421"),
        ([GREETING, (HELLO, b"451 busy\r\n"), QUIT], None, "EHLO answered 451 busy"),
        ([GREETING, (HELLO, b"")], None, "backend did not answer in time"),
        ([GREETING, (HELLO, None)], None, "connection lost"),
        ([(b"", b"nonsense\r\n")], None, "nonsense"),
        (
            [GREETING, (HELLO, b"250 mta.test\r\n"), QUIT],
            BackendSettings(tls=BackendTls("required")),
            "TLS is required, and the backend offers no STARTTLS",
        ),
        (
            [GREETING, (HELLO, OFFER), (b"STARTTLS\r\n", b"454 no\r\n"), QUIT],
            BackendSettings(tls=BackendTls("starttls")),
            "STARTTLS answered 454 no",
        ),
    ],
)
def test_a_backend_that_is_not_well(script, settings, reason):
    finding = World(*script).probe(settings)
    assert (finding.up, finding.extensions) == (False, None)
    assert reason in finding.reason or reason in ("connection lost", "nonsense")
    assert finding.reason


@pytest.mark.parametrize(
    ("fault", "reason"), [(StreamTimeout(), "connect timed out"), (StreamLost("ECONNREFUSED"), "ECONNREFUSED")]
)
def test_a_backend_that_cannot_be_reached(fault, reason):
    assert World(fault=fault).probe() == Finding(False, reason)


def test_to_connect_may_be_enough():
    world = World()
    assert world.probe(probe="connect") == Finding(True)
    assert world.stream.received == b""


def test_an_old_server_that_knows_no_ehlo_is_up():
    world = World(GREETING, (HELLO, b"502 what\r\n"), (b"HELO mx.test\r\n", b"250 mta\r\n"), QUIT)
    assert world.probe().up


# --- when they come ---


class Asked:
    """Finds everybody up, and keeps who was asked."""

    def __init__(self):
        self.names = []
        self.fault = None

    def probe(self, backend, settings, health):
        self.names.append(backend.name)
        if self.fault is not None:
            raise self.fault
        return Finding(True)


class Many:
    def __init__(self, monkeypatch):
        self.asked = Asked()
        self.reports = []
        self.journal = ListJournal()
        self.sleeps = []
        self.real_sleep = gevent.sleep
        # In this module alone: greenlets of other tests sleep too.
        monkeypatch.setattr(module, "gevent", SimpleNamespace(sleep=self.sleep, spawn=gevent.spawn))
        self.probes = Probes(SystemClock(), self.asked, lambda: 0.5, self.report, self.journal)

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.real_sleep(0.005)

    def report(self, subject, finding):
        self.reports.append((subject, finding))

    def run(self):
        self.real_sleep(0.02)


@pytest.fixture
def many(monkeypatch):
    one = Many(monkeypatch)
    yield one
    one.probes.stop()
    one.run()  # they are gone before the next test begins


def pool(*backends, **health):
    return PoolSpec("core", backends, health=HealthSpec(**health))


def test_each_backend_is_asked_and_reported(many):
    other = BackendSpec("mta2", "10.0.0.2", 25, state=State.DRAIN)
    off = BackendSpec("mta3", "10.0.0.3", 25, state=State.OFF)
    many.probes.watch({"core": pool(BACKEND, other, off, every=7.0)})
    many.run()
    assert set(many.asked.names) == {"mta1", "mta2"}
    assert (Subject("core", BACKEND, BackendSettings(), HealthSpec(every=7.0)), Finding(True)) in many.reports


def test_probes_are_spread_and_the_first_does_not_wait_an_interval(many):
    many.probes.watch({"core": pool(BACKEND, every=60.0)})
    many.run()
    assert many.sleeps[0] == 0.5
    assert all(57.0 < seconds <= 60.0 for seconds in many.sleeps[1:])  # less what the probe took
    many.probes.stop()
    many.run()
    many.sleeps.clear()
    many.probes._chance = lambda: 0.0
    many.probes.watch({"core": pool(BACKEND, every=60.0)})
    many.run()
    assert many.sleeps[0] == 0.0
    assert all(51.0 < seconds <= 54.0 for seconds in many.sleeps[1:])


def test_a_pool_without_probes_is_not_asked(many):
    many.probes.watch({"core": pool(BACKEND, probe="off")})
    many.run()
    assert many.asked.names == []


def test_an_edit_ends_the_probes_of_what_is_gone_and_leaves_the_others_alone(many):
    other = BackendSpec("mta2", "10.0.0.2", 25)
    many.probes.watch({"core": pool(BACKEND, other)})
    before = dict(many.probes._running)
    many.probes.watch({"core": pool(other)})
    many.run()
    assert "mta1" not in many.asked.names
    assert list(many.probes._running.values()) == [
        greenlet for key, greenlet in before.items() if key.backend is other
    ]


def test_a_probe_for_which_we_have_no_descriptor_finds_nothing(many):
    many.asked.fault = OutOfResources("EMFILE")
    many.probes.watch({"core": pool(BACKEND)})
    many.run()
    assert many.reports == []
    assert many.journal.of("probe_failed")[0] == {"pool": "core", "backend": "mta1", "reason": "EMFILE"}
    with pytest.raises(OutOfResources):
        World(fault=OutOfResources("EMFILE")).probe()


def test_a_bug_does_not_end_the_probes(many):
    many.asked.fault = RuntimeError("a bug")
    many.probes.watch({"core": pool(BACKEND)})
    late = time.monotonic() + 5.0
    while len(many.asked.names) < 2 and time.monotonic() < late:
        many.run()
    assert len(many.asked.names) > 1
    assert "RuntimeError: a bug" in many.journal.of("bug")[0]["traceback"]
