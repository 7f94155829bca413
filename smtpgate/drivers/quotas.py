"""The balances in Redis, for an operator: read as of now, reset, topped up.

Owns finding the keys (SCAN in bounded pages, never KEYS, which stops the server for everybody) and what the numbers
behind them mean now: a bucket is written down as of its last charge, and has been refilling since. Refuses to know
what the policy says of a limit, and how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any, Final, TypeVar

from limits.errors import ConfigurationError
from limits.storage import RedisStorage
from redis.exceptions import RedisClusterException, RedisError

from smtpgate.clock import SystemClock
from smtpgate.drivers import rediskeys
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import open_storage
from smtpgate.policy.bucket import refill
from smtpgate.policy.store import AFTER, Charge, StoreUnavailable
from smtpgate.policy.storeuri import MEMORY, parse_store_uri

SCRIPT: Final = files(__package__).joinpath("quotas.lua").read_bytes()
# Seconds for each of connect and reply. Nobody's mail waits for it.
PATIENCE: Final = 2.0
# Keys in one page of SCAN, and in one call that reads them: some 2 ms of Redis' only thread.
PAGE: Final = 500

T = TypeVar("T")


class NotShared(ValueError):
    """The store is memory://: each process has balances of its own, which nobody else can see."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """tokens: now. rate: tokens a second; burst: when full. full_in: seconds until then. denied: refusals since the
    bucket was last full for longer than a moment. limit: with store.AFTER, the bucket of an escalation.
    """

    limit: str
    subject: str
    tokens: float
    burst: float
    rate: float
    full_in: float
    denied: int


@dataclass(frozen=True, slots=True)
class Places:
    """taken: places that are held now. next_in: seconds until the first of them expires, unless it is renewed."""

    limit: str
    subject: str
    taken: int
    next_in: float


@dataclass(frozen=True, slots=True)
class Seen:
    """values: how many of `distinct` are remembered, and cost nothing now."""

    limit: str
    subject: str
    values: int


@dataclass(frozen=True, slots=True)
class Banned:
    """rest: seconds. limit, source: what banned the subject, and the file and line of it."""

    subject: str
    limit: str
    source: str
    rest: float


Item = Bucket | Places | Seen | Banned


@dataclass(frozen=True, slots=True)
class _Kind:
    """A namespace, the name that quotas.lua has for it, and what one of its replies means at the time `now`."""

    namespace: str
    name: str
    read: Callable[[str, Sequence[Any], float], Item | None]


class Quotas:
    """What is kept in the store that `uri` names. Each method raises StoreUnavailable."""

    def __init__(self, uri: str, patience: float = PATIENCE) -> None:
        """Connects to nothing. Raises NotShared for memory://, and ValueError, without any part of the URI, for what
        is no store.
        """
        store = parse_store_uri(uri)
        if store.scheme == MEMORY:
            raise NotShared("memory:// is kept by each process for itself, and nobody else can see it")
        self.public = store.public
        self._patience = patience
        self._open = lambda: open_storage(store, patience)
        self._storage: RedisStorage | None = None
        self._client: Any = None
        self._script: Any = None

    def __repr__(self) -> str:
        return f"<Quotas {self.public}>"

    def find(self, limit: str = "*", subject: str = "*") -> Iterator[Item]:
        """All items whose limit and subject fit, in no order: Redis' patterns, of * ? [a-z] and \\.

        The bucket of an escalation belongs to "<limit>/after"; a ban to the limit that made it.
        """
        pattern = rediskeys.name(limit, subject)
        for kind in (_BUCKETS, _PLACES, _SEEN):
            yield from self._scan(kind, pattern)
        for item in self._scan(_BANS, subject):
            if fnmatchcase(item.limit, limit):
                yield item

    def of(self, limit: str, subject: str) -> list[Item]:
        """What there is of one subject of a limit, bans by it included."""
        name = rediskeys.name(limit, subject)
        after = rediskeys.name(limit + AFTER, subject)
        found = [
            *self._read(_BUCKETS, [name, after]),
            *self._read(_PLACES, [name]),
            *self._read(_SEEN, [name]),
            *self._read(_BANS, [subject]),
        ]
        return [item for item in found if not isinstance(item, Banned) or item.limit == limit]

    def reset(self, limit: str, subject: str) -> int:
        """Forget bucket, escalation, places and values of one subject: the next charge finds a full bucket.

        Bans stay (`unban`). Gives the number of keys that there were.
        """
        name = rediskeys.name(limit, subject)
        return self._delete(
            rediskeys.BUCKETS + name,
            rediskeys.BUCKETS + rediskeys.name(limit + AFTER, subject),
            rediskeys.SLOTS + name,
            rediskeys.DISTINCT + name,
        )

    def grant(self, limit: str, subject: str, tokens: float) -> tuple[Bucket, Bucket] | None:
        """Put tokens into a bucket, as a refund does: in one step, and no more than fit below its burst. The bucket
        before and after; None where there is none, which means that it is full.
        """
        name = rediskeys.name(limit, subject)
        before = self._bucket(name)
        if before is None:
            return None
        storage = self._storage
        assert storage is not None, "the bucket was read from it"
        RedisBuckets(lambda timeout: storage, SystemClock(), timeout=self._patience).give(
            [Charge(name, before.rate, before.burst, tokens)]
        )
        return before, self._bucket(name) or before

    def unban(self, subject: str) -> bool:
        """Lift a ban. False: there was none."""
        return self._delete(rediskeys.BANS + subject) > 0

    def close(self) -> None:
        pool = getattr(self._client, "connection_pool", None)
        if pool is not None:
            pool.disconnect()
        elif self._client is not None:
            self._client.close()  # a cluster's client has a pool a node

    # --- Redis ---

    def _bucket(self, name: str) -> Bucket | None:
        for item in self._read(_BUCKETS, [name]):
            if isinstance(item, Bucket):
                return item
        return None

    def _scan(self, kind: _Kind, pattern: str) -> Iterator[Item]:
        prefix = self._prefix(kind.namespace)
        keys = self._connected().scan_iter(match=_literal(prefix) + pattern, count=PAGE)
        while page := self._ask(lambda: _take(keys, PAGE)):
            names = [octets.decode("utf-8", "backslashreplace").removeprefix(prefix) for octets in page]
            yield from self._read(kind, names)

    def _read(self, kind: _Kind, names: Sequence[str]) -> list[Item]:
        self._connected()
        prefix = self._prefix(kind.namespace)
        now, *replies = self._ask(lambda: self._script([prefix + name for name in names], [kind.name]))
        found = [kind.read(name, reply, float(now)) for name, reply in zip(names, replies, strict=True)]
        return [item for item in found if item is not None]

    def _delete(self, *keys: str) -> int:
        client = self._connected()
        return int(self._ask(lambda: client.delete(*map(self._prefix, keys))))

    def _prefix(self, key: str) -> str:
        return f"{rediskeys.KEY_PREFIX}:{key}"

    def _connected(self) -> Any:
        if self._client is None:
            self._storage = self._ask(self._open)
            self._client = self._storage.get_connection()
            self._script = self._client.register_script(SCRIPT)
        return self._client

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except (ConfigurationError, ValueError, TypeError):
            # Their texts may quote the URI, and with it a password.
            raise StoreUnavailable("the store is refused by the Redis client") from None
        except (RedisError, RedisClusterException, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from None


# --- what a reply means -------------------------------------------------------------------------------------


def _as_bucket(name: str, reply: Sequence[Any], now: float) -> Bucket | None:
    tokens, ts, rate, cap, denied = reply
    if rate is None or cap is None:
        return None
    per_second, burst = float(rate), float(cap)
    left = burst if tokens is None else refill(float(tokens), now - float(ts or now), per_second, burst)
    limit, subject = rediskeys.split(name)
    full_in = (burst - left) / per_second if per_second > 0.0 else math.inf
    return Bucket(limit, subject, left, burst, per_second, full_in, int(denied or 0))


def _as_places(name: str, reply: Sequence[Any], now: float) -> Places | None:
    taken, first = int(reply[0]), reply[1] if len(reply) > 1 else None
    limit, subject = rediskeys.split(name)
    return Places(limit, subject, taken, float(first) - now if first is not None else 0.0) if taken else None


def _as_seen(name: str, reply: Sequence[Any], _now: float) -> Seen | None:
    limit, subject = rediskeys.split(name)
    return Seen(limit, subject, int(reply[0])) if int(reply[0]) else None


def _as_ban(subject: str, reply: Sequence[Any], _now: float) -> Banned | None:
    note, left = reply
    if note is None:
        return None
    limit, _, source = note.decode("utf-8", "backslashreplace").partition(" ")
    # A TTL of -1 is no end, which only an operator writes.
    rest = int(left) / 1000 if int(left) >= 0 else math.inf
    return Banned(subject, limit.removesuffix(AFTER), source, rest)


_BUCKETS: Final = _Kind(rediskeys.BUCKETS, "bucket", _as_bucket)
_PLACES: Final = _Kind(rediskeys.SLOTS, "places", _as_places)
_SEEN: Final = _Kind(rediskeys.DISTINCT, "seen", _as_seen)
_BANS: Final = _Kind(rediskeys.BANS, "ban", _as_ban)


def _take(keys: Iterator[bytes], most: int) -> list[bytes]:
    page = []
    for key in keys:
        page.append(key)
        if len(page) == most:
            break
    return page


def _literal(text: str) -> str:
    """`text` in a pattern of Redis: braces mean nothing there."""
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)
