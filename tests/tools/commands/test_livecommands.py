"""`gatectl status`, `sessions`, `pools`, `top`, `denials`, `drain` and `undrain` over a board in a folder."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from smtpgate.clock import SystemClock
from smtpgate.drivers.livefolder import FolderBoard
from smtpgate.live import (
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
from tools.commands.draincommands import BackendName
from tools.commands.gatectl import gatectl

CONF = """\
server_name: mail.test
store: memory://
state_dir: state
auth_http: {url: "http://127.0.0.1:9/auth"}
listeners: [{name: mx, bind: "127.0.0.1:2525", auth: [none]}]
"""


def report(**changes: Any) -> Report:
    now = time.time()
    base = Report(
        node="mx1",
        pid=11,
        version="1.2.3",
        time=now,
        began=now - 3725,
        draining=False,
        store="shared",
        open_sessions=2,
        resident=64 << 20,
        counts=Counts(sessions=9, delivered=7),
        sessions=(
            SessionView(
                "aaaa",
                "mx",
                "192.0.2.7",
                "evil\x1b[2J.test",
                "ann@b.test",
                "TLSv1.3",
                now - 61,
                "data",
                2,
                "7a",
                "mta1",
            ),
            SessionView("bbbb", "sub", "2001:db8::7", "c.test", None, None, now - 5, "idle", 0),
        ),
        denials=(
            DenialView(
                now - 1, "aaaa", "192.0.2.7", "ann@b.test", "mail", "msgs", "ann@b.test", 0.5, 90.0, "p.yaml:3"
            ),
            DenialView(
                now - 2, "bbbb", "2001:db8::7", None, "rcpt", "rcpts", "2001:db8::/64", 0.0, 1.0, "p.yaml:4", True
            ),
        ),
        subjects=(
            SubjectView("msgs", "ann@b.test", "p.yaml:3", 4, 0, now - 60),
            SubjectView("rcpts", "bob@b.test", "p.yaml:4", 1, 9, now - 60),
        ),
        pools=(
            PoolView(
                "core",
                "round_robin",
                (
                    BackendView("mta1", "10.0.0.1:25", "up", 1, 3, 1, 0),
                    BackendView("mta2", "10.0.0.2:25", "down", 1, 0, 0, 0, False, "probe", "connect refused"),
                ),
                2,
            ),
        ),
        policy=PolicyView("0123456789abcdef", now - 60),
        server_name="mail.test",
        recent=Counts(sessions=120, delivered=30, denied=6),
        recent_seconds=60.0,
    )
    return replace(base, **changes)


WELL = tuple(
    PoolView("core", "round_robin", (BackendView(name, "10.0.0.1:25", "up", 1, 0, 0, 0),)) for name in ("mta1",)
)


@pytest.fixture
def board(tmp_path: Path) -> FolderBoard:
    (tmp_path / "proxy.yaml").write_text(CONF)
    return FolderBoard(tmp_path / "state", SystemClock())


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, board: FolderBoard) -> Run:
    def call(*arguments: str, status: int = 0) -> Result:
        done = CliRunner().invoke(gatectl, [*arguments, "-c", str(tmp_path / "proxy.yaml")])
        assert done.exit_code == status, done.output
        return done

    return call


def rows(done: Result) -> list[list[str]]:
    """The cells of a plain table, without its head: two blanks and more part them."""
    return [re.split(r"  +", line.strip()) for line in done.stdout.splitlines()[1:]]


# --- status ---------------------------------------------------------------------------------------------------------


def test_all_is_well(run: Run, board: FolderBoard) -> None:
    board.publish(report(pools=WELL))
    board.publish(report(pools=WELL, pid=12, draining=True, recent=Counts(), recent_seconds=0.0))
    node, end = rows(run("status"))
    assert node == [
        *("mx1", "mail.test", "1.2.3", "2, 1 draining", "4", "2", "0.5", "0.1", "0"),
        *("shared", "0123456789ab", "128MiB", "1h2m"),
    ]
    assert end == ["all is well"]
    assert [row[1] for row in rows(run("status", "--workers"))[:2]] == ["11", "12"]
    told = json.loads(run("status", "--json").stdout)
    assert (told["ok"], told["troubles"], told["orders"]) == (True, [], [])
    assert [(one["pid"], one["stale"], "sessions" in one) for one in told["workers"]] == [
        (11, False, False),
        (12, False, False),
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"store": "local"}, "the limits' store is local for one worker"),
        ({"policy": PolicyView("abc", 1.0, ("p.yaml:1:1: broken",))}, "rejected the policies folder"),
        ({"policy": PolicyView("other", 1.0)}, "the workers do not have the same policies"),
        ({"pools": report().pools}, "backend core/mta2 is down for one worker"),
    ],
)
def test_what_is_wrong_is_told_and_is_the_exit_status(
    run: Run, board: FolderBoard, changes: dict[str, Any], told: str
) -> None:
    board.publish(report(pools=WELL, **{"pid": 12, **changes}) if "pools" not in changes else report(pid=12))
    board.publish(report(pools=WELL))
    assert told in run("status", status=1).stdout


def test_a_worker_that_was_not_replaced_is_missing(run: Run, board: FolderBoard, tmp_path: Path) -> None:
    lost = report(pools=WELL)
    board.publish(lost)
    path = next((tmp_path / "state" / "live").glob("11-*.json"))
    os.utime(path, (time.time() - STALE - 5,) * 2)
    assert "worker mx1 11 has said nothing for 15 s" in run("status", status=1).stdout
    assert rows(run("status", status=1))[0][3] == "gone"
    board.publish(report(pools=WELL, pid=12, began=time.time() + 1))
    assert "all is well" in run("status").stdout


def test_nobody_has_reported(run: Run, board: FolderBoard) -> None:
    for command in ("status", "sessions", "pools", "top", "denials"):
        done = run(command, status=1)
        assert (
            done.stdout == f"no worker has reported to {board.public}; expected a proxy that runs with this store\n"
        )
    assert json.loads(run("sessions", "--json", status=1).stdout) == []


def test_a_drained_backend_is_told_of_and_no_fault(run: Run, board: FolderBoard) -> None:
    board.publish(report(pools=WELL))
    board.drain("core", "mta1", "ann@ops")
    assert "core/mta1 takes no sessions: drained by ann@ops, 20" in run("status").stdout


# --- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["bbbb", "aaaa"]),
        (["--user", "ANN@b.test"], ["aaaa"]),
        (["--user", "*@b.test"], ["aaaa"]),
        (["--client", "192.0.2.0/24"], ["aaaa"]),
        (["--client", "2001:db8::7"], ["bbbb"]),
        (["--client", "unix:"], []),
        (["--listener", "sub"], ["bbbb"]),
        (["--backend", "mta*"], ["aaaa"]),
        (["--limit", "1"], ["bbbb"]),
        (["--most", "1"], ["bbbb"]),
    ],
)
def test_sessions_that_are_wanted(run: Run, board: FolderBoard, options: list[str], expected: list[str]) -> None:
    board.publish(report())
    assert [one["session"] for one in json.loads(run("sessions", *options, "--json").stdout)] == expected


def test_sessions_as_a_table(run: Run, board: FolderBoard) -> None:
    """What a client calls itself does not steer the terminal."""
    board.publish(report(open_sessions=700))
    done = run("sessions", "--most", "1")
    assert rows(done) == [
        ["mx1", "bbbb", "sub", "2001:db8::7", "c.test", "idle", "5s", "0"],
        ["1 of 2: --most shows more"],
        ["700 sessions are open, each worker tells of its oldest: 2 in all"],
    ]
    (row,) = rows(run("sessions", "--user", "ann*"))[:1]
    assert row == [
        "mx1",
        "aaaa",
        "mx",
        "192.0.2.7",
        "evil\\x1b[2J.test",
        "ann@b.test",
        "TLSv1.3",
        "data",
        "1m1s",
        "2",
        "mta1",
    ]


@pytest.mark.parametrize("value", ["192.0.2", "192.0.2.0/33", "ann"])
def test_a_client_that_is_no_address(run: Run, value: str) -> None:
    done = run("sessions", "--client", value, status=2)
    assert f"'{value}' is not an address; expected e.g. 192.0.2.7, 2001:db8::/64 or unix:" in done.output.replace(
        "\n", " "
    )


def test_pools_of_workers_that_do_not_agree(run: Run, board: FolderBoard) -> None:
    board.publish(report())
    board.publish(report(pid=12))
    board.drain("core", "mta1", "ann@ops")
    (pool,) = report().pools
    up = replace(pool.backends[1], state="up", by=None, reason=None)
    board.publish(report(pid=13, pools=(replace(pool, backends=(pool.backends[0], up)),)))
    first, second = rows(run("pools"))
    assert first[:-1] == ["core", "round_robin", "mta1", "10.0.0.1:25", "up", "1", "9", "3", "0", "6"]
    assert first[-1].startswith("drained by ann@ops, 20")  # the console's words; workers take it up within 4 s
    assert second[4] == "down (2), up (1)"
    assert second[-1] == "down by probe: connect refused"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["bob@b.test", "ann@b.test"]),
        (["--by", "denied"], ["ann@b.test", "bob@b.test"]),
        (["--by", "held"], ["bob@b.test"]),
        (["--limit", "m*"], ["ann@b.test"]),
        (["--most", "1"], ["bob@b.test"]),
    ],
)
def test_who_is_at_the_top(run: Run, board: FolderBoard, options: list[str], expected: list[str]) -> None:
    board.publish(report())
    assert [one["subject"] for one in json.loads(run("top", *options, "--json").stdout)] == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["msgs", "rcpts"]),
        (["--limit", "rcpts"], ["rcpts"]),
        (["--user", "ann*"], ["msgs"]),
        (["--client", "2001:db8::/32"], ["rcpts"]),
        (["--most", "1"], ["msgs"]),
    ],
)
def test_refusals_that_are_wanted(run: Run, board: FolderBoard, options: list[str], expected: list[str]) -> None:
    board.publish(report())
    assert [one["limit"] for one in json.loads(run("denials", *options, "--json").stdout)] == expected


def test_refusals_as_a_table(run: Run, board: FolderBoard) -> None:
    board.publish(report())
    first, second = rows(run("denials"))
    assert first[1:] == [
        "mx1",
        "aaaa",
        "192.0.2.7",
        "ann@b.test",
        "mail",
        "msgs",
        "ann@b.test",
        "0.5",
        "1m30s",
        "p.yaml:3",
    ]
    assert second[5] == "rcpts (shadow)"


def test_a_configuration_without_a_place_to_look_at(tmp_path: Path, run: Run) -> None:
    (tmp_path / "proxy.yaml").write_text(CONF.replace("state_dir: state\n", ""))
    done = run("status", status=2)
    assert "store: memory:// is each process's own, and there is no state_dir; expected redis://" in done.output


def test_a_store_that_gives_no_answer(tmp_path: Path, run: Run) -> None:
    (tmp_path / "proxy.yaml").write_text(CONF.replace("memory://", "redis://:secret@127.0.0.1:1/0"))
    done = run("pools", status=3)
    assert "redis://127.0.0.1:1/0: ConnectionError" in done.output
    assert "secret" not in done.output


# --- drain ----------------------------------------------------------------------------------------------------------


def test_drain_and_undrain(run: Run, board: FolderBoard) -> None:
    board.publish(report())
    assert run("drain", "core/mta1", "--by", "ann").stdout == "core/mta1: drained by ann\n"
    (order,) = board.orders()
    assert (order.pool, order.backend, order.by) == ("core", "mta1", "ann")
    assert json.loads(run("drain", "core/mta2", "--json").stdout)["by"].count("@") == 1
    assert run("undrain", "core/mta1").stdout == "core/mta1: no longer drained\n"
    assert "core/mta1 is not drained by an operator" in run("undrain", "core/mta1", status=1).output
    assert json.loads(run("undrain", "core/mta2", "--json").stdout)["undrained"] is True
    assert board.orders() == []


def test_whoever_has_no_name_drains_by_number(run: Run, board: FolderBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr("getpass.getuser", nameless)
    board.publish(report())
    run("drain", "core/mta1")
    (order,) = board.orders()
    assert order.by.startswith(f"uid {os.getuid()}@")


@pytest.mark.parametrize("name", ["mta1", "core/", "/mta1", "co re/mta1", "core/mta1/x"])
def test_what_names_no_backend(run: Run, board: FolderBoard, name: str) -> None:
    assert f"'{name}'" in run("drain", name, status=2).output
    assert board.orders() == []


def test_a_backend_that_nobody_knows(run: Run, board: FolderBoard) -> None:
    board.publish(report())
    done = run("drain", "core/mta9", status=2)
    assert "core/mta9: no worker knows of it; expected one of core/mta1, core/mta2 (or --force)" in done.output
    assert board.orders() == []
    run("drain", "core/mta9", "--force")
    assert [order.backend for order in board.orders()] == ["mta9"]


def test_an_order_before_anybody_has_reported(run: Run, board: FolderBoard) -> None:
    done = run("drain", "core/mta1")
    assert "no worker has reported" in done.stderr
    assert len(board.orders()) == 1


def test_waiting_for_the_last_session(run: Run, board: FolderBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.commands.draincommands.LOOK", 0.01)
    board.publish(report())
    done = run("drain", "core/mta1", "--by", "ann", "--wait", "0.05", status=1)
    assert done.stdout == "core/mta1: drained by ann; 3 sessions still have it\n"
    gone = BackendView("mta1", "10.0.0.1:25", "drain", 1, 0, 0, 0, False, "operator", "drained by ann")
    board.publish(report(began=report().began, pid=11, pools=(PoolView("core", "hash", (gone,)),)))
    for path in sorted((Path(board.public)).glob("11-*.json"), key=os.path.getmtime)[:-1]:
        path.unlink()
    done = run("drain", "core/mta1", "--by", "ann", "--wait")
    assert done.stdout == "core/mta1: drained by ann; no session has it any more\n"


@pytest.mark.parametrize("store", ["silent", "away"])
def test_waiting_where_nobody_reports(
    run: Run, board: FolderBoard, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """It ends, and does not say that no session has the backend."""
    monkeypatch.setattr("tools.commands.draincommands.LOOK", 0.01)
    monkeypatch.setattr("tools.commands.draincommands.STALE", 0.05)
    board.publish(report())
    ordered = FolderBoard.drain

    def last_words(self: FolderBoard, pool: str, backend: str, by: str) -> Order:
        order = ordered(self, pool, backend, by)
        for path in Path(board.public).glob("11-*.json"):
            path.unlink()
        if store == "away":

            def away(_self: FolderBoard) -> list[Report]:
                raise StoreUnavailable("away")

            monkeypatch.setattr(FolderBoard, "reports", away)
        return order

    monkeypatch.setattr(FolderBoard, "drain", last_words)
    done = run("drain", "core/mta1", "--by", "ann", "--wait", status=1)
    assert done.stdout == (
        "core/mta1: drained by ann; no worker reports, so it is not known whether a session still has it\n"
    )
    if store == "silent":
        done = run("drain", "core/mta1", "--by", "ann", "--wait", "--json", status=1)
        assert json.loads(done.stdout)["sessions"] is None
    assert [order.by for order in board.orders()] == ["ann"]


def test_completion_knows_the_backends(tmp_path: Path, board: FolderBoard) -> None:
    board.publish(report())
    context = click.Context(click.Command("drain"))
    kind, argument = BackendName(), click.Argument(["backend"])
    context.params["conf"] = tmp_path / "proxy.yaml"
    assert [one.value for one in kind.shell_complete(context, argument, "core/")] == ["core/mta1", "core/mta2"]
    assert kind.shell_complete(context, argument, "x") == []
    context.params["conf"] = tmp_path / "gone.yaml"
    assert kind.shell_complete(context, argument, "") == []
