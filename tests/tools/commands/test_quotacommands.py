"""`gatectl quota …` in this process, on a real Redis; test_gatectl.py runs it as an operator does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from peers.process import HOST, free_port
from peers.redis import Redis

from smtpgate.clock import SystemClock
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import open_store
from smtpgate.policy.store import Charge, Claim, Penalty
from tools.commands.gatectl import gatectl

CONF = """\
server_name: mail.example.com
auth_http: {{url: "http://127.0.0.1:18080/auth"}}
listeners: [{{name: mx, bind: "127.0.0.1:20025"}}]
store: {store}
"""
RATE = 1 / 86_400  # too slow for a test to see

Run = Callable[..., Result]


def conf(folder: Path, store: str) -> Path:
    path = folder / "proxy.yaml"
    path.write_text(CONF.format(store=store))
    return path


@pytest.fixture
def run(redis_server: Redis, tmp_path: Path) -> Run:
    path = conf(tmp_path, redis_server.uri)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(gatectl, ["quota", "-c", str(path), *arguments])

    return run


@pytest.fixture
def store(redis_server: Redis) -> Iterator[RedisBuckets]:
    """With a bucket of ann, one of bob, a place of ann's, and a banned address."""
    opened = open_store(redis_server.uri, clock=SystemClock(), timeout=5.0)
    assert isinstance(opened, RedisBuckets)
    opened.take([Charge("user.msgs:ann", RATE, 10.0, 8.0), Charge("user.msgs:bob", RATE, 10.0, 10.0)])
    opened.take([Charge("user.msgs:bob", RATE, 10.0)])
    opened.take([], claims=[Claim("user.conns:ann", 5, "h1")])
    penalty = Penalty("192.0.2.1", "auth.fail.net limits.yaml:7", ban=900.0)
    opened.take([Charge("auth.fail.net:192.0.2.1", RATE, 1.0, 2.0, penalty=penalty)])
    yield opened
    opened.close()


def rows(done: Result) -> list[list[str]]:
    return [line.split() for line in done.stdout.splitlines()]


def test_list(run: Run, store: RedisBuckets) -> None:
    done = run("list")
    assert done.exit_code == 0
    head, *body = rows(done)
    assert head == ["kind", "limit", "subject", "now", "of", "rate", "full", "in", "denied", "note"]
    assert [row[:3] for row in body] == [
        ["ban", "auth.fail.net", "192.0.2.1"],
        ["bucket", "auth.fail.net", "192.0.2.1"],
        ["places", "user.conns", "ann"],
        ["bucket", "user.msgs", "ann"],
        ["bucket", "user.msgs", "bob"],
    ]
    assert body[0][3] in ("15m", "14m59s")
    assert body[0][4:] == ["left,", "by", "limits.yaml:7"]
    assert body[3][3:6] == ["2", "10", "1/1d"]
    assert body[4][3:6] == ["0", "10", "1/1d"]
    assert body[4][-1] == "1"  # denied
    assert [row[2] for row in rows(run("list", "--limit", "user.*", "--subject", "b*"))[1:]] == ["bob"]
    assert [row[:2] for row in rows(run("list", "--subject", "192.*"))[1:]] == [
        ["ban", "auth.fail.net"],
        ["bucket", "auth.fail.net"],
    ]


def test_list_as_json_and_bounded(run: Run, store: RedisBuckets) -> None:
    ann, bob = json.loads(run("list", "--json", "--limit", "user.msgs").stdout)
    assert (ann["subject"], bob["subject"]) == ("ann", "bob")
    assert {key: ann[key] for key in ("kind", "limit", "burst", "denied")} == {
        "kind": "bucket",
        "limit": "user.msgs",
        "burst": 10.0,
        "denied": 0,
    }
    assert ann["tokens"] == pytest.approx(2.0, abs=0.01)
    done = run("list", "--most", "2", "--json")
    assert len(json.loads(done.stdout)) == 2
    assert done.stderr == "there are more than 2: --limit and --subject choose, --most shows more\n"
    done = run("list", "--subject", "nobody", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])


