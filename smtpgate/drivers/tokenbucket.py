"""The same buckets as a `limits` strategy, for code that already speaks `limits` (Flask-Limiter, own tools).

Owns the translation of a RateLimitItem into a charge. Registers nothing in `limits`: a subclass with a scheme
or a granularity would replace the stock one for the whole process (reference/peers.md section 5).
"""

from __future__ import annotations

import math

from limits import RateLimitItem, WindowStats
from limits.storage import Storage
from limits.strategies import RateLimiter

from smtpgate.clock import Clock, SystemClock
from smtpgate.drivers.store import bucket_store
from smtpgate.policy.store import Charge


class TokenBucketRateLimiter(RateLimiter):
    """`limits` items as buckets: "10 per minute" is a bucket of 10 tokens that refills evenly at 10 a minute.

    Works on any Redis storage of `limits`, and on its memory storage (the buckets are then this object's
    own). Raises StoreUnavailable from every method when the storage does not answer.
    """

    def __init__(self, storage: Storage, clock: Clock | None = None) -> None:
        super().__init__(storage)
        self._clock = clock or SystemClock()
        self._buckets = bucket_store(storage, self._clock)

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Take `cost` tokens, or none. A refused hit costs nothing."""
        return self._buckets.take([_charge(item, identifiers, cost)]).passed

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Whether hit() would succeed now."""
        return self._buckets.take([_charge(item, identifiers, cost)], debit=False).passed

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """reset_time: when the bucket will be full, Unix seconds. remaining: whole tokens in it now."""
        full = self._buckets.take([_charge(item, identifiers, item.amount)], debit=False)
        return WindowStats(self._clock.now() + full.waits[0], math.floor(full.balances[0]))

    def clear(self, item: RateLimitItem, *identifiers: str) -> None:
        """Fill the bucket."""
        self._buckets.take([_charge(item, identifiers, -item.amount)])


def _charge(item: RateLimitItem, identifiers: tuple[str, ...], cost: int) -> Charge:
    """`item.key_for` names the amount in the key, so that an edited limit would start with a full bucket.
    Here the key names the period only, which keeps "10 per minute" and "100 per hour" of one subject apart.
    """
    period = f"{item.multiples} {item.GRANULARITY.name}"
    return Charge(
        key=f"{item.namespace}/{period}:{'/'.join(identifiers)}",
        rate=item.amount / item.get_expiry(),
        burst=float(item.amount),
        cost=float(cost),
    )
