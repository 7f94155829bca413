"""Users in Redis: one hash each, with the names of authsvc.userrecord.

    HSET smtpgate:user:test password "{ARGON2ID}$argon2id$…" plan gold enabled 1

Owns the key, the commands, and what redis-py must be told so that a Redis that is slow or gone ends a look-up in
time. Fields that mean nothing here stay as they are when a user is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.exceptions import RedisError, WatchError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from authsvc.sources import RedisSource
from authsvc.userrecord import read_record, write_record
from authsvc.users import StoreDownError, User

# Seconds for each of a connection of the pool, a new one, and a reply.
TIMEOUT: Final = 2.0
# The bulkhead lets fewer logins ask at a time, and a look-up has a connection for well under a millisecond.
MAX_CONNECTIONS: Final = 4
# Keys that one SCAN looks at: some milliseconds of Redis' only thread.
SCAN_COUNT: Final = 1000

# Valkey speaks Redis' protocol; redis-py has one name for each transport.
TRANSPORTS: Final[Mapping[str, str]] = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "redis+unix": "unix",
    "valkey+unix": "unix",
}

# Redis' glob characters, for a prefix that is meant to the letter.
_GLOB = re.compile(r"([*?\[\]\\])")


class RedisUsers:
    """A RemoteStore and WritableStore. Connects at the first look-up. Raises ValueError for a URI that redis-py
    cannot read, without showing it.
    """

    def __init__(self, source: RedisSource, timeout: float = TIMEOUT) -> None:
        self._prefix = source.prefix.encode("utf-8")
        scheme, _, rest = source.uri.partition("://")
        try:
            pool = BlockingConnectionPool.from_url(
                f"{TRANSPORTS[scheme]}://{rest}",
                max_connections=MAX_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                # A look-up that timed out once would time out again; the client asks again anyway.
                retry=Retry(NoBackoff(), 0),
                # With RESP3 a server that is being moved may ask for timeouts of 10 s.
                protocol=2,
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
            if source.password is not None:
                pool.connection_kwargs["password"] = source.password
            # Made, not connected: an option that redis-py does not know would else raise in the first look-up.
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError, RedisError):
            raise ValueError(f"{source} cannot be read; expected e.g. redis://127.0.0.1:6379/0") from None
        self._redis = Redis(connection_pool=pool)

    def find(self, login: str) -> User | None:
        """See UserStore.find; by the exact name."""
        with _translated():
            fields = cast(Mapping[bytes, bytes], self._redis.hgetall(self._key(login)))
        return _user(login, fields)

    def ping(self) -> None:
        """See RemoteStore.ping."""
        with _translated():
            self._redis.ping()

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade."""
        key = self._key(before.name)
        with _translated(), self._redis.pipeline() as pipeline:
            pipeline.watch(key)  # type: ignore[no-untyped-call] # as redis-py has it
            fields = cast(Mapping[bytes, bytes], pipeline.hgetall(key))
            if _user(before.name, fields) != before:
                return False
            pipeline.multi()
            self._write(pipeline, after)
            try:
                pipeline.execute()
            except WatchError:
                return False
        return True

    def put(self, user: User) -> None:
        """See WritableStore.put."""
        with _translated(), self._redis.pipeline() as pipeline:
            self._write(pipeline, user)
            pipeline.execute()

    def remove(self, name: str) -> bool:
        """See WritableStore.remove."""
        with _translated():
            return bool(self._redis.delete(self._key(name)))

    def names(self) -> Iterator[str]:
        """See WritableStore.names; in no order. Users that come and go meanwhile may be missed."""
        pattern = _GLOB.sub(r"\\\1", self._prefix.decode("utf-8")) + "*"
        seen: set[str] = set()
        with _translated():
            for key in self._redis.scan_iter(match=pattern, count=SCAN_COUNT):
                name = cast(bytes, key)[len(self._prefix) :].decode("utf-8", "backslashreplace")
                if name not in seen:
                    seen.add(name)
                    yield name

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._redis.connection_pool.disconnect(inuse_connections=False)

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode("utf-8")

    def _write(self, pipeline: Any, user: User) -> None:
        key = self._key(user.name)
        record = write_record(user)
        values = {name: _octets(value) for name, value in record.items() if value is not None}
        pipeline.hset(key, mapping=values)
        gone = [name for name, value in record.items() if value is None]
        if gone:
            pipeline.hdel(key, *gone)


def _octets(value: str | bool) -> bytes:
    return value.encode("utf-8") if isinstance(value, str) else b"%d" % value


def _user(login: str, fields: Mapping[bytes, bytes]) -> User | None:
    """The hash as a user. Its key is the name, whatever a field of that name says."""
    if not fields:
        return None
    record = {name.decode("utf-8", "replace"): value for name, value in fields.items()}
    return read_record(login, record | {"name": login})


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        # Its text may be the server's, with whatever the server likes in it: the journal escapes and cuts it.
        raise StoreDownError(f"{type(error).__name__}: {error}") from None
