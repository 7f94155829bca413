"""The operator's view and orders: proxies of two workers each, a real Redis, backends, and gatectl as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from peers.process import HOST, LATE, wait_until
from peers.redis import Redis
from peers.smtptools import SmtpSink
from rawclient import RawClient
from stack import RELAY, Stack, routes

from smtpgate.clock import SystemClock
from smtpgate.drivers.liveboard import open_board
from smtpgate.explain import fleet
from smtpgate.live import INTERVAL, KEEP, STALE, Report, Sighting

ROOT = Path(__file__).parents[2]
GATECTL = ROOT / "tools" / "gatectl"
TAKEN_UP = 2 * INTERVAL + LATE  # seconds within which every worker obeys; the promise of `gatectl drain`

LIMITS = """\
version: 1
limiter: {timeout: 1s}
limits:
  msgs: {event: mail, rate: 1/1d, burst: 3, key: "{sender_domain}", deny: {reply: "450 4.7.1 slow"}}
"""
# A connection is nobody's after a message: where each goes is then the pool's choice. A backend that is given back
# has its whole part at once.
POOL = {"health": {"probe": "off"}, "reuse": {"idle": "0s"}, "slow_start": "0s"}


def sightings(stack: Stack) -> list[Sighting]:
    """What gatectl would be told; to wait for it by asking gatectl is a process a look."""
    state_dir = stack.keys.get("state_dir")
    board = open_board(stack.keys["store"], Path(state_dir) if state_dir else None, SystemClock(), 10.0)
    try:
        return board.sightings()
    finally:
        board.close()


def reports(stack: Stack) -> list[Report]:
    return [one.report for one in sightings(stack) if one.age <= STALE]


def workers(stack: Stack) -> set[int]:
    return {report.pid for report in reports(stack)}


def well(stack: Stack) -> bool:
    """Whether all that workers report agrees: each tells of what it has done in its next report."""
    return fleet.troubles(sightings(stack), STALE) == []


def gatectl(stack: Stack, *arguments: str, status: int = 0, given: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, GATECTL, *arguments],
        input=given,
        env={**os.environ, "SMTPGATE_CONF": str(stack.proxy_conf)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def told(stack: Stack, *arguments: str, status: int = 0) -> Any:
    return json.loads(gatectl(stack, *arguments, "--json", status=status))


def told_status(stack: Stack) -> Any:
    """Whatever its exit status."""
    done = subprocess.run(
        [sys.executable, GATECTL, "status", "--json", "-c", stack.proxy_conf],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout)


def states(stack: Stack) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
    """Of each backend: as what how many workers see it."""
    (pool,) = fleet.pools(reports(stack))
    return [(backend.name, backend.states) for backend in pool.backends]


def send(stack: Stack, sender: str) -> bytes:
    """One message over a connection of its own; the last reply."""
    client = RawClient(stack.proxy).greeted()
    reply = client.ask(f"MAIL FROM:<{sender}>".encode())
    if reply.startswith(b"250 "):
        client.ask(b"RCPT TO:<b@c.example>")
        client.ask(b"DATA")
        reply = client.ask(b"Subject: x\r\n\r\nx\r\n.")
    client.ask(b"QUIT")
    client.close()
    return reply


def backends_used(stack: Stack, messages: int) -> set[str]:
    """By the next messages; two workers divide them as the kernel likes."""
    before = len(stack.log_events("transaction"))
    senders = {f"ann@{before}-{number}.example" for number in range(messages)}
    for sender in senders:
        assert send(stack, sender).startswith(b"250 ")

    def sent() -> list[dict[str, Any]]:
        return [line for line in stack.log_events("transaction") if line["sender"] in senders]

    wait_until(lambda: len(sent()) == messages, f"{messages} messages are logged")
    return {line["backend"] for line in sent()}


@pytest.fixture
def sinks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SmtpSink]]:
    started = [SmtpSink(tmp_path_factory.mktemp("sink")) for _ in range(2)]
    yield started
    for sink in started:
        sink.stop()


def start(start_stack: Callable[..., Stack], sinks: list[SmtpSink], name: str, **settings: Any) -> Stack:
    proxy = {"server_name": name, **settings.pop("proxy", {})}
    return start_stack(
        [(HOST, sink.port) for sink in sinks],
        listeners=[RELAY],
        auth_url=None,
        workers=2,
        policy={"limits.yaml": LIMITS},
        pool=POOL,
        proxy=proxy,
        **settings,
    )


def test_a_site_of_two_nodes(sinks: list[SmtpSink], redis_server: Redis, start_stack: Callable[..., Stack]) -> None:
    """What is seen, what is ordered and what is obeyed, through reloads, a killed worker and a node that is gone."""
    one = start(start_stack, sinks, "one.test", store=redis_server.uri)
    two = start(start_stack, sinks, "two.test", store=redis_server.uri)
    all_pids = {*one.worker_pids(), *two.worker_pids()}
    wait_until(lambda: workers(one) == all_pids, "all workers have reported")

    # Sessions and what limits refuse, from either node.
    held = RawClient(one.proxy).greeted()
    held.ask(b"EHLO \xe2\x80\xae<script>.example")
    held.ask(b"MAIL FROM:<ann@example.com>")
    for _ in range(4):
        send(two, "bob@b.example")
    narrow = ("sessions", "--client", "127.0.0.0/8", "--listener", "relay", "--limit", "5")
    wait_until(lambda: [row.phase for _, row in fleet.sessions(reports(two))] == ["mail"], "the session is told of")
    (session,) = told(two, *narrow)
    assert (session["transactions"], session["user"]) == (1, None)
    assert told(two, "sessions", "--client", "192.0.2.0/24") == []
    assert told(two, "sessions", "--user", "ann*") == []
    wait_until(lambda: fleet.denials(reports(one)) != [], "the refusal is told of")
    (denial,) = told(one, "denials", "--limit", "msgs")
    assert (denial["subject"], denial["at"]) == ("b.example", "mail")
    assert denial["rule"] == f"{two.policies}/limits.yaml:4"
    (subject,) = told(one, "top")
    assert (subject["limit"], subject["subject"], subject["denied"]) == ("msgs", "b.example", 1)
    wait_until(lambda: well(one), "nothing is wrong")
    gatectl(one, "status")

    # An order reaches everybody.
    assert backends_used(one, 6) == {"b1", "b2"}
    assert gatectl(one, "drain", "core/b1", "--by", "ann").startswith("core/b1: drained by ann")
    for stack in (one, two):
        stack.wait_for_event("backend_drained", 2, TAKEN_UP, pool="core", backend="b1", by="ann")
        assert backends_used(stack, 6) == {"b2"}
    gatectl(one, "drain", "core/b9", status=2)

    # It outlasts an edit of the pool, and the worker that took it up.
    for stack in (one, two):
        edited = routes([(HOST, sink.port) for sink in sinks], {**POOL, "balance": "least_conn"})
        stack.edit_policy("routes.yaml", edited)
    for stack in (one, two):
        stack.wait_for_event("policies_loaded", 4)
    assert backends_used(one, 6) == {"b2"}
    killed = one.worker_pids()[0]
    os.kill(killed, signal.SIGKILL)
    one.wait_for_event("backend_drained", 3)
    assert backends_used(one, 6) == {"b2"}
    age(redis_server, killed, STALE + 1)
    wait_until(lambda: len(workers(one)) == 4, "the new worker has reported")
    wait_until(lambda: well(one), "it has been replaced, and all have the edited policies")
    gatectl(one, "status")
    expected = [("b1", (("drain", 4),)), ("b2", (("up", 4),))]
    wait_until(lambda: states(one) == expected, "the new worker has told of the drain")
    (pool,) = told(one, "pools")
    assert [backend["states"] for backend in pool["backends"]] == [[["drain", 4]], [["up", 4]]]
    assert gatectl(two, "undrain", "core/b1") == "core/b1: no longer drained\n"
    one.wait_for_event("backend_undrained", 2, TAKEN_UP)
    assert backends_used(one, 12) == {"b1", "b2"}
    gatectl(two, "undrain", "core/b1", status=1)

    # What is wrong: a broken edit, then a node that has gone without a word.
    one.edit_policy("limits.yaml", "version: 1\nlimit: {}\n")
    wait_until(lambda: not well(one), "the broken edit is told of")
    assert "rejected the policies folder" in gatectl(one, "status", status=1)
    one.edit_policy("limits.yaml", LIMITS)
    wait_until(lambda: well(one), "the edit was mended")
    two.process.kill()
    for pid in all_pids - set(one.worker_pids()) - {killed}:
        age(redis_server, pid, STALE + 1)
    assert gatectl(one, "status", status=1).count("has said nothing for") == 2

    # Who ends as it should takes its report away.
    held.close()
    living = set(one.worker_pids())
    one.stop()
    assert living.isdisjoint(report["pid"] for report in told_status(one)["workers"])
    gatectl(one, "sessions", status=1)


def age(server: Redis, pid: int, seconds: float) -> None:
    """Let a worker's last report be so old: waiting for that would take as long."""
    with redis.Redis.from_url(server.uri) as client:
        for key in client.scan_iter(match=f"smtpgate:report:{{live}}:*/{pid}-*"):
            client.pexpire(key, max(1, int((KEEP - seconds) * 1000)))


