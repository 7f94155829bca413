"""The operator's command as a process, beside a running proxy of two workers and a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from peers.process import HOST, Process, wait_until
from peers.redis import Redis
from peers.smtptools import SmtpSink
from rawclient import RawClient
from stack import RELAY, Stack

ROOT = Path(__file__).parents[2]
GATECTL = ROOT / "tools" / "gatectl"
CLIENTS = 12

# Refills are too slow for a test to see, and the longest wait is always the same one's: what is refused by whom does
# not hang on a machine's speed.
LIMITS = """\
version: 1
limiter: {timeout: 5s}
limits:
  conns: {event: connect, concurrency: 100, key: "{net}", deny: {reply: "421 4.7.0 many"}}
  ip.msgs: {event: mail, rate: 1/2d, burst: 30, key: "{net}", deny: {reply: "450 4.7.1 slow"}}
  user.msgs: {event: mail, rate: 1/1d, burst: 20, key: "{user}", refund: rejected, deny: {reply: "450 4.7.1 slow"}}
  rcpts: {event: rcpt, rate: 1/1d, burst: 17, key: "{user}", deny: {reply: "452 4.5.3 many"}}
  watch: {event: rcpt, rate: 1/1d, burst: 5, key: "{rcpt_domain}", shadow: true, deny: {reply: "450 4.7.1 slow"}}
