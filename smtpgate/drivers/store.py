"""The store of the token buckets, opened from one URI.

Owns what redis-py must be told so that a Redis that is slow or gone neither stalls a session nor charges
twice: its defaults retry a script that timed out, and each retry charges again (reference/peers.md section
5). Refuses to know buckets: `policy.bucket` keeps them in this process, `redisstore` in Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, RedisStorage, Storage, storage_from_string
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from smtpgate.clock import Clock
from smtpgate.drivers.redisstore import DEFAULT_TIMEOUT, MAX_IN_FLIGHT, Breaker, RedisBuckets
from smtpgate.journal import Journal
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import BucketStore

KEY_PREFIX: Final = "smtpgate"
# The flights of RedisBuckets, and as many again whose predecessor is still being closed.
MAX_CONNECTIONS: Final = 2 * MAX_IN_FLIGHT

# Valkey speaks Redis' protocol, so one client library serves both and one need not be installed.
_FAMILIES: Final = ("", "+unix", "+sentinel", "+cluster")
SCHEMES: Final[Mapping[str, str]] = {
    "rediss": "rediss",
    "valkeys": "rediss",
    **{server + family: "redis" + family for server in ("redis", "valkey") for family in _FAMILIES},
}
EXPECTED: Final = (
    "expected memory://, redis://host:port/db, rediss://host:port/db, redis+unix:///path?db=0, "
    "redis+sentinel://host:port,host:port/service, redis+cluster://host:port,host:port, "
    "or valkey in place of redis"
)


def open_store(
    uri: str,
    *,
    clock: Clock,
    timeout: float = DEFAULT_TIMEOUT,
    breaker: Breaker | None = None,
    journal: Journal | None = None,
) -> BucketStore:
    """The store that `uri` names (conf/proxy.yaml `store`).

    timeout: seconds for each of connect and reply, never retried. Raises ValueError, without the URI's
    password, for a URI that names no store. Connects to nothing: Redis may be down now and come later.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "memory":
        return MemoryBuckets(clock)
    if scheme not in SCHEMES:
        raise ValueError(f"store has the scheme {scheme!r}; {EXPECTED}")
    uri = SCHEMES[scheme] + uri[len(scheme) :]
    if SCHEMES[scheme] in ("redis+cluster", "redis+sentinel"):
        _check_locations(uri)
    opened: RedisStorage | None = None
    # A cluster's client asks for its nodes when it is made: that has to wait for the first decision.
    if SCHEMES[scheme] != "redis+cluster":
        try:
            opened = _open(uri, timeout)
        except (ConfigurationError, ValueError):
            # Their texts may quote the URI, and with it a password.
            raise ValueError(f"store {scheme}:// cannot be read; {EXPECTED}") from None
        except TypeError as error:
            raise ValueError(f"store {scheme}:// has an unknown option: {error}") from None
    return RedisBuckets(
        lambda: opened or _open(uri, timeout), clock, timeout=timeout, breaker=breaker, journal=journal
    )


def bucket_store(storage: Storage, clock: Clock) -> BucketStore:
    """Buckets beside whatever else a `limits` storage keeps. Its timeouts and retries are its owner's choice.

    Raises limits' ConfigurationError for a storage that cannot decide over several keys at once.
    """
    if isinstance(storage, RedisStorage):
        return RedisBuckets(lambda: storage, clock)
    if isinstance(storage, MemoryStorage):
        return MemoryBuckets(clock)
    raise ConfigurationError(f"{type(storage).__name__} has no atomic token buckets; expected Redis or memory")


def _open(uri: str, timeout: float) -> RedisStorage:
    """A `limits` storage with our options.

    Raises ConfigurationError or ValueError for its URI, TypeError for an unknown option in it; a cluster that
    is down raises redis-py's errors as well.
    """
    options = _client_options(timeout)
    scheme = urlsplit(uri).scheme
    if scheme == "redis+cluster":
        options["max_connections"] = MAX_CONNECTIONS
    elif scheme == "redis+sentinel":
        # Decisions are the master's: a replica's balance is old.
        options.update(use_replicas=False, sentinel_kwargs=_client_options(timeout))
    else:
        pool = BlockingConnectionPool.from_url(
            uri.replace("redis+unix", "unix", 1), max_connections=MAX_CONNECTIONS, timeout=timeout, **options
        )
        # Made, not connected: an option that redis-py does not know would else raise in the first decision.
        pool.connection_class(**pool.connection_kwargs)
        options = {"connection_pool": pool}
    return cast(RedisStorage, storage_from_string(uri, key_prefix=KEY_PREFIX, **options))


def _check_locations(uri: str) -> None:
    """Raises ValueError unless the URI names its servers as a comma list of host:port."""
    for location in urlsplit(uri).netloc.rpartition("@")[2].split(","):
        host, _, port = location.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            raise ValueError(f"store has the server {location!r}; {EXPECTED}")


def _client_options(timeout: float) -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # With RESP3 a server that is being moved may ask for timeouts of 10 s; and RESP2 needs no HELLO.
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
