"""The live board in each of its places: one contract, and what is special to each."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from peers.process import HOST, free_port
from peers.redis import Redis
from peers.rediskinds import Cluster, Sentinel, TlsRedis

from smtpgate.clock import SystemClock
from smtpgate.drivers import livefolder, livejson
from smtpgate.drivers.liveboard import LiveBoard, NoBoard, open_board
from smtpgate.drivers.livefolder import FolderBoard
from smtpgate.drivers.liveredis import RedisBoard
from smtpgate.live import (
    KEEP,
    MAX_ORDERS,
    STALE,
    BackendView,
    Counts,
    DenialView,
    Order,
    PolicyView,
    PoolView,
    Report,
    SessionView,
    SubjectView,
)
from smtpgate.policy.store import StoreUnavailable

FULL = Report(
    node="mx1",
    pid=4711,
    version="1.2.3",
    time=1_000_010.5,
    began=1_000_000.25,
    draining=False,
    store="shared",
    open_sessions=2,
    resident=80_000_000,
    counts=Counts(sessions=7, delivered=3, denied=1, octets=12345),
    sessions=(
        SessionView(
            "5e55", "mx", "2001:db8::7", "client.test", "ann@b.test", "TLSv1.3", 1_000_009.0, "data", 1, "7a", "mta1"
        ),
    ),
    denials=(
        DenialView(1_000_008.0, "5e55", "192.0.2.7", None, "mail", "msgs", "192.0.2.7", -0.5, 12.0, "p.yaml:3"),
    ),
    subjects=(SubjectView("msgs", "b\xfcro@b.test", "p.yaml:3", 4, 1, 1_000_001.0),),
    pools=(PoolView("core", "round_robin", (BackendView("mta1", "10.0.0.1:25", "up", 1, 1, 2, 0),), 3),),
    policy=PolicyView("abc", 1_000_000.0, ("p.yaml:1:1: is broken",)),
    server_name="mail.test",
)


def other(**changes: Any) -> Report:
    return replace(FULL, sessions=(), denials=(), subjects=(), pools=(), **changes)


KINDS = ["folder", "redis", "redis+unix", "rediss", "redis+sentinel", "redis+cluster"]


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], LiveBoard]]:
    """Opens the board as each of several processes would."""
    kind = request.param
    peer: Any = None
    if kind == "folder":
        uri, state = "memory://", tmp_path / "state"
    elif kind in ("redis", "redis+unix"):
        server = request.getfixturevalue("redis_server")
        uri, state = server.unix_uri if kind == "redis+unix" else server.uri, None
    else:
        (tmp_path / "peer").mkdir()
        peer = {"rediss": TlsRedis, "redis+sentinel": Sentinel, "redis+cluster": Cluster}[kind](tmp_path / "peer")
        uri, state = peer.uri, None
    boards: list[LiveBoard] = []

    def make() -> LiveBoard:
        boards.append(open_board(uri, state, SystemClock(), patience=5.0))
        return boards[-1]

    yield make
    for board in boards:
        board.close()
    if peer is not None:
        peer.stop()


def test_the_contract_of_every_board(opened: Callable[[], LiveBoard]) -> None:
    """What one process publishes and orders, all of them read."""
    worker, looker = opened(), opened()
    assert (looker.reports(), looker.orders(), looker.sightings()) == ([], [], [])

    second = other(pid=4712, began=1_000_001.0)
    third = other(node="mx0", pid=9)
    for report in (FULL, second, third):
        worker.publish(report)
    assert looker.reports() == [third, FULL, second]
    assert all(0.0 <= one.age < STALE for one in looker.sightings())

    later = replace(FULL, time=FULL.time + 2, open_sessions=0)
    worker.publish(later)
    # A pid is used again: another worker.
    reborn = replace(second, began=1_000_099.0)
    worker.publish(reborn)
    assert looker.reports() == [third, later, second, reborn]

    worker.withdraw(second)
    worker.withdraw(second)
    assert looker.reports() == [third, later, reborn]

    ann = looker.drain("core", "mta2", "ann")
    assert time.time() - 60 < ann.time <= time.time()
    bob = looker.drain("core", "mta1", "bob")
    assert worker.orders() == [bob, ann]
    again = worker.drain("core", "mta2", "cid")
    assert looker.orders() == [bob, again]
    assert worker.undrain("core", "mta2")
    assert not worker.undrain("core", "mta2")
    assert not worker.undrain("other", "mta1")
    assert looker.orders() == [bob]
    looker.close()
    assert looker.orders() == [bob]
    assert looker.undrain("core", "mta1")
    assert worker.orders() == []


# --- Redis -------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(redis_server: Redis) -> Iterator[Any]:
    client = redis.Redis.from_url(redis_server.uri, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def board(redis_server: Redis) -> Iterator[LiveBoard]:
    board = open_board(redis_server.uri, None, SystemClock(), patience=5.0)
    yield board
    board.close()


def test_an_operator_reads_the_keys_with_redis_cli(board: LiveBoard, client: Any) -> None:
    board.publish(FULL)
    order = board.drain("core", "mta1", "ann")
    worker = "mx1/4711-1000000.250"
    assert set(client.scan_iter(match="smtpgate:*")) == {
        f"smtpgate:report:{{live}}:{worker}",
        "smtpgate:workers:{live}",
        "smtpgate:orders:{live}",
    }
    told = json.loads(client.get(f"smtpgate:report:{{live}}:{worker}"))
    assert (told["node"], told["counts"]["delivered"], told["sessions"][0]["user"]) == ("mx1", 3, "ann@b.test")
    assert client.zrange("smtpgate:workers:{live}", 0, -1) == [worker]
    assert client.hgetall("smtpgate:orders:{live}") == {
        "core/mta1": json.dumps(
            {"pool": "core", "backend": "mta1", "by": "ann", "time": order.time}, separators=(",", ":")
        )
    }


def test_all_but_orders_ends_by_itself(board: LiveBoard, client: Any) -> None:
    board.publish(FULL)
    board.drain("core", "mta1", "ann")
    report = client.pttl("smtpgate:report:{live}:mx1/4711-1000000.250")
    assert (KEEP - 5) * 1000 < report <= KEEP * 1000
    assert client.pttl("smtpgate:workers:{live}") > report
    assert client.pttl("smtpgate:orders:{live}") == -1


def test_the_age_of_a_report_is_told_by_its_expiry(board: LiveBoard, client: Any) -> None:
    board.publish(FULL)
    client.pexpire("smtpgate:report:{live}:mx1/4711-1000000.250", int((KEEP - STALE - 1) * 1000))
    (sighting,) = board.sightings()
    assert STALE + 1 <= sighting.age < STALE + 3
    assert board.reports() == []
    client.delete("smtpgate:report:{live}:mx1/4711-1000000.250")
    assert board.sightings() == []


def test_what_no_reader_understands_is_left_out(board: LiveBoard, client: Any) -> None:
    board.publish(FULL)
    for name, text in (("a", "{"), ("b", '{"node": "x"}'), ("c", '{"pool": 7}'), ("d", "\xff")):
        client.set(f"smtpgate:report:{{live}}:{name}", text, ex=60)
        client.zadd("smtpgate:workers:{live}", {name: 1.0})
        client.hset("smtpgate:orders:{live}", name, text)
    assert board.reports() == [FULL]
    assert board.orders() == []


def test_a_redis_that_is_gone_is_no_answer() -> None:
    board = open_board(f"redis://:secret@{HOST}:{free_port()}/0", None, SystemClock(), patience=0.2)
    assert isinstance(board, RedisBoard)
    assert "secret" not in board.public
    calls: list[Callable[[], object]] = [
        lambda: board.publish(FULL),
        lambda: board.withdraw(FULL),
        board.sightings,
        board.reports,
        board.orders,
        lambda: board.drain("core", "mta1", "ann"),
        lambda: board.undrain("core", "mta1"),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as lost:
            call()
        assert "secret" not in str(lost.value)
    board.close()


# --- the folder --------------------------------------------------------------------------------------------------


class AnyTime(SystemClock):
    """Ahead by so many seconds."""

    ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


def test_a_folder_is_its_users_alone(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path / "state", SystemClock())
    board.publish(FULL)
    board.drain("core", "mta1", "ann")
    folder = tmp_path / "state" / "live"
    assert board.public == str(folder)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [folder, *folder.iterdir()]}
    assert modes == {"live": "0o700", "4711-1000000.250.json": "0o600", "orders.json": "0o600"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into another user's folder")
@pytest.mark.parametrize("made_by_worker", [True, False])
def test_what_root_orders_is_read_by_workers_of_another_user(tmp_path: Path, made_by_worker: bool) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    os.chown(state_dir, 54321, 54322)
    if made_by_worker:
        (state_dir / "live").mkdir(mode=0o700)
        os.chown(state_dir / "live", 54321, 54322)
        (state_dir / "live" / ".orders.json.new").touch()  # of a gatectl that was killed
    FolderBoard(state_dir, SystemClock()).drain("mx", "mta1", "root@mx1")
    for path in (state_dir / "live", state_dir / "live" / "orders.json"):
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o077) == (54321, 54322, 0)


def test_a_worker_that_was_killed_is_stale_and_then_forgotten(tmp_path: Path) -> None:
    clock = AnyTime()
    board = FolderBoard(tmp_path, clock)
    board.publish(FULL)
    clock.ahead = STALE + 1
    (sighting,) = board.sightings()
    assert (sighting.report, board.reports()) == (FULL, [])
    assert STALE + 1 <= sighting.age < STALE + 3
    clock.ahead = KEEP + 1
    assert board.sightings() == []
    assert len(list((tmp_path / "live").iterdir())) == 1
    clock.ahead = 0.0
    os.utime(tmp_path / "live" / "4711-1000000.250.json", (0, 0))
    board.publish(other(pid=4712))
    assert [path.name for path in (tmp_path / "live").iterdir()] == ["4712-1000000.250.json"]


def test_files_that_are_no_reports_are_left_out(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path, SystemClock())
    board.publish(FULL)
    (tmp_path / "live" / "1-1.000.json").write_text("{")
    (tmp_path / "live" / "2-2.000.json").write_bytes(b" " * (livejson.MAX_OCTETS + 1))
    (tmp_path / "live" / "notes.txt").write_text("mine")
    assert board.reports() == [FULL]


def test_orders_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    """Nor are they overwritten: a drained backend must not come back for a slip of an editor."""
    board = FolderBoard(tmp_path, SystemClock())
    board.drain("core", "mta1", "ann")
    path = tmp_path / "live" / livefolder.ORDERS
    path.write_text("[")
    for call in (board.orders, lambda: board.drain("core", "mta2", "ann"), lambda: board.undrain("core", "mta1")):
        with pytest.raises(StoreUnavailable, match=r"orders\.json is not a file of orders"):
            call()
    assert path.read_text() == "["


def test_orders_are_bounded(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path, SystemClock())
    board.drain("core", "mta0", "ann")
    most = [Order("core", f"mta{n:04d}", "ann", 1.0) for n in range(MAX_ORDERS)]
    (tmp_path / "live" / livefolder.ORDERS).write_bytes(livejson.orders_to_json(most))
    with pytest.raises(StoreUnavailable, match="1000 orders are in force already"):
        board.drain("core", "one-more", "ann")
    assert board.drain("core", "mta0007", "bob").by == "bob"
    assert len(board.orders()) == MAX_ORDERS


def test_orders_in_the_store_are_bounded(board: LiveBoard, client: Any) -> None:
    for n in range(MAX_ORDERS):
        order = Order("core", f"mta{n:04d}", "ann", 1.0)
        client.hset("smtpgate:orders:{live}", f"core/{order.backend}", livejson.order_to_json(order))
    with pytest.raises(StoreUnavailable, match="1000 orders are in force already"):
        board.drain("core", "one-more", "ann")
    assert board.drain("core", "mta0007", "bob").by == "bob"  # one that is there already may be given anew
    assert [one.by for one in board.orders() if one.backend == "mta0007"] == ["bob"]
    assert len(board.orders()) == MAX_ORDERS


def test_a_folder_that_cannot_be_written_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    board = FolderBoard(tmp_path / "state", SystemClock())
    for call in (lambda: board.publish(FULL), board.sightings, lambda: board.drain("core", "mta1", "ann")):
        with pytest.raises(StoreUnavailable, match="state"):
            call()


ORDERER = """
import sys
from pathlib import Path
from smtpgate.clock import SystemClock
from smtpgate.drivers.livefolder import FolderBoard
board = FolderBoard(Path(sys.argv[1]), SystemClock())
for n in range(20):
    board.drain("core", f"{sys.argv[2]}{n}", "ann")
"""


def test_operators_do_not_lose_each_others_orders(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [".venv/bin/python", "-c", ORDERER, str(tmp_path)]
    writers = [subprocess.Popen([*command, who], cwd=root) for who in "abc"]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    assert len(FolderBoard(tmp_path, SystemClock()).orders()) == 60


# --- where it is -------------------------------------------------------------------------------------------------


def test_which_board_a_configuration_means(tmp_path: Path) -> None:
    clock = SystemClock()
    assert isinstance(open_board("memory://", tmp_path, clock), FolderBoard)
    assert isinstance(open_board("redis://127.0.0.1/0", tmp_path, clock), RedisBoard)
    with pytest.raises(NoBoard, match="there is no state_dir; expected"):
        open_board("memory://", None, clock)
    with pytest.raises(ValueError, match="is not the URI of a store"):
        open_board("http://x:secret@y/", tmp_path, clock)
