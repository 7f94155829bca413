"""A console without HTTP and without processes: its application over a board in a folder, and buckets in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import argon2
import pytest
from flask import Flask
from flask.testing import FlaskClient

from authsvc.console.app import create_console
from authsvc.console.edits import Edits
from authsvc.console.entry import Desk
from authsvc.console.settings import Console
from authsvc.console.sittings import Sittings, SittingsFile
from authsvc.console.sources import Sources
from authsvc.console.traffic import Traffic
from authsvc.console.tries import Tries
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.passwords import Passwords
from smtpgate.drivers.livefolder import FolderBoard
from smtpgate.drivers.policyfile import FolderStatus, PolicyFolder
from smtpgate.drivers.quotas import Bucket
from smtpgate.live import BackendView, Counts, DenialView, PolicyView, PoolView, Report, SessionView, SubjectView
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import StoreUnavailable
from smtpgate.units import HostPort

POLICIES = """\
version: 1
limits:
  msgs: {event: mail, rate: 10/1d, burst: 10, key: "{user}", match: {auth: true}, deny: {reply: "450 4.7.1 slow"}}
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: mta1, addr: "127.0.0.1:10025"}]}}
"""
BUCKET = Bucket("msgs", "ann@example.com", 2.0, 10.0, 0.5, 16.0, 3)
REPORT = Report(
    node="mx1",
    pid=1,
    version="0.1.0",
    time=1_000_000.0,
    began=999_000.0,
    draining=False,
    store="shared",
    open_sessions=1,
    resident=1 << 20,
    counts=Counts(delivered=5),
    sessions=(SessionView("s1", "submission", "192.0.2.7", "h", "ann@example.com", None, 999_990.0, "mail", 1),),
    denials=(
        DenialView(999_999.0, "s1", "192.0.2.7", "ann", "mail", "msgs", "ann@example.com", 0.5, 60.0, "p.yaml:3"),
    ),
    subjects=(SubjectView("msgs", "ann@example.com", "p.yaml:3", 4, 1, 999_000.0),),
    pools=(PoolView("core", "round_robin", (BackendView("mta1", "127.0.0.1:10025", "up", 1, 1, 0, 0),)),),
    policy=PolicyView("v1", 999_000.0),
)


@dataclass
class FakeQuotas:
    """Keeps what was asked of it. away: the store gives no answer."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    away: bool = False

    def _ask(self, *asked: Any) -> None:
        if self.away:
            raise StoreUnavailable("ConnectionError: refused")
        self.asked.append(asked)

    def find(self, limit: str, subject: str) -> Iterator[Bucket]:
        self._ask("find", limit, subject)
        yield from [BUCKET] * 3

    def of(self, limit: str, subject: str) -> list[Bucket]:
        self._ask("of", limit, subject)
        return [BUCKET]

    def reset(self, limit: str, subject: str) -> int:
        self._ask("reset", limit, subject)
        return 1

    def grant(self, limit: str, subject: str, tokens: float) -> tuple[Bucket, Bucket]:
        self._ask("grant", limit, subject, tokens)
        return BUCKET, replace(BUCKET, tokens=min(10.0, 2.0 + tokens))

    def unban(self, subject: str) -> bool:
        self._ask("unban", subject)
        return False


@dataclass
class Room:
    """A console, and what it is made of."""

    app: Flask
    sources: Sources
    quotas: FakeQuotas
    board: FolderBoard

    def client(self) -> FlaskClient:
        return self.app.test_client()


@pytest.fixture(scope="session")
def stored() -> Mapping[str, str]:
    """Operators."""
    return {"anna": Passwords(argon2.profiles.CHEAPEST).make(b"right")}


@pytest.fixture
def console(stored: Mapping[str, str]) -> Console:
    return Console(HostPort("127.0.0.1", 18081), stored, hosts=("console.example.com",))


@pytest.fixture
def sittings_file() -> Iterator[SittingsFile]:
    made = SittingsFile()
    yield made
    made.close()


@pytest.fixture
def room(tmp_path: Path, console: Console, sittings_file: SittingsFile, clock, journal, bulkhead: Bulkhead) -> Room:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "p.yaml").write_text(POLICIES)
    snapshot = PolicyFolder.check(policies)
    board = FolderBoard(tmp_path, clock)
    board.publish(replace(REPORT, time=clock.now()))
    store, quotas = MemoryBuckets(clock), FakeQuotas()
    status = FolderStatus(snapshot.version_hash, 999_000.0, valid=True)
    sources = Sources(
        board=board,
        no_board="",
        quotas=quotas,
        store=store,
        snapshot=lambda: snapshot,
        status=lambda: status,
        edits=Edits(policies, None, lambda: status, clock),
        traffic=Traffic(),
        host="mx.example.com",
        clock=clock,
        journal=journal,
    )
    desk = Desk(
        console,
        Sittings(sittings_file, console.operators, clock, lifetime=console.lifetime, idle=console.idle),
        Tries(store, clock),
        Passwords(argon2.profiles.CHEAPEST),
        bulkhead,
        journal,
    )
    app = create_console(desk, sources, key=sittings_file.key, secure=False)
    return Room(app, sources, quotas, board)
