"""The store of the token buckets, opened from one URI.

Owns what redis-py must be told so that a Redis that is slow or gone neither stalls a session nor charges
twice: its defaults retry a script that timed out, and each retry charges again (reference/peers.md section
5). Refuses to know buckets: `policy.bucket` keeps them in this process, `redisstore` in Redis.
"""

from __future__ import annotations

from typing import Any, Final, cast
from urllib.parse import unquote

from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, RedisStorage, Storage, storage_from_string
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from smtpgate.clock import Clock
from smtpgate.drivers.metricsports import StoreCounts
from smtpgate.drivers.metricsvalues import Families
from smtpgate.drivers.rediskeys import KEY_PREFIX
from smtpgate.drivers.redisstore import DEFAULT_TIMEOUT, MAX_IN_FLIGHT, Breaker, RedisBuckets
from smtpgate.journal import Journal
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import BucketStore
from smtpgate.policy.storeuri import EXPECTED_STORE, MEMORY, StoreUri, parse_store_uri
from smtpgate.units import InvalidValue

# The flights of RedisBuckets, and as many again whose predecessor is still being closed.
MAX_CONNECTIONS: Final = 2 * MAX_IN_FLIGHT


def open_store(
    uri: str,
    *,
    clock: Clock,
    timeout: float = DEFAULT_TIMEOUT,
    breaker: Breaker | None = None,
    journal: Journal | None = None,
    families: Families | None = None,
) -> BucketStore:
    """The store that `uri` names (conf/proxy.yaml `store`).

    timeout: seconds for each of connect and reply, never retried; the policies' `limiter` may change it. families:
    where decisions are counted. Raises
    ValueError, without any part of the URI, for what `policy.storeuri` or redis-py refuses. Connects to nothing:
    Redis may be down now and come later.
    """
    try:
        store = parse_store_uri(uri)
    except InvalidValue as error:
        raise ValueError(f"store {error}") from None
    if store.scheme == MEMORY:
        return MemoryBuckets(clock)
    opened: RedisStorage | None = None

    def storage(seconds: float) -> RedisStorage:
        return opened if opened is not None and seconds == timeout else open_storage(store, seconds)

    # A cluster's client asks for its nodes when it is made: that has to wait for the first decision.
    if store.scheme != "redis+cluster":
        try:
            opened = open_storage(store, timeout)
        except (ConfigurationError, ValueError, TypeError):
            # Their texts may quote the URI, and with it a password.
            raise ValueError(f"store is refused by the Redis client; expected {EXPECTED_STORE}") from None
    counts = None if families is None else StoreCounts(families)
    return RedisBuckets(storage, clock, timeout=timeout, breaker=breaker, journal=journal, counts=counts)


def bucket_store(storage: Storage, clock: Clock) -> BucketStore:
    """Buckets beside whatever else a `limits` storage keeps. Its timeouts and retries are its owner's choice.

    Raises limits' ConfigurationError for a storage that cannot decide over several keys at once.
    """
    if isinstance(storage, RedisStorage):
        return RedisBuckets(lambda timeout: storage, clock)
    if isinstance(storage, MemoryStorage):
        return MemoryBuckets(clock)
    raise ConfigurationError(f"{type(storage).__name__} has no atomic token buckets; expected Redis or memory")


def open_storage(store: StoreUri, timeout: float) -> RedisStorage:
    """A `limits` storage with our options.

    Raises ConfigurationError, ValueError or TypeError for what the two libraries cannot use; a cluster that is down
    raises redis-py's errors as well.
    """
    options = _client_options(timeout)
    if store.scheme in ("redis+cluster", "redis+sentinel"):
        # `limits` would send them still percent-encoded.
        options.update(username=unquote(store.user) or None, password=unquote(store.password) or None)
    if store.scheme == "redis+cluster":
        options["max_connections"] = MAX_CONNECTIONS
    elif store.scheme == "redis+sentinel":
        # Decisions are the master's: a replica's balance is old.
        options.update(use_replicas=False, sentinel_kwargs=_client_options(timeout))
    else:
        pool = BlockingConnectionPool.from_url(
            store.text.replace("redis+unix", "unix", 1), max_connections=MAX_CONNECTIONS, timeout=timeout, **options
        )
        # Made, not connected: what redis-py does not take would else be raised in the first decision.
        pool.connection_class(**pool.connection_kwargs)
        options = {"connection_pool": pool}
    return cast(RedisStorage, storage_from_string(store.text, key_prefix=KEY_PREFIX, **options))


def _client_options(timeout: float) -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # With RESP3 a server that is being moved may ask for timeouts of 10 s; and RESP2 needs no HELLO.
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
