"""What a worker tells of itself: counts, sessions, refusals, subjects and pools, each within its bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pytest
from fakes import ManualClock

from smtpgate.document import Problem
from smtpgate.drivers import livereport
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.livereport import (
    FORGET,
    KEPT_SUBJECTS,
    MAX_PROBLEMS,
    MAX_SUBJECTS,
    LiveRecords,
    WorkerReports,
    resident,
    shown,
)
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.live import (
    MAX_DENIALS,
    MAX_HELD,
    MAX_SESSIONS,
    MAX_TEXT,
    BackendView,
    Counts,
    DenialView,
    PolicyView,
    PoolView,
    SessionView,
    SubjectView,
)
from smtpgate.routing.model import BackendSettings, BackendSpec, HealthSpec, PoolSpec, State
from smtpgate.session.records import (
    AuthRecord,
    DenialRecord,
    SessionRecord,
    Timings,
    TransactionRecord,
    Who,
)
from smtpgate.smtp import replies

START = 1_000_000.0
WHO = Who("5e55", "mx", "192.0.2.7", "client.test", "ann", "helo.test", "TLSv1.3")
DENIAL = DenialRecord(WHO, "7a", "mail", "msgs", "ann", 12.5, -0.5, "p.yaml:3")
MESSAGE = TransactionRecord(
    WHO, "7a", "a@b.test", ("c@d.test",), 1, 0, 1000, 0.1, Timings(), "core", None, "mta1", 0, None, None, "delivered"
)


@dataclass
class Session:
    """Of the port LiveSession."""

    id: str
    user: str | None = None
    looks: int = 0

    def view(self) -> SessionView:
        self.looks += 1
        return SessionView(self.id, "mx", "192.0.2.7", "client.test", self.user, None, START, "idle", 0)


def ended(session: str) -> SessionRecord:
    return SessionRecord(replace(WHO, session=session), 1, 0, 1.0, "said QUIT")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def records(clock: ManualClock) -> LiveRecords:
    return LiveRecords(clock)


# --- sessions and counts --------------------------------------------------------------------------------------------


def test_sessions_are_there_from_their_beginning_to_their_end(records: LiveRecords) -> None:
    first, second = Session("a"), Session("b")
    records.opened(first)
    records.opened(second)
    assert (first.looks, second.looks) == (0, 0)  # nobody has looked
    assert [one.session for one in records.sessions()] == ["a", "b"]
    records.session(ended("a"))
    records.session(ended("z"))  # of before we were told of sessions
    assert [one.session for one in records.sessions()] == ["b"]
    assert (records.open_sessions, records.counts.sessions) == (1, 2)


def test_the_oldest_sessions_are_told_of_and_all_are_counted(records: LiveRecords, clock: ManualClock) -> None:
    for number in range(MAX_SESSIONS + 7):
        records.opened(Session(str(number)))
    told = records.sessions()
    assert (len(told), told[0].session, told[-1].session) == (MAX_SESSIONS, "0", str(MAX_SESSIONS - 1))
    assert records.open_sessions == MAX_SESSIONS + 7
    assert clock.slept == [0] * (MAX_SESSIONS // livereport.A_LOOK - 1)  # others went on meanwhile


def test_a_session_that_ends_during_the_look_is_left_out(records: LiveRecords, clock: ManualClock) -> None:
    for number in range(2 * livereport.A_LOOK):
        records.opened(Session(str(number)))
    last = str(2 * livereport.A_LOOK - 1)
    clock.sleep = lambda seconds: records.session(ended(last))  # type: ignore[method-assign]
    assert last not in {one.session for one in records.sessions()}


def test_what_is_counted(records: LiveRecords) -> None:
    for outcome in ("delivered", "delivered", "refused", "unknown", "RSET", "client lost"):
        records.transaction(replace(MESSAGE, outcome=outcome))
    for reply in (replies.AUTH_OK, replies.parse("535 5.7.8 no")):
        records.authentication(AuthRecord(WHO, "ann", "plain", reply, 0.1))
    records.denial(DENIAL)
    records.denial(replace(DENIAL, shadow=True))
    records.held("msgs", "ann")
    assert records.counts == Counts(
        delivered=2,
        refused=1,
        unknown=1,
        abandoned=2,
        denied=1,
        held=1,
        logins=1,
        failed_logins=1,
        octets=2000,
    )


# --- refusals -------------------------------------------------------------------------------------------------------


def test_the_latest_refusals_stand_first(records: LiveRecords, clock: ManualClock) -> None:
    for number in range(MAX_DENIALS + 3):
        clock.time += 1
        records.denial(replace(DENIAL, retry=float(number)))
    told = records.denials()
    assert len(told) == MAX_DENIALS
    assert told[0] == DenialView(
        START + MAX_DENIALS + 3,
        "5e55",
        "192.0.2.7",
        "ann",
        "mail",
        "msgs",
        "ann",
        -0.5,
        MAX_DENIALS + 2.0,
        "p.yaml:3",
    )
    assert told[-1].retry == 3.0


def test_subjects_by_how_often_they_were_refused_or_held(records: LiveRecords, clock: ManualClock) -> None:
    for subject, denied, held in (("ann", 2, 0), ("bob", 0, 5), ("cid", 1, 0)):
        for _ in range(denied):
            records.denial(replace(DENIAL, subject=subject))
        for _ in range(held):
            records.held("msgs", subject)
    records.denial(replace(DENIAL, subject="dan", shadow=True))
    clock.time += 10
    records.denial(replace(DENIAL, subject="bob", rule="p.yaml:9"))
    assert records.subjects() == (
        SubjectView("msgs", "bob", "p.yaml:9", 1, 5, START),
        SubjectView("msgs", "ann", "p.yaml:3", 2, 0, START),
        SubjectView("msgs", "cid", "p.yaml:3", 1, 0, START),
    )


def test_a_crowd_does_not_push_out_who_is_refused_again_and_again(records: LiveRecords) -> None:
    for _ in range(3):
        records.denial(replace(DENIAL, subject="ann"))
    for number in range(5 * MAX_SUBJECTS):
        records.denial(replace(DENIAL, subject=str(number)))
    told = records.subjects()
    assert (len(told), told[0].subject, told[0].denied) == (MAX_HELD, "ann", 3)
    kept = len(records._subjects)
    assert KEPT_SUBJECTS <= kept <= MAX_SUBJECTS


def test_who_has_not_been_refused_for_an_hour_is_forgotten(records: LiveRecords, clock: ManualClock) -> None:
    records.denial(replace(DENIAL, subject="ann"))
    records.denial(replace(DENIAL, subject="bob"))
    clock.time += FORGET / 2
    records.denial(replace(DENIAL, subject="bob"))
    clock.time += FORGET / 2 + 1
    assert [(one.subject, one.denied) for one in records.subjects()] == [("bob", 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann", "ann"),
        ("b\xfcro", "b\xfcro"),
        ("b\udcfcro", "b\\udcfcro"),
        ("x" * (MAX_TEXT + 1), "x" * MAX_TEXT),
    ],
)
def test_texts_of_clients(text: str, expected: str) -> None:
    assert shown(text) == expected
    expected.encode()


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.fixture
def backends(clock: ManualClock) -> PoolBackends:
    def dial(*arguments: Any) -> Any:
        raise AssertionError("nobody connects")

    never: Any = dial
    made = PoolBackends(clock, never, BackendSettings(), lambda: 0.5)
    specs = (
        BackendSpec("mta1", "10.0.0.1", 25, weight=3),
        BackendSpec("mta2", "10.0.0.2", 25),
        BackendSpec("mta3", "10.0.0.3", 25, state=State.OFF),
        BackendSpec("mta4", "10.0.0.4", 25, backup=True),
        BackendSpec("mta5", "10.0.0.5", 25),
        BackendSpec("mta6", "10.0.0.6", 25),
    )
    made.replace({"core": PoolSpec("core", specs, health=HealthSpec(fall=1))})
    return made


def make(records: LiveRecords, backends: PoolBackends, clock: ManualClock, **more: Any) -> WorkerReports:
    given: dict[str, Any] = {
        "node": "mx1",
        "server_name": "mail.test",
        "version": "1.2.3",
        "records": records,
        "backends": backends,
        "store": lambda: "shared",
        "status": None,
        "sources": lambda: MappingProxyType({"msgs": "p.yaml:3"}),
        "clock": clock,
    }
    return WorkerReports(**{**given, **more})


def test_pools_as_this_worker_sees_them(records: LiveRecords, backends: PoolBackends, clock: ManualClock) -> None:
    state = backends.pools["core"]
    clock.time += 5
    state.probed("mta2", False, "connect refused", clock.time)
    for _ in range(3):
        state.connect_failed("mta5", clock.time)
    state.connect_failed("mta1", clock.time)
    state.acquire(clock.time)
    backends.obey({"core": {"mta6": "ann@ops"}})
    clock.time += 5
    (pool,) = make(records, backends, clock).make().pools
    ago = START + 5
    assert pool == PoolView(
        "core",
        "round_robin",
        (
            BackendView("mta1", "10.0.0.1:25", "up", 3, 1, 0, 1, since=START),
            BackendView("mta2", "10.0.0.2:25", "down", 1, 0, 0, 0, False, "probe", "connect refused", ago),
            BackendView("mta3", "10.0.0.3:25", "off", 1, 0, 0, 0, False, "policy", "set in the policy", START),
            BackendView("mta4", "10.0.0.4:25", "up", 1, 0, 0, 0, True, since=START),
            BackendView(
                "mta5", "10.0.0.5:25", "ejected", 1, 0, 0, 0, False, "sessions", "3 failed connects in a row", ago
            ),
            BackendView("mta6", "10.0.0.6:25", "drain", 1, 0, 0, 0, False, "operator", "drained by ann@ops", ago),
        ),
    )


def test_pools_beyond_the_bound_are_left_out(
    records: LiveRecords, backends: PoolBackends, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(livereport, "MAX_BACKENDS", 6)
    more = {name: PoolSpec(name, (BackendSpec("mta1", "10.0.0.1", 25),)) for name in ("core2", "core3")}
    backends.replace({"core": backends.pools["core"].spec, **more})
    assert [pool.name for pool in make(records, backends, clock).make().pools] == ["core"]


def test_the_rest_of_a_report(records: LiveRecords, backends: PoolBackends, clock: ManualClock) -> None:
    problem = Problem("p.yaml", 3, 1, ("limits",), "is no mapping", "a mapping")
    status = FolderStatus("abc", START - 60, False, (problem,) * (MAX_PROBLEMS + 1))
    reports = make(records, backends, clock, status=lambda: status)
    records.opened(Session("a", user="b\udcfcro"))
    records.held("msgs", "ann")
    records.held("gone", "ann")
    clock.time += 7
    reports.draining = True
    report = reports.make()
    assert (report.node, report.server_name, report.version, report.store) == ("mx1", "mail.test", "1.2.3", "shared")
    assert (report.began, report.time, report.open_sessions) == (START, START + 7, 1)
    assert report.draining
    assert report.sessions[0].user == "b\\udcfcro"
    assert report.policy == PolicyView("abc", START - 60, (str(problem),) * MAX_PROBLEMS)
    # Who was only held was told without a rule; a limit that is edited away has none.
    assert {(one.limit, one.rule) for one in report.subjects} == {("msgs", "p.yaml:3"), ("gone", "")}
    assert report.resident > 10_000_000
    assert make(records, backends, clock).make().policy is None


def test_what_has_happened_of_late(records: LiveRecords, backends: PoolBackends, clock: ManualClock) -> None:
    """Of the last minute, however long the worker has lived."""
    reports = make(records, backends, clock)
    seen = []
    for _ in range(60):
        clock.time += 2
        records.transaction(MESSAGE)
        report = reports.make()
        seen.append((report.recent.delivered, report.recent_seconds))
    assert seen[:2] == [(1, 2.0), (2, 4.0)]
    assert seen[-1] == (30, 60.0)
    assert report.counts.delivered == 60


def test_memory_is_that_of_this_process() -> None:
    assert 10_000_000 < resident() < 10_000_000_000
