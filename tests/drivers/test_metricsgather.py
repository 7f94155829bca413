"""What stands rather than happens, as metrics."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import certificates
import pytest
from fakes import ManualClock

from smtpgate.drivers import logqueue, metricsgather
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.journal import open_journal
from smtpgate.drivers.listenertls import CertificateFiles, ListenerTls, TlsSettings
from smtpgate.drivers.metricsgather import CERTIFICATE_INTERVAL, DESCRIPTOR_INTERVAL, MAX_BACKENDS
from smtpgate.drivers.metricsvalues import Families, Labels
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Counts, Engine
from smtpgate.routing.model import BackendSettings, BackendSpec, PoolSpec, State
from smtpgate.session.ports import DialFailed


@pytest.fixture
def families() -> Families:
    return Families()


def values(families: Families, name: str) -> dict[Labels, float]:
    (found,) = [one for one in (*families.counters, *families.gauges) if one.family.name == f"smtpgate_{name}"]
    return found.values


class StubEngine:
    """What is asked of an engine."""

    def __init__(self) -> None:
        clock = ManualClock()
        self._engine = Engine(MemoryBuckets(clock), clock, random.random)
        self.counters: dict[str, Counts] = {}
        self.held = 2

    @property
    def mode(self) -> object:
        return self._engine.mode


def test_limits_that_begin_anew_go_on_growing(families: Families) -> None:
    engine = StubEngine()
    gather = metricsgather.limits(families, engine)  # type: ignore[arg-type]
    engine.counters["msgs"] = Counts(checked=5, denied=2, held_seconds=1.5, shadow_denied=1, refunded=1)
    gather()
    gather()
    assert values(families, "limit_checked_total") == {("msgs",): 5}
    assert values(families, "limit_held_seconds_total") == {("msgs",): 1.5}
    engine.counters.clear()  # an edit took it out
    gather()
    engine.counters["msgs"] = Counts(checked=7)  # and in again
    gather()
    engine.counters["msgs"] = Counts(checked=1)  # between two looks
    gather()
    assert values(families, "limit_checked_total") == {("msgs",): 13}
    assert values(families, "limit_denied_total") == {("msgs",): 2}
    assert values(families, "places_held") == {(): 2}
    assert values(families, "store_up") == {(): 1}


def test_who_was_turned_away(families: Families) -> None:
    refused = {("mx", "max_sessions"): 0, ("mx", "descriptors"): 0}
    stressed = [False]
    gather = metricsgather.door(families, lambda: refused, lambda: stressed[0])
    gather()
    assert values(families, "connections_refused_total") == {("mx", "max_sessions"): 0, ("mx", "descriptors"): 0}
    assert values(families, "workers_stressed") == {(): 0}
    refused["mx", "max_sessions"], stressed[0] = 7, True
    gather()
    gather()
    assert values(families, "connections_refused_total") == {("mx", "max_sessions"): 7, ("mx", "descriptors"): 0}
    assert values(families, "workers_stressed") == {(): 1}


def pool(name: str, *backends: BackendSpec) -> PoolSpec:
    return PoolSpec(name, backends)


def no_dial(*_: object) -> object:
    raise DialFailed("nobody", "nobody is dialled here")


def test_backends_and_their_states(families: Families) -> None:
    clock = ManualClock()
    backends = PoolBackends(clock, no_dial, BackendSettings(), random.random)  # type: ignore[arg-type]
    backends.replace(
        {"core": pool("core", BackendSpec("a", "192.0.2.1", 25), BackendSpec("b", "192.0.2.2", 25, state=State.OFF))}
    )
    gather = metricsgather.pools(families, backends, clock)
    gather()
    assert values(families, "backend_state") == {("core", "a", "up"): 1, ("core", "b", "off"): 1}
    assert values(families, "backend_connections") == {("core", "a"): 0, ("core", "b"): 0}
    assert values(families, "pool_waiting") == {("core",): 0}
    backends.pools["core"].probed("a", False, "refused", 0.0)
    for _ in range(2):
        backends.pools["core"].probed("a", False, "refused", 0.0)
    backends.replace({"core": pool("core", BackendSpec("a", "192.0.2.1", 25))})
    gather()
    assert values(families, "backend_state") == {("core", "a", "down"): 1}


def test_so_many_backends_are_told_of(families: Families) -> None:
    clock = ManualClock()
    backends = PoolBackends(clock, no_dial, BackendSettings(), random.random)  # type: ignore[arg-type]
    many = [BackendSpec(f"b{n}", "192.0.2.1", n + 1) for n in range(MAX_BACKENDS + 5)]
    backends.replace({"one": pool("one", *many), "two": pool("two", *many)})
    metricsgather.pools(families, backends, clock)()
    assert len(values(families, "backend_state")) == len(values(families, "backend_connections")) == MAX_BACKENDS


def test_policies(families: Families) -> None:
    status = [FolderStatus()]
    gather = metricsgather.policies(families, lambda: status[0])
    gather()
    assert (values(families, "policy_info"), values(families, "policy_valid")) == ({}, {(): 0})
    for version in ("v1", "v2"):
        status[0] = FolderStatus(version, 77.0, valid=True)
        gather()
        assert values(families, "policy_info") == {(version,): 1}
    assert (values(families, "policy_loaded_timestamp_seconds"), values(families, "policy_valid")) == (
        {(): 77.0},
        {(): 1},
    )


def test_certificates(families: Families, tmp_path: Path) -> None:
    clock = ManualClock()
    pair = certificates.Authority(tmp_path).sign("mx", "mx.test")
    tls = ListenerTls(TlsSettings((CertificateFiles(pair.cert, pair.key),)))
    gather = metricsgather.certificates(families, {"mx": tls, "submission": tls}, clock)
    gather()
    end = pair.x509.not_valid_after_utc.timestamp()
    there = {("mx", str(pair.cert)): end, ("submission", str(pair.cert)): end}
    assert values(families, "certificate_expiry_timestamp_seconds") == there
    pair.cert.write_text("half of it")
    gather()
    assert values(families, "certificate_expiry_timestamp_seconds") == there
    clock.sleep(CERTIFICATE_INTERVAL)
    gather()
    assert values(families, "certificate_expiry_timestamp_seconds") == {}


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_log_lines(families: Families, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logqueue, "MAX_PENDING", 1)
    out = io.StringIO()
    journal, full = open_journal("json", "info", out).bind(pid=7), open_journal("json", "debug", Full())
    journal.bind(x=1).info("a")
    journal.warning("b")
    full.error("c")  # waits
    full.error("d")
    gather = metricsgather.log(families, journal.tally)
    gather()
    gather()
    lines = {("debug",): 0, ("info",): 1, ("warning",): 1, ("error",): 0}
    assert values(families, "log_lines_total") == lines
    assert values(families, "log_lines_dropped_total") == {(): 0}
    metricsgather.log(families := Families(), full.tally)()
    assert values(families, "log_lines_dropped_total") == {(): 1}


def test_the_process(families: Families) -> None:
    clock = ManualClock()
    started = clock.now()
    gather = metricsgather.process(families, 3, clock)
    gather()
    before = values(families, "worker_cpu_seconds_total")["3",]
    while values(families, "worker_cpu_seconds_total")["3",] == before:
        gather()
    assert before > 0
    assert values(families, "worker_resident_memory_bytes")["3",] > 1 << 20
    assert values(families, "worker_open_fds")["3",] == len(os.listdir("/proc/self/fd")) - 1
    with open(os.devnull):
        gather()
        assert values(families, "worker_open_fds")["3",] == len(os.listdir("/proc/self/fd")) - 2
        clock.sleep(DESCRIPTOR_INTERVAL)
        gather()
        assert values(families, "worker_open_fds")["3",] == len(os.listdir("/proc/self/fd")) - 1
    assert values(families, "worker_start_time_seconds") == {("3",): started}
    assert values(families, "worker_starts_total") == {(): 1}
    assert list(values(families, "build_info").values()) == [1]
