"""A worker's part in the board: when it publishes, what it obeys, and what becomes of a board that is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest
from virtualtime import VirtualClock

from smtpgate.drivers.livefolder import FolderBoard
from smtpgate.drivers.livepublisher import LivePublisher
from smtpgate.live import INTERVAL, Counts, Order, Report, Sighting
from smtpgate.policy.store import StoreUnavailable

REPORT = Report("mx1", 1, "0", 1.0, 1.0, False, "shared", 0, 0, Counts())


class Board:
    """Keeps what it is told in lists; `fault` is raised by every call."""

    public = "redis://127.0.0.1/0"
    blocking = False

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.published: list[Report] = []
        self.withdrawn: list[Report] = []
        self.ordered: list[Order] = []
        self.closed = False

    def publish(self, report: Report) -> None:
        self._answer()
        self.published.append(report)

    def withdraw(self, report: Report) -> None:
        self._answer()
        self.withdrawn.append(report)

    def orders(self) -> list[Order]:
        self._answer()
        return list(self.ordered)

    def close(self) -> None:
        self.closed = True

    def sightings(self) -> list[Sighting]:
        raise AssertionError("a worker reads no reports")

    def reports(self) -> list[Report]:
        raise AssertionError("a worker reads no reports")

    def drain(self, pool: str, backend: str, by: str) -> Order:
        raise AssertionError("a worker orders nothing")

    def undrain(self, pool: str, backend: str) -> bool:
        raise AssertionError("a worker orders nothing")

    def _answer(self) -> None:
        if self.fault is not None:
            raise self.fault


class Reports:
    """As WorkerReports: what it makes, and how often it did."""

    draining = False

    def __init__(self) -> None:
        self.made = 0
        self.fault: Exception | None = None

    def make(self) -> Report:
        self.made += 1
        if self.fault is not None:
            raise self.fault
        return REPORT


class World:
    def __init__(self, board: Any = None) -> None:
        self.clock = VirtualClock()
        self.board: Any = Board() if board is None else board
        self.reports = Reports()
        self.obeyed: list[Mapping[str, Mapping[str, str]]] = []
        self.lines: list[tuple[str, str, dict[str, object]]] = []
        backends: Any = self
        journal: Any = self
        reports: Any = self.reports
        self.publisher = LivePublisher(self.board, reports, backends, self.clock, journal)

    def obey(self, orders: Mapping[str, Mapping[str, str]]) -> None:
        self.obeyed.append(orders)

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))


@pytest.fixture
def world() -> World:
    return World()


def test_a_report_at_once_and_then_every_interval(world: World) -> None:
    world.publisher.start()
    world.clock.run(0.1)
    assert world.board.published == [REPORT]
    world.clock.run(3 * INTERVAL)
    assert len(world.board.published) == 4


def test_orders_are_carried_out_once_and_told(world: World) -> None:
    world.publisher.step()
    world.board.ordered = [Order("core", "mta1", "ann", 1.0), Order("core", "mta2", "bob", 2.0)]
    world.publisher.step()
    world.publisher.step()
    assert world.obeyed == [{"core": {"mta1": "ann", "mta2": "bob"}}]
    world.board.ordered = [Order("core", "mta2", "cid", 3.0)]
    world.publisher.step()
    world.board.ordered = []
    world.publisher.step()
    assert world.obeyed[1:] == [{"core": {"mta2": "cid"}}, {}]
    assert world.lines == [
        ("warning", "backend_drained", {"pool": "core", "backend": "mta1", "by": "ann"}),
        ("warning", "backend_drained", {"pool": "core", "backend": "mta2", "by": "bob"}),
        ("warning", "backend_drained", {"pool": "core", "backend": "mta2", "by": "cid"}),
        ("info", "backend_undrained", {"pool": "core", "backend": "mta1"}),
        ("info", "backend_undrained", {"pool": "core", "backend": "mta2"}),
    ]


def test_a_board_that_is_away_is_told_of_once_and_changes_nothing(world: World) -> None:
    world.board.ordered = [Order("core", "mta1", "ann", 1.0)]
    world.publisher.step()
    world.lines.clear()
    world.board.fault = StoreUnavailable("connect refused")
    world.publisher.step()
    world.publisher.step()
    world.board.fault = None
    world.publisher.step()
    assert world.lines == [
        ("warning", "reports_down", {"board": "redis://127.0.0.1/0", "reason": "connect refused"}),
        ("info", "reports_up", {"board": "redis://127.0.0.1/0"}),
    ]
    assert len(world.obeyed) == 1
    assert len(world.board.published) == 2


def test_a_bug_does_not_end_the_reports(world: World) -> None:
    world.reports.fault = KeyError("x")
    world.publisher.start()
    world.clock.run(0.1)
    world.reports.fault = None
    world.clock.run(INTERVAL)
    assert [line[:2] for line in world.lines] == [("error", "bug")]
    assert "KeyError" in str(world.lines[0][2]["traceback"])
    assert len(world.board.published) == 1


def test_the_end_of_a_worker(world: World) -> None:
    world.publisher.end()
    assert (world.board.withdrawn, world.board.closed) == ([], True)  # it has never published
    world.publisher.step()
    world.publisher.drain()
    assert world.reports.draining
    world.board.fault = StoreUnavailable("gone")
    world.publisher.end()
    world.board.fault = None
    world.publisher.end()
    assert world.board.withdrawn == [REPORT]


def test_a_disk_is_waited_for_in_a_thread(tmp_path: Path) -> None:
    """Sessions go on while it takes its time."""
    world = World(FolderBoard(tmp_path, VirtualClock()))
    publish: Callable[[Report], None] = world.board.publish
    hubs = []

    def watched(report: Report) -> None:
        hubs.append(gevent.get_hub())  # of this thread
        publish(report)

    world.board.publish = watched
    world.publisher.step()
    assert [one is gevent.get_hub() for one in hubs] == [False]
    assert [one.name for one in (tmp_path / "live").iterdir()] == ["1-1.000.json"]
    world.publisher.end()
    assert list((tmp_path / "live").iterdir()) == []
