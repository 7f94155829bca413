"""One redis-py client for the URI of a user store: a server, a replicated one behind Sentinels, or a cluster.

Owns what redis-py must be told so that a Redis that is slow or gone ends a look-up in time: its defaults wait for
ever, and retry. The grammar is `smtpgate.policy.storeuri`'s, so that the store of limits and the store of users are
written in one way. Refuses to know users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import ConnectionPool
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel

from authsvc.users.sources import RedisSource
from smtpgate.policy.storeuri import StoreUri, parse_store_uri
from smtpgate.units import InvalidValue

Client = Redis | RedisCluster


def opener(source: RedisSource, timeout: float) -> Callable[[], Client]:
    """How to make the client. timeout: seconds for each of a new connection and a reply.

    Connects to nothing: a cluster's client asks for its nodes when it is made, and raises redis-py's errors then.
    Raises ValueError, without any part of the URI but its servers, for what the grammar or redis-py refuses.
    """
    try:
        store = parse_store_uri(source.uri)
        options = _options(timeout)
        if store.scheme in ("redis+cluster", "redis+sentinel"):
            options |= _account(store)
        if source.password is not None:
            options["password"] = source.password
        if store.scheme == "redis+cluster":
            nodes = [ClusterNode(*server) for server in _servers(store)]  # type: ignore[no-untyped-call] # redis-py has no types here
            return lambda: RedisCluster(startup_nodes=nodes, **options)
        client = _behind_sentinels(store, timeout, options) if store.scheme == "redis+sentinel" else None
        client = client or Redis(connection_pool=_pool(store, options))
    except (InvalidValue, ValueError, TypeError, RedisError):
        # Their texts may quote the URI, and with it a password.
        raise ValueError(f"{source} cannot be read; expected e.g. redis://127.0.0.1:6379/0") from None
    return lambda: client


def _options(timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # A look-up that timed out once would time out again; the client asks again anyway.
        "retry": Retry(NoBackoff(), 0),
        # With RESP3 a server that is being moved may ask for timeouts of 10 s.
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _pool(store: StoreUri, options: dict[str, Any]) -> ConnectionPool:
    """From the URI, which has the options of TLS."""
    pool = ConnectionPool.from_url(store.text.replace("redis+unix", "unix", 1), **options)
    # What the URI says is stronger in redis-py; here the key `password` is.
    pool.connection_kwargs |= options
    # Made, not connected: what redis-py does not take would else be raised in the first look-up.
    pool.connection_class(**pool.connection_kwargs)
    return pool


def _behind_sentinels(store: StoreUri, timeout: float, options: dict[str, Any]) -> Redis:
    """The master's: a replica may not know of a user who was disabled just now."""
    service = store.public.rpartition("/")[2]
    sentinels = Sentinel(_servers(store), sentinel_kwargs=_options(timeout), **options)  # type: ignore[no-untyped-call] # redis-py has no types here
    master: Redis = sentinels.master_for(service)  # type: ignore[no-untyped-call] # redis-py has no types here
    return master


def _account(store: StoreUri) -> dict[str, Any]:
    return {"username": unquote(store.user) or None, "password": unquote(store.password) or None}


def _servers(store: StoreUri) -> list[tuple[str, int]]:
    """host:port,host:port of a URI that `parse_store_uri` took."""
    listed = store.public.partition("://")[2].partition("/")[0]
    pairs = [server.rpartition(":") for server in listed.split(",")]
    return [(host.strip("[]"), int(port)) for host, _, port in pairs]
