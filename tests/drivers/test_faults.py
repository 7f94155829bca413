"""A Redis that is killed, stopped, slow, full or failing over under load, each with its bound: mail flows as
`on_error` says, nobody waits, nothing is charged twice, recovery needs nobody, and the log has one line a change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peers.process import HOST
from peers.redis import Redis
from peers.rediskinds import Sentinel

# limiter.timeout of the scenarios, for each of connect and reply; the rest is for a busy machine to run 20 sessions.
BOUND = 2 * 0.15 + 0.3
WELL = {"allow allowed", "local allowed", "tempfail allowed"}
WITHOUT = ("local without", "allow without", "tempfail tempfail")


def check(result: dict[str, Any], *, recovery: float) -> None:
    """What must hold whatever the illness. recovery: seconds until decisions are shared again, at most."""
    assert result["longest"] < BOUND
    assert all(result["ill"].get(outcome, 0) > 10 for outcome in WITHOUT)
    assert set(result["again"]) >= WELL
    assert result["recovery"] < recovery
    assert result["modes"] == ["local", "shared"]
    assert result["lines"] == ["store_down", "store_up"]


def check_silence(result: dict[str, Any]) -> None:
    """Nobody was answered by Redis. A machine that stands still may see a late answer before its timeout: a few."""
    assert sum(count for outcome, count in result["ill"].items() if outcome not in WITHOUT) < 20


def check_charges(result: dict[str, Any]) -> None:
    """What is known to be charged was charged once; what has got no answer, once at most."""
    assert result["shared"] <= result["charged"] <= result["shared"] + result["unknown"]


def test_stopped(redis_server: Redis, fault: Any) -> None:
    result = fault("stopped", uri=redis_server.uri, pid=redis_server.pid).result()
    check(result, recovery=2.0)
    check_silence(result)
    check_charges(result)


def test_killed_and_started_again(redis_server: Redis, fault: Any) -> None:
    argv = [str(word) for word in redis_server._popen.args]  # type: ignore[union-attr]
    result = fault("killed", uri=redis_server.uri, pid=redis_server.pid, argv=argv).result()
    check(result, recovery=4.0)
    check_silence(result)


def test_slow(redis_server: Redis, fault: Any) -> None:
    result = fault("slow", host=HOST, port=redis_server.port).result()
    check(result, recovery=2.0)
    check_silence(result)
    check_charges(result)


def test_full(redis_server: Redis, fault: Any) -> None:
    result = fault("full", uri=redis_server.uri).result()
    check(result, recovery=2.0)
    check_silence(result)
    # Redis refuses the whole script before it has written anything.
    assert result["charged"] == result["shared"]


def test_failing_over(tmp_path: Path, fault: Any) -> None:
    sentinel = Sentinel(tmp_path / "sentinel")
    try:
        result = fault("failing_over", uri=sentinel.uri, pid=sentinel.master.pid).result()
    finally:
        sentinel.stop()
    check(result, recovery=10.0)
    # The replica may lack what the master had just been told; it has nothing twice.
    assert result["charged"] <= result["shared"] + result["unknown"]


@pytest.fixture
def fault(scenario: Any) -> Any:
    """A scenario of fault_scenarios.py."""
    return lambda name, **arguments: scenario(name, script="fault_scenarios.py", **arguments)
