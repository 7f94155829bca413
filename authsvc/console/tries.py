"""How often a login at the console may be tried.

Owns the two limits: for one address, and for all together, since everybody who comes through a tunnel has the address
of this machine. They are token buckets of the limits' own store, so all workers and nodes that share it count
together; while it is away they are counted here. A right password costs a token too: nobody learns from a bucket
whether one was right.
"""

from __future__ import annotations

from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import BucketStore, Charge, StoreUnavailable

# No limit of policies/ has a slash in its name.
LIMIT: Final = "console/login"
# Five at once, then one every 12 s; of all addresses together twice as many. An operator's slips fit, and a guesser
# has 15,000 tries a day.
BURST: Final = 5.0
RATE: Final = 5.0 / 60.0
TOGETHER: Final = 2.0


class Tries:
    """store: where they are counted."""

    def __init__(self, store: BucketStore, clock: Clock) -> None:
        self._store = store
        self._own = MemoryBuckets(clock)

    def take(self, address: str) -> float:
        """Seconds until this address may try; 0.0: it may now, and has."""
        charges = [
            Charge(f"{LIMIT}:{address}", RATE, BURST),
            Charge(f"{LIMIT}:*", RATE * TOGETHER, BURST * TOGETHER),
        ]
        try:
            taken = self._store.take(charges)
        except StoreUnavailable:
            taken = self._own.take(charges)
        return 0.0 if taken.passed else max(taken.waits)