def test_show(run: Run, store: RedisBuckets) -> None:
    done = run("show", "user.msgs", "ann")
    assert (done.exit_code, rows(done)[1][:6]) == (0, ["bucket", "user.msgs", "ann", "2", "10", "1/1d"])
    (item,) = json.loads(run("show", "user.conns", "ann", "--json").stdout)
    assert (item["kind"], item["taken"]) == ("places", 1)
    done = run("show", "user.msgs", "carol")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: nothing is counted for carol of user.msgs: its bucket is full, and it holds no place\n"
    )


def test_reset(run: Run, store: RedisBuckets) -> None:
    done = run("reset", "user.msgs", "bob")
    assert (done.exit_code, done.output) == (0, "reset user.msgs of bob\n")
    assert store.take([Charge("user.msgs:bob", RATE, 10.0, 10.0)]).passed
    assert json.loads(run("reset", "user.msgs", "bob", "--json").stdout) == {
        "limit": "user.msgs",
        "subject": "bob",
        "keys": 1,
    }
    done = run("reset", "user.msgs", "bob")
    assert (done.exit_code, done.output) == (1, "Error: nothing was counted for bob of user.msgs\n")


def test_grant(run: Run, store: RedisBuckets) -> None:
    done = run("grant", "user.msgs", "ann", "5")
    assert (done.exit_code, done.output) == (0, "user.msgs of ann: 2 -> 7 of 10\n")
    done = run("grant", "user.msgs", "ann", "5")
    assert (done.exit_code, done.stdout) == (0, "user.msgs of ann: 7 -> 10 of 10\n")
    assert done.stderr == "the rest did not fit: an override in policies/ raises burst and rate\n"
    changed = json.loads(run("grant", "user.msgs", "bob", "2.5", "--json").stdout)
    assert changed["after"]["tokens"] == pytest.approx(2.5, abs=0.01)
    done = run("grant", "user.msgs", "carol", "5")
    assert (done.exit_code, done.output) == (1, "Error: user.msgs has no bucket of carol: it is full already\n")


@pytest.mark.parametrize("tokens", ["0", "-1", "nan", "inf", "many"])
def test_grant_of_nothing(run: Run, tokens: str) -> None:
    assert run("grant", "--", "user.msgs", "ann", tokens).exit_code == 2


def test_unban(run: Run, store: RedisBuckets) -> None:
    done = run("unban", "192.0.2.1")
    assert (done.exit_code, done.output) == (0, "lifted the ban of 192.0.2.1\n")
    done = run("unban", "192.0.2.1")
    assert (done.exit_code, done.output) == (1, "Error: 192.0.2.1 is not banned\n")
    assert json.loads(run("unban", "192.0.2.1", "--json").stdout) == {"subject": "192.0.2.1", "lifted": False}


def test_memory_is_in_the_proxy_alone(tmp_path: Path) -> None:
    path = conf(tmp_path, "memory://")
    done = CliRunner().invoke(gatectl, ["quota", "-c", str(path), "list"])
    assert (done.exit_code, done.stderr) == (
        2,
        f"{path}: store: memory:// is kept by each process for itself, and nobody else can see it; "
        "expected a store that is shared, e.g. redis://\n",
    )


def test_a_store_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    path = conf(tmp_path, f"redis://:hunter2@{HOST}:{port}/0")
    for command in (["list"], ["show", "a", "b"], ["reset", "a", "b"], ["grant", "a", "b", "1"], ["unban", "b"]):
        done = CliRunner().invoke(gatectl, ["quota", "-c", str(path), *command])
        assert done.exit_code == 3
        assert done.stderr.startswith(f"Error: redis://{HOST}:{port}/0: ConnectionError: ")
        assert "hunter2" not in done.output


def test_a_broken_configuration(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("server_name: a b\n")
    done = CliRunner().invoke(gatectl, ["quota", "-c", str(path), "list"])
    assert done.exit_code == 2
    assert f'{path}:1:1: server_name: "a b" is not a host name; expected e.g. mail.example.com\n' in done.stderr


def test_help_names_every_command() -> None:
    done: Any = CliRunner().invoke(gatectl, ["quota", "--help"])
    for command in ("list", "show", "reset", "grant", "unban"):
        assert f"\n  {command} " in done.output
        assert CliRunner().invoke(gatectl, ["quota", command, "--help"]).exit_code == 0
