"""open_store: which URIs it takes, and what it tells the client library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fakes import ManualClock
from limits.errors import ConfigurationError
from limits.storage import MemcachedStorage, MemoryStorage, Storage, storage_from_string
from peers.process import HOST, Process, free_port, require, wait_until
from peers.redis import Redis

from smtpgate.clock import SystemClock
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import KEY_PREFIX, bucket_store, open_store
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import Charge, StoreUnavailable


def client_of(store: Any) -> Any:
    """The redis-py client that a store would use."""
    storage = store._open_storage()
    assert storage.prefixed_key("x") == f"{KEY_PREFIX}:x"
    return storage.get_connection()


def test_memory_is_kept_in_this_process_by_the_given_clock() -> None:
    clock = ManualClock()
    store = open_store("memory://", clock=clock)
    assert isinstance(store, MemoryBuckets)
    assert store.take([Charge("a", 1.0, 2.0, 2.0)]).passed
    clock.time += 1.0
    assert store.take([Charge("a", 1.0, 2.0, 2.0)]).waits == (1.0,)


@pytest.mark.parametrize(
    ("uri", "kind", "where"),
    [
        ("redis://192.0.2.1:6380/3", "Connection", {"host": "192.0.2.1", "port": 6380, "db": 3}),
        ("redis://ann:s%40crt@192.0.2.1:6380", "Connection", {"username": "ann", "password": "s@crt"}),
        ("rediss://192.0.2.1:6380/3", "SSLConnection", {"host": "192.0.2.1", "port": 6380, "db": 3}),
        ("redis+unix:///run/redis.sock?db=2", "UnixDomainSocketConnection", {"path": "/run/redis.sock", "db": 2}),
        ("valkey://192.0.2.1:6380/3", "Connection", {"host": "192.0.2.1", "port": 6380, "db": 3}),
        ("valkeys://192.0.2.1:6380/3", "SSLConnection", {"host": "192.0.2.1", "port": 6380}),
        ("valkey+unix:///run/valkey.sock", "UnixDomainSocketConnection", {"path": "/run/valkey.sock"}),
    ],
)
def test_one_server(uri: str, kind: str, where: dict[str, object]) -> None:
    """Bounded, impatient, and never asking twice: redis-py's defaults are none of that."""
    pool = client_of(open_store(uri, clock=ManualClock(), timeout=0.07)).connection_pool
    assert type(pool).__name__ == "BlockingConnectionPool"
    assert (pool.max_connections, pool.timeout) == (4, 0.07)
    assert pool.connection_class.__name__ == kind
    options = pool.connection_kwargs
    assert {name: options[name] for name in where} == where
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.07, 0.07)
    assert pool.connection_class(**options).retry.get_retries() == 0


@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_sentinel_asks_the_master(server: str) -> None:
    store = open_store(f"{server}+sentinel://192.0.2.1:26379,192.0.2.2:26379/mymaster", clock=ManualClock())
    assert isinstance(store, RedisBuckets)
    storage: Any = store._open_storage()
    master = storage.get_connection(readonly=True).connection_pool
    assert (master.service_name, master.is_master) == ("mymaster", True)
    sentinels = storage.sentinel.sentinels
    assert [s.connection_pool.connection_kwargs["host"] for s in sentinels] == ["192.0.2.1", "192.0.2.2"]
    for options in [master.connection_kwargs, *(s.connection_pool.connection_kwargs for s in sentinels)]:
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.05, 0.05)
        assert options["retry"].get_retries() == 0


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
def test_a_server_that_is_down_at_start_is_no_error(scheme: str) -> None:
    path = "/mymaster" if scheme == "redis+sentinel" else ""
    store = open_store(f"{scheme}://{HOST}:{free_port()}{path}", clock=SystemClock())
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.take([Charge("a", 1.0, 1.0)])
    assert time.monotonic() - began < 2.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Process]:
    """A cluster of one node that serves no slot yet."""
    port = free_port()
    options = {"cluster-enabled": "yes", "cluster-port": free_port(), "save": "", "dir": tmp_path}
    options |= {"bind": HOST, "port": port, "protected-mode": "no"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    node = Process("cluster", [require("redis-server"), *words], tmp_path)
    node.wait_for_port(port)
    node.port = port  # type: ignore[attr-defined]
    yield node
    node.stop()


def test_a_cluster_may_come_up_later(cluster: Any) -> None:
    store: Any = open_store(f"redis+cluster://{HOST}:{cluster.port}", clock=SystemClock(), timeout=2.0)
    charges = [Charge("a", 1e-9, 2.0), Charge("b", 1e-9, 3.0)]
    with pytest.raises(StoreUnavailable):
        store.take(charges)
    with redis.Redis(HOST, cluster.port) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
        wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", "the cluster is up")
    # Two keys in one script: only the hash tag lets a cluster do that.
    assert store.take(charges).balances == (1.0, 2.0)
    store._script.registered_client.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("memcached://127.0.0.1:11211", "store has the scheme 'memcached'; expected memory://, redis://"),
        ("async+redis://127.0.0.1:6379", r"store has the scheme 'async\+redis'; expected memory://"),
        ("127.0.0.1:6379", "store has the scheme ''; expected memory://"),
        ("redis://:hunter2/x@127.0.0.1:6379", "store redis:// cannot be read; expected memory://"),
        ("redis://:hunter2@127.0.0.1:port/0", "store redis:// cannot be read; expected memory://"),
        ("redis://127.0.0.1/0?socket_timeout=soon", "store redis:// cannot be read; expected memory://"),
        ("redis://127.0.0.1/0?colour=red", "store redis:// has an unknown option: .*'colour'"),
        ("redis+cluster://:hunter2@127.0.0.1", "store has the server '127.0.0.1'; expected memory://"),
        ("redis+cluster://:hunter2@127.0.0.1:1,:2", "store has the server ':2'; expected memory://"),
        ("redis+sentinel://127.0.0.1:²/mymaster", "store has the server '127.0.0.1:²'; expected memory://"),
        ("redis+sentinel://:hunter2@127.0.0.1:26379", r"store redis\+sentinel:// cannot be read; expected"),
    ],
)
def test_what_is_no_store_is_refused_without_its_password(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        open_store(uri, clock=ManualClock())
    assert "hunter2" not in str(refused.value)


def test_buckets_on_somebody_elses_storage(redis_server: Redis) -> None:
    storage = storage_from_string(redis_server.uri, key_prefix="theirs")
    assert isinstance(storage, Storage)
    store = bucket_store(storage, SystemClock())
    assert store.take([Charge("a", 1e-9, 2.0)]).balances == (1.0,)
    assert storage.get_connection().keys("*") == [b"theirs:tb:{rl}:a"]  # type: ignore[attr-defined]
    storage.get_connection().close()  # type: ignore[attr-defined]


def test_a_storage_without_scripts_is_refused() -> None:
    assert isinstance(bucket_store(MemoryStorage(), ManualClock()), MemoryBuckets)
    memcached = MemcachedStorage.__new__(MemcachedStorage)  # the client library need not be installed
    with pytest.raises(ConfigurationError, match="MemcachedStorage has no atomic token buckets"):
        bucket_store(memcached, ManualClock())
