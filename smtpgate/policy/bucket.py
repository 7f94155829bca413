"""Token buckets: the arithmetic, and a store that keeps them in this process.

A bucket starts full with `burst` tokens and refills evenly at `rate` tokens a second. It is written down as
(tokens, at): what was left, and when. Everything else follows by arithmetic, so a bucket that nobody asks for
costs nothing but its place.

Owns no clock and no lock: code that never waits is atomic among greenlets. The shared twin is
drivers.redisstore; tests/policy/store_contract.py holds both to the same properties.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.store import Charge, Taken

# About 35 MB at worst. Postfix' anvil keeps a record for each client of a minute, HAProxy's documentation
# sizes stick tables at 100k to 1m entries.
DEFAULT_MAX_KEYS: Final = 100_000
# Tokens. A client that waits exactly as long as it was told must pass: 3.0 * 0.1 is short of 0.3 by 6e-17.
SLACK: Final = 1e-9


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


def spend(tokens: float, cost: float, burst: float) -> float:
    """Tokens after `cost`, between 0 and `burst`: a negative cost gives back, and never more than fits."""
    return max(0.0, min(burst, tokens - cost))


class MemoryBuckets:
    """A `policy.store.BucketStore` of at most `max_keys` buckets. Time is `clock.monotonic()`.

    When there is no more room, the bucket that was charged longest ago is forgotten: it is full when it is next asked
    for. Whoever charges `max_keys` others between two charges of a bucket can so have it refilled, and nobody's is
    emptied. The charges of one call have distinct keys.
    """

    def __init__(self, clock: Clock, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys is {max_keys}; expected at least 1")
        self._clock = clock
        self._max_keys = max_keys
        # key -> (tokens, as of when), in the order of their last charges.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

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
            balances = tuple([spend(left, c.cost, c.burst) for left, c in zip(balances, charges, strict=True)])
            for charge, left in zip(charges, balances, strict=True):
                self._write(charge.key, left, now)
        return Taken(waits, balances)

    def _balance(self, charge: Charge, now: float) -> float:
        found = self._buckets.get(charge.key)
        if found is None:
            return charge.burst
        tokens, at = found
        return refill(tokens, now - at, charge.rate, charge.burst)

    def _write(self, key: str, tokens: float, now: float) -> None:
        self._buckets[key] = (tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
