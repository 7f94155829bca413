"""Token buckets: the arithmetic, and a store that keeps them in this process.

A bucket starts full with `burst` tokens and refills evenly at `rate` tokens a second. It is written down as
(tokens, at): what was left, and when. Everything else follows by arithmetic, so a bucket that nobody asks for
costs nothing, and one that would be full again need not be kept at all.

Owns no clock and no lock: code that never waits is atomic among greenlets. The shared twin is
drivers.redisstore; tests/policy/store_contract.py holds both to the same properties.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.store import Charge, Taken

# About 35 MB at worst. Postfix' anvil keeps a record for each client of a minute, HAProxy's documentation
# sizes stick tables at 100k to 1m entries.
DEFAULT_MAX_KEYS: Final = 100_000
# Tokens. A client that waits exactly as long as it was told must pass: 3.0 * 0.1 is short of 0.3 by 6e-17.
SLACK: Final = 1e-9
# Entries looked at in one call to drop what is full again, so that no single call pays for all.
SWEEP: Final = 8


def refill(tokens: float, elapsed: float, rate: float, burst: float) -> float:
    """Tokens after `elapsed` seconds, at most `burst`. A clock that went back counts as standing still."""
    return min(burst, tokens + max(0.0, elapsed) * rate)


def wait(tokens: float, cost: float, rate: float, burst: float) -> float:
    """Seconds until `cost` can be paid: 0.0 now, inf never (a cost above the burst)."""
    if tokens + SLACK >= cost:
        return 0.0
    if cost > burst or rate <= 0.0:
        return math.inf
    return (cost - tokens) / rate


class _Bucket:
    """tokens as of `at`; `full_at` is when it will be full, at the rate of its last charge."""

    __slots__ = ("at", "full_at", "tokens")

    def __init__(self, tokens: float, at: float, full_at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.full_at = full_at


class MemoryBuckets:
    """A `policy.store.BucketStore` of at most `max_keys` buckets. Time is `clock.monotonic()`.

    When it is full, the bucket that is closest to full makes room: the least is forgotten, and a stranger
    with many keys drives out only its own (Redis' volatile-ttl does the same where the TTL is the time until
    full). The charges of one call have distinct keys.
    """

    def __init__(self, clock: Clock, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys is {max_keys}; expected at least 1")
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: dict[str, _Bucket] = {}
        # (full_at, key), one entry for each bucket. An entry may be early (the bucket was charged since); it
        # is put right when it comes to the top.
        self._queue: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._buckets)

    def __repr__(self) -> str:
        return f"<MemoryBuckets {len(self._buckets)} of at most {self._max_keys}>"

    def take(self, charges: Sequence[Charge], *, debit: bool = True) -> Taken:
        """See BucketStore.take. Never raises StoreUnavailable, never waits."""
        now = self._clock.monotonic()
        balances = tuple([self._balance(charge, now) for charge in charges])
        waits = tuple([wait(left, c.cost, c.rate, c.burst) for left, c in zip(balances, charges, strict=True)])
        if debit and not any(waits):
            balances = tuple([max(0.0, left - c.cost) for left, c in zip(balances, charges, strict=True)])
            for charge, left in zip(charges, balances, strict=True):
                self._write(charge, left, now)
            self._sweep(now)
        return Taken(waits, balances)

    def _balance(self, charge: Charge, now: float) -> float:
        bucket = self._buckets.get(charge.key)
        if bucket is None:
            return charge.burst
        return refill(bucket.tokens, now - bucket.at, charge.rate, charge.burst)

    def _write(self, charge: Charge, tokens: float, now: float) -> None:
        full_at = now + (charge.burst - tokens) / charge.rate if charge.rate > 0.0 else math.inf
        bucket = self._buckets.get(charge.key)
        if bucket is not None:
            bucket.tokens, bucket.at, bucket.full_at = tokens, now, full_at
            return
        if len(self._buckets) >= self._max_keys:
            self._evict()
        self._buckets[charge.key] = _Bucket(tokens, now, full_at)
        heapq.heappush(self._queue, (full_at, charge.key))

    def _sweep(self, now: float) -> None:
        for _ in range(SWEEP):
            if not self._queue or self._queue[0][0] > now:
                return
            self._drop_first(now)

    def _evict(self) -> None:
        for _ in range(SWEEP):
            if self._drop_first(-math.inf):
                return
        del self._buckets[heapq.heappop(self._queue)[1]]

    def _drop_first(self, now: float) -> bool:
        """Drop the queue's first bucket if its place is right or it is full at `now`; else put it right."""
        listed, key = self._queue[0]
        full_at = self._buckets[key].full_at
        if full_at > listed and full_at > now:
            heapq.heapreplace(self._queue, (full_at, key))
            return False
        heapq.heappop(self._queue)
        del self._buckets[key]
        return True
