"""The port to wherever the buckets are kept.

A store takes all charges of one event at once, all or nothing: when one bucket is short, none is debited
(shared policy.md, "All or nothing"). drivers.redisstore keeps them in Redis, `bucket.MemoryBuckets` in this
process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Charge:
    """One bucket's part in an event.

    key: "<limit>:<subject>", without the store's prefix. rate: tokens a second. burst: the bucket's size in
    tokens. cost: tokens asked for. Rate and burst travel with every charge, so an edited limit keeps its balance.
    """

    key: str
    rate: float
    burst: float
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """The store's answer, in the order of the charges.

    waits: seconds until each bucket could pay; 0.0 where it could now; inf where cost exceeds burst. The event
    passes, and was debited, only when all are 0.0. balances: tokens in each bucket after the call.
    """

    waits: tuple[float, ...]
    balances: tuple[float, ...]

    @property
    def passed(self) -> bool:
        return not any(self.waits)


class StoreUnavailable(Exception):
    """The store gave no answer in time. Nothing is known of whether it was charged; never ask again for it."""


class BucketStore(Protocol):
    def take(self, charges: Sequence[Charge], *, debit: bool = True) -> Taken:
        """Debit every charge, or none. With debit=False only look: would it pass, and what is left.

        Raises StoreUnavailable. May let other greenlets run while it waits.
        """