def test_one_node_without_a_store(sinks: list[SmtpSink], start_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The same through a folder; and a session as its log has it."""
    state = tmp_path / "state"
    stack = start(start_stack, sinks, "one.test", proxy={"state_dir": str(state)})
    wait_until(lambda: workers(stack) == set(stack.worker_pids()), "all workers have reported")
    send(stack, "ann@example.com")
    (line,) = stack.wait_for_event("session", 1)
    log = str(stack.folder / "proxy.out")
    traced = gatectl(stack, "trace", line["session"], "--log", log)
    assert [text.split()[1] for text in traced.splitlines()] == ["transaction", "session"]
    assert gatectl(stack, "trace", line["session"], given=Path(log).read_text()) == traced
    gatectl(stack, "trace", "0123456789abcdef", "--log", log, status=1)

    gatectl(stack, "drain", "core/b2")
    stack.wait_for_event("backend_drained", 2, TAKEN_UP)
    assert backends_used(stack, 4) == {"b1"}
    assert "b2" in gatectl(stack, "pools")
    gatectl(stack, "undrain", "core/b2")
    stack.wait_for_event("backend_undrained", 2, TAKEN_UP)
    assert stack.stop() == 0
    assert sorted(path.name for path in (state / "live").iterdir()) == ["orders.json"]


def test_mail_flows_while_the_store_is_away(
    sinks: list[SmtpSink], redis_server: Redis, start_stack: Callable[..., Stack]
) -> None:
    """Frozen, which is worse than gone: the order that was read last holds, and gatectl tells of no answer."""
    stack = start(start_stack, sinks, "one.test", store=redis_server.uri)
    gatectl(stack, "drain", "core/b1", "--force")
    stack.wait_for_event("backend_drained", 2)
    redis_server.pause()
    try:
        stack.wait_for_event("reports_down", 2, TAKEN_UP)
        began = time.monotonic()
        assert backends_used(stack, 4) == {"b2"}
        assert time.monotonic() - began < 4 * 2.5 + LATE
        gatectl(stack, "status", status=3)
    finally:
        redis_server.resume()
    stack.wait_for_event("reports_up", 2, TAKEN_UP)
