from __future__ import annotations

from typing import Any

import pytest

from authsvc.users.redisclient import opener
from authsvc.users.sources import RedisSource


def client(uri: str, password: str | None = None) -> Any:
    return opener(RedisSource(uri, password=password), 0.5)()


@pytest.mark.parametrize(
    ("uri", "kind", "where"),
    [
        ("redis://192.0.2.1:6380/3", "Connection", {"host": "192.0.2.1", "port": 6380, "db": 3}),
        ("valkey://ann:s%40crt@192.0.2.1:6380", "Connection", {"username": "ann", "password": "s@crt"}),
        (
            "rediss://redis.example:6380/3?ssl_ca_certs=/etc/ca.pem",
            "SSLConnection",
            {"host": "redis.example", "port": 6380, "ssl_ca_certs": "/etc/ca.pem"},
        ),
        ("valkeys://192.0.2.1", "SSLConnection", {"host": "192.0.2.1"}),
        ("redis+unix:///run/redis.sock?db=2", "UnixDomainSocketConnection", {"path": "/run/redis.sock", "db": 2}),
    ],
)
def test_one_server(uri: str, kind: str, where: dict[str, object]) -> None:
    pool = client(uri).connection_pool
    assert pool.connection_class.__name__ == kind
    options = pool.connection_kwargs
    assert {name: options[name] for name in where} == where
    assert (options["socket_timeout"], options["socket_connect_timeout"], options["protocol"]) == (0.5, 0.5, 2)
    assert pool.connection_class(**options).retry.get_retries() == 0


def test_the_key_password_is_stronger_than_the_uri() -> None:
    options = client("redis://ann:old@192.0.2.1", "new").connection_pool.connection_kwargs
    assert (options["username"], options["password"]) == ("ann", "new")


def test_sentinels_are_asked_for_the_master_within_the_same_times() -> None:
    uri = "redis+sentinel://ann:s%40crt@192.0.2.1:26379,[2001:db8::1]:26380/mail"
    pool = client(uri).connection_pool
    assert (pool.service_name, pool.is_master) == ("mail", True)
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("ann", "s@crt")
    sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in sentinels] == [("192.0.2.1", 26379), ("2001:db8::1", 26380)]
    for options in [pool.connection_kwargs, *sentinels]:
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.5, 0.5)
        assert options["retry"].get_retries() == 0


def test_a_cluster_is_not_asked_before_it_is_needed() -> None:
    assert callable(opener(RedisSource("redis+cluster://192.0.2.1:7000,192.0.2.2:7000"), 0.5))
