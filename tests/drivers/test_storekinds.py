"""Every kind of store that a URI can name holds the same contract: one property test for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.rediskinds import Cluster, Sentinel, TlsRedis

from smtpgate.clock import SystemClock
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import open_store
from tests.policy.event_contract import check_cases, check_events
from tests.policy.store_contract import check_store

KINDS = ["redis", "valkey", "redis+unix", "rediss", "redis+sentinel", "redis+cluster"]


@pytest.fixture(params=KINDS)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    kind = request.param
    if kind in ("redis", "valkey", "redis+unix"):
        server = request.getfixturevalue("redis_server")
        yield server.unix_uri if kind == "redis+unix" else server.uri.replace("redis", kind, 1)
        return
    made: Any = {"rediss": TlsRedis, "redis+sentinel": Sentinel, "redis+cluster": Cluster}[kind]
    peer = made(tmp_path / "peer") if kind != "rediss" else made(_made(tmp_path / "peer"))
    yield peer.uri
    peer.stop()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_contract_of_every_store(uri: str) -> None:
    store = open_store(uri, clock=SystemClock(), timeout=5.0)
    assert isinstance(store, RedisBuckets)
    check_store(lambda: store, SystemClock(), run="r", examples=20, longest_pause=0.01)
    check_events(lambda: store, run="e", examples=25)
    check_cases(lambda: store, run="c")
    store.close()


def test_two_processes_admit_no_more_than_one_would(uri: str, scenario: Any) -> None:
    arguments = {"uri": uri, "greenlets": 25, "each": 4}
    seen = [one.result() for one in [scenario("rush", **arguments) for _ in range(2)]]
    assert sum(result["paid"] for result in seen) == 60
    assert sum(result["held"] for result in seen) == 20
    assert max(result["most"] for result in seen) <= 20
    assert sum(result["left"] for result in seen) == 2 * 25 * 4 * 2 - 60 - 20
