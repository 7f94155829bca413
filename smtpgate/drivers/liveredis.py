"""The live board in the Redis that the limits use: one machine, Sentinel or a cluster. The keys are in `rediskeys`.

Owns the calls: one pipeline a report, two to read all of them, one for an order. A connection of its own, so that no
decision ever waits behind a report. How old a report is, its own expiry tells: no two clocks are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from limits.errors import ConfigurationError
from redis.exceptions import RedisClusterException, RedisError

from smtpgate.clock import Clock
from smtpgate.drivers import rediskeys
from smtpgate.drivers.livejson import order_from_json, order_to_json, report_from_json, report_to_json
from smtpgate.drivers.store import open_storage
from smtpgate.live import KEEP, MAX_ORDERS, MAX_REPORTS, STALE, Order, Report, Sighting
from smtpgate.policy.store import StoreUnavailable
from smtpgate.policy.storeuri import StoreUri

_KEEP_MS: Final = round(KEEP * 1000)
# Of the list of workers: it goes with the last of them, and is never shorter lived than a report in it.
_LIST_KEEP_MS: Final = 2 * _KEEP_MS

T = TypeVar("T")


class RedisBoard:
    """A `liveboard.LiveBoard` in the store. patience: seconds for each of connect and reply."""

    blocking = False

    def __init__(self, store: StoreUri, clock: Clock, patience: float) -> None:
        self.public = store.public
        self._open: Callable[[], Any] = lambda: open_storage(store, patience)
        self._clock = clock
        self._client: Any = None

    def __repr__(self) -> str:
        return f"<RedisBoard {self.public}>"

    def publish(self, report: Report) -> None:
        now = self._clock.now()

        def write(pipe: Any) -> None:
            pipe.set(_key(rediskeys.REPORTS + report.worker), report_to_json(report), px=_KEEP_MS)
            pipe.zadd(_WORKERS, {report.worker: now})
            # Of nodes whose clocks differ: whoever is removed too soon comes back with its next report.
            pipe.zremrangebyscore(_WORKERS, "-inf", now - 2 * KEEP)
            pipe.pexpire(_WORKERS, _LIST_KEEP_MS)

        self._pipeline(write)

    def withdraw(self, report: Report) -> None:
        def write(pipe: Any) -> None:
            pipe.delete(_key(rediskeys.REPORTS + report.worker))
            pipe.zrem(_WORKERS, report.worker)

        self._pipeline(write)

    def sightings(self) -> list[Sighting]:
        # The latest first, of which there may be too many only where something else writes here.
        workers = self._ask(lambda client: client.zrevrange(_WORKERS, 0, MAX_REPORTS - 1))
        keys = [_PREFIX + rediskeys.REPORTS.encode() + worker for worker in workers]
        if not keys:
            return []

        def read(pipe: Any) -> None:
            for key in keys:
                pipe.get(key)
                pipe.pttl(key)

        replies = self._pipeline(read)
        found = [_sighting(text, left) for text, left in zip(replies[::2], replies[1::2], strict=True)]
        kept = [one for one in found if one is not None]
        return sorted(kept, key=lambda one: (one.report.node, one.report.pid, one.report.began))

    def reports(self) -> list[Report]:
        return [one.report for one in self.sightings() if one.age <= STALE]

    def orders(self) -> list[Order]:
        texts = self._ask(lambda client: client.hvals(_ORDERS))
        found = [order for text in texts[:MAX_ORDERS] if (order := order_from_json(text)) is not None]
        return sorted(found, key=lambda order: (order.pool, order.backend))

    def drain(self, pool: str, backend: str, by: str) -> Order:
        order, field = Order(pool, backend, by, self._clock.now()), _field(pool, backend)
        full = self._ask(lambda client: client.hlen(_ORDERS)) >= MAX_ORDERS
        if full and not self._ask(lambda client: client.hexists(_ORDERS, field)):
            raise StoreUnavailable(f"{MAX_ORDERS} orders are in force already")
        self._ask(lambda client: client.hset(_ORDERS, field, order_to_json(order)))
        return order

    def undrain(self, pool: str, backend: str) -> bool:
        return bool(self._ask(lambda client: client.hdel(_ORDERS, _field(pool, backend))))

    def close(self) -> None:
        client, self._client = self._client, None
        pool = getattr(client, "connection_pool", None)
        if pool is not None:
            pool.disconnect()
        elif client is not None:
            client.close()  # a cluster's client has a pool a node

    # --- Redis ---

    def _pipeline(self, say: Callable[[Any], None]) -> list[Any]:
        def run(client: Any) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            say(pipe)
            replies: list[Any] = pipe.execute()
            return replies

        return self._ask(run)

    def _ask(self, question: Callable[[Any], T]) -> T:
        try:
            if self._client is None:
                self._client = self._open().get_connection()
            return question(self._client)
        except (ConfigurationError, ValueError, TypeError):
            # Their texts may quote the URI, and with it a password.
            raise StoreUnavailable("the store is refused by the Redis client") from None
        except (RedisError, RedisClusterException, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from None


def _sighting(text: bytes | None, left: int) -> Sighting | None:
    report = None if text is None else report_from_json(text)
    # -1 is a key without end, which only an operator makes; -2 has ended between the two calls.
    return None if report is None or left < 0 else Sighting(report, max(0.0, (_KEEP_MS - left) / 1000))


def _key(name: str) -> str:
    return f"{rediskeys.KEY_PREFIX}:{name}"


def _field(pool: str, backend: str) -> str:
    """Names have no slash."""
    return f"{pool}/{backend}"


_PREFIX: Final = _key("").encode()
_WORKERS: Final = _key(rediskeys.WORKERS)
_ORDERS: Final = _key(rediskeys.ORDERS)
