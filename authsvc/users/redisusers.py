"""Users in Redis: one hash each, with the names of authsvc.users.userrecord.

    HSET smtpgate:user:test password "{ARGON2ID}$argon2id$…" plan gold enabled 1

Owns the key, the commands, and how many questions there are at once. Fields that mean nothing here stay as they are
when a user is changed. How a server, Sentinels or a cluster are reached is `redisclient`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

from gevent.lock import BoundedSemaphore
from redis import Redis
from redis.exceptions import RedisClusterException, RedisError, WatchError

from authsvc.users import redisclient
from authsvc.users.model import StoreDownError, User
from authsvc.users.redisclient import Client
from authsvc.users.sources import RedisSource
from authsvc.users.userrecord import read_record, write_record

# Seconds for each of a place among the questions, a new connection, and a reply.
TIMEOUT: Final = 2.0
# Questions at once, each with a connection. One takes well under a millisecond.
MAX_ASKING: Final = 4
# Keys that one SCAN looks at: some milliseconds of Redis' only thread.
SCAN_COUNT: Final = 1000

# Redis' glob characters, for a prefix that is meant to the letter.
_GLOB = re.compile(r"([*?\[\]\\])")


class RedisUsers:
    """A RemoteStore and WritableStore. Connects at the first look-up. Raises ValueError for a URI that redis-py
    cannot read, without showing it.
    """

    def __init__(self, source: RedisSource, timeout: float = TIMEOUT) -> None:
        self._prefix = source.prefix.encode("utf-8")
        self._open = redisclient.opener(source, timeout)
        self._client: Client | None = None
        self._timeout = timeout
        self._places = BoundedSemaphore(MAX_ASKING)

    def find(self, login: str) -> User | None:
        """See UserStore.find; by the exact name."""
        with self._asking() as client:
            fields = cast(Mapping[bytes, bytes], client.hgetall(self._key(login)))
        return _user(login, fields)

    def ping(self) -> None:
        """See RemoteStore.ping."""
        with self._asking() as client:
            client.ping()

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade."""
        key = self._key(before.name)
        with self._asking() as client, client.pipeline(transaction=True) as pipeline:
            pipeline.watch(key)
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
        with self._asking() as client, client.pipeline(transaction=True) as pipeline:
            self._write(pipeline, user)
            pipeline.execute()

    def remove(self, name: str) -> bool:
        """See WritableStore.remove."""
        with self._asking() as client:
            return bool(client.delete(self._key(name)))

    def names(self) -> Iterator[str]:
        """See WritableStore.names; in no order. Users that come and go meanwhile may be missed."""
        pattern = _GLOB.sub(r"\\\1", self._prefix.decode("utf-8")) + "*"
        seen: set[str] = set()
        with self._asking() as client:
            for key in client.scan_iter(match=pattern, count=SCAN_COUNT):
                name = cast(bytes, key)[len(self._prefix) :].decode("utf-8", "backslashreplace")
                if name not in seen:
                    seen.add(name)
                    yield name

    def close(self) -> None:
        """Close the connections that nobody uses."""
        if isinstance(self._client, Redis):
            self._client.connection_pool.disconnect(inuse_connections=False)
        elif self._client is not None:
            self._client.close()

    @contextmanager
    def _asking(self) -> Iterator[Client]:
        """The client, while there is a place for one more question. Raises StoreDownError, also for redis-py's."""
        if not self._places.acquire(timeout=self._timeout):
            raise StoreDownError(f"{MAX_ASKING} questions are under way, and none ended in {self._timeout:g} s")
        try:
            if self._client is None:
                # Two first questions may both make one; either will do.
                self._client = self._open()
            yield self._client
        except (RedisError, RedisClusterException, OSError) as error:
            # Its text may be the server's, with whatever the server likes in it: the journal escapes and cuts it.
            raise StoreDownError(f"{type(error).__name__}: {error}") from None
        finally:
            self._places.release()

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
