"""open_store: which URIs it takes, and what it tells the client library."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from fakes import ManualClock
from limits.errors import ConfigurationError
from limits.storage import MemcachedStorage, MemoryStorage, Storage, storage_from_string
from peers.process import HOST, free_port
from peers.redis import Redis
from peers.rediskinds import Cluster

import smtpgate.drivers.store
from smtpgate.clock import SystemClock
from smtpgate.drivers.rediskeys import KEY_PREFIX
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import bucket_store, open_store
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import Charge, StoreUnavailable


def client_of(store: Any) -> Any:
    """The redis-py client that a store would use."""
    storage = store._open_storage(store._timeout)
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
    storage: Any = store._open_storage(store._timeout)
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
    assert time.monotonic() - began < 10.0


def test_a_cluster_may_come_up_later(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, slots=False)
    store: Any = open_store(cluster.uri, clock=SystemClock(), timeout=2.0)
    charges = [Charge("a", 1e-9, 2.0), Charge("b", 1e-9, 3.0)]
    with pytest.raises(StoreUnavailable):
        store.take(charges)
    cluster.serve()
    # Two keys in one script: only the hash tag lets a cluster do that.
    assert store.take(charges).balances == (1.0, 2.0)
    store.close()
    cluster.stop()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "memcached://127.0.0.1:11211",
            "store is not the URI of a store; expected e.g. memory://, redis://127.0.0.1:6379/0",
        ),
        (
            "redis+sentinel://:hunter2@127.0.0.1:26379",
            "store names no service; expected redis+sentinel://host:port,host:port/service",
        ),
        # redis-py reads these; the grammar does not.
        (
            "rediss://:hunter2@127.0.0.1/0?ssl_ca_certs=a&ssl_password=hunter2&ssl_min_version=hunter2",
            "store has an unknown option; expected one of db, client_name, socket_keepalive, ssl_ca_certs, "
            "ssl_ca_path, ssl_certfile, ssl_keyfile, ssl_password, ssl_cert_reqs, ssl_check_hostname",
        ),
    ],
)
def test_what_is_no_store_is_refused_without_its_password(uri: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        open_store(uri, clock=ManualClock())
    assert str(refused.value) == message


def test_what_the_client_library_refuses_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str, **options: object) -> None:
        raise ConfigurationError(f"Unable to parse storage uri {uri}")

    monkeypatch.setattr(smtpgate.drivers.store, "storage_from_string", refuse)
    with pytest.raises(ValueError) as refused:
        open_store("redis+sentinel://:hunter2@127.0.0.1:26379/mymaster", clock=ManualClock())
    expected = "store is refused by the Redis client; expected e.g. memory://, redis://127.0.0.1:6379/0"
    assert (str(refused.value), refused.value.__cause__) == (expected, None)


@pytest.mark.parametrize(
    "uri",
    [
        "redis://127.0.0.1/0?client_name=gate&socket_keepalive=true",
        "rediss://127.0.0.1/?db=1&ssl_ca_certs=/a&ssl_ca_path=/b&ssl_certfile=/c&ssl_keyfile=/d&ssl_password=x",
        "rediss://127.0.0.1?ssl_cert_reqs=none&ssl_check_hostname=false",
        "redis+unix:///run/redis.sock?db=2&client_name=gate",
    ],
)
def test_every_option_of_the_grammar_is_one_of_the_client_library(uri: str) -> None:
    options = client_of(open_store(uri, clock=ManualClock())).connection_pool.connection_kwargs
    given = [option.partition("=")[0] for option in uri.partition("?")[2].split("&")]
    assert set(given) <= set(options)


@pytest.mark.parametrize("scheme", ["redis+sentinel", "redis+cluster"])
def test_user_and_password_are_decoded(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def make(uri: str, **options: Any) -> object:
        made.append(options)
        return object()

    monkeypatch.setattr(smtpgate.drivers.store, "storage_from_string", make)
    path = "/mymaster" if scheme == "redis+sentinel" else ""
    store: Any = open_store(f"{scheme}://ann:s%40crt@192.0.2.1:26379{path}", clock=ManualClock())
    store._open_storage(store._timeout)
    assert (made[0]["username"], made[0]["password"]) == ("ann", "s@crt")


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