"""


@pytest.fixture
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    server = SmtpSink(tmp_path_factory.mktemp("sink"))
    yield server
    server.stop()


def gatectl(*arguments: str | Path, status: int = 0, given: str = "", **environ: str) -> str:
    """What it prints, and that it ends as it should."""
    done = subprocess.run(
        [GATECTL, *map(str, arguments)],
        input=given,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def told(*arguments: str | Path, status: int = 0) -> Any:
    return json.loads(gatectl(*arguments, "--json", status=status))


def messages(stack: Stack, number: int) -> None:
    """Four messages of one client, some of them with a recipient that the limits refuse."""
    client = RawClient(stack.proxy).greeted().login("test", "1234") if number % 3 else None
    if client is None:
        client = RawClient(stack.proxy).greeted().login("test2", "password")
    for _ in range(4):
        if client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 "):
            client.ask(b"RCPT TO:<b@c.example>")
            client.ask(b"RSET")
    client.ask(b"QUIT")
    client.close()


@pytest.mark.timeout(300)  # some thirty commands, each a process
def test_a_run_and_what_the_operator_sees_of_it(
    sink: SmtpSink, redis_server: Redis, start_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    stack = start_stack(
        [(HOST, sink.port)],
        store=redis_server.uri,
        workers=2,
        policy={"limits.yaml": LIMITS},
        proxy={"log": {"decisions": True}, "state_dir": str(state)},
    )
    # One after the other: two workers' lines in a log do not tell which of two questions Redis took first.
    for number in range(CLIENTS):
        messages(stack, number)
    stack.wait_for_event("session", CLIENTS)
    conf = ("-c", stack.proxy_conf)

    # policy check, explain, simulate
    assert gatectl("policy", "check", *conf).startswith(f"{stack.policies}: valid, version ")
    version = told("policy", "check", *conf)["version"]
    assert {line["version"] for line in stack.log_events("policies_loaded")} == {version}

    counts = told("policy", "simulate", stack.policies, "--log", stack.folder / "proxy.out")
    denied = {one["limit"]: (one["denied"], one["logged_denied"]) for one in counts["limits"]}
    logged = {name: len(stack.log_events("denied", limit=name)) for name in denied}
    assert denied == {name: (count, count) for name, count in logged.items()}
    watched = next(one for one in counts["limits"] if one["limit"] == "watch")
    assert watched["shadow"] == len(stack.log_events("would_deny", limit="watch")) > 0
    assert sum(logged.values()) > 0
    assert (counts["newly_denied"], counts["newly_allowed"], counts["unreleased"]) == (0, 0, 0)

    # quota, beside what redis-cli reads
    with redis.Redis.from_url(redis_server.uri, decode_responses=True) as client:
        bucket = client.hgetall("smtpgate:tb:{rl}:user.msgs:test")
    (shown,) = told("quota", *conf, "show", "user.msgs", "test")
    assert shown["tokens"] == pytest.approx(float(bucket["tokens"]), abs=0.01)
    assert (shown["burst"], shown["denied"]) == (float(bucket["cap"]), int(bucket.get("denied", 0)))
    explained = told("policy", "explain", *conf, "--ip", stack.proxy[0], "--user", "test", "--event", "mail")
    by_name = {one["limit"]: one for one in explained["events"][0]["limits"]}
    assert by_name["user.msgs"]["now"] == pytest.approx(shown["tokens"], abs=0.01)
    kinds = {(one["kind"], one["limit"]) for one in told("quota", *conf, "list")}
    assert {("bucket", name) for name in ("ip.msgs", "user.msgs", "rcpts", "watch")} <= kinds
    assert ("places", "conns") not in kinds  # every session has ended
    gatectl("quota", *conf, "grant", "user.msgs", "test", "1")
    gatectl("quota", *conf, "reset", "user.msgs", "test")
    gatectl("quota", *conf, "show", "user.msgs", "test", status=1)
    gatectl("quota", *conf, "unban", "192.0.2.1", status=1)

    # a broken edit, and a restart meanwhile
    stack.edit_policy("limits.yaml", LIMITS.replace("burst: 20", "brust: 20"))
    problems = told("policy", "check", *conf, status=2)["problems"]
    assert [problem["path"] for problem in problems] == ["limits[user.msgs].brust"]
    stack.wait_for_event("policies_rejected", 2)
    stack.stop()
    assert json.loads((state / "policies.last-good.json").read_text())["version"] == version


def test_a_restart_while_the_policies_are_broken(
    sink: SmtpSink, start_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    state = {"state_dir": str(tmp_path / "state")}
    settings: dict[str, Any] = {"listeners": [RELAY], "auth_url": None, "proxy": state}
    stack = start_stack([(HOST, sink.port)], policy={"limits.yaml": LIMITS}, **settings)
    kept = tmp_path / "state" / "policies.last-good.json"
    wait_until(kept.exists, "the last good policies are written")
    version = stack.log_events("policies_loaded")[0]["version"]
    stack.edit_policy("limits.yaml", "version: 3\n")
    stack.wait_for_event("policies_rejected")
    stack.stop()
    program = [sys.executable, str(ROOT / "proxy.py"), "-c", str(stack.proxy_conf)]
    checked = subprocess.run([*program, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr.count("version: 3 is not a version")) == (2, 1)
    again = Process("again", program, stack.folder)
    try:
        again.wait_for_port(stack.proxy[1])
        with RawClient(stack.proxy) as client:
            # The limits of before are in force: thirty messages of one address, and no more.
            client.greeted()
            replies = [client.ask(line) for _ in range(31) for line in (b"MAIL FROM:<a@example.com>", b"RSET")][::2]
        assert [reply[:3] for reply in replies] == [b"250"] * 30 + [b"450"]
        assert "version: 3 is not a version" in again.output()
        assert json.loads(kept.read_text())["version"] == version
        stack.edit_policy("limits.yaml", LIMITS)
        wait_until(lambda: '"event": "policies_loaded"' in again.output(), "the repaired policies are loaded")
    finally:
        again.stop()


def test_every_other_command_as_a_process(tmp_path: Path) -> None:
    for name, burst in (("old", 5), ("new", 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(LIMITS.replace("burst: 5", f"burst: {burst}"))
    assert "      burst: 5 -> 6\n" in gatectl("policy", "diff", tmp_path / "old", tmp_path / "new", status=1)
    assert "limits" in json.loads(gatectl("policy", "schema"))["properties"]
    assert gatectl("policy", "check", tmp_path / "old").startswith(f"{tmp_path}/old: valid, ")
    assert "policy" in gatectl("--help")
