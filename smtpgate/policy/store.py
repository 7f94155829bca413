"""The port to wherever the balances are kept.

One `take` decides a whole event: the bans, buckets and slots of all its limits, all or nothing. When one of those
that are enforced refuses, none of them is debited or held (shared policy.md, "All or nothing"). What a refusal brings
about (it is counted, it escalates, it bans) happens in the same call. drivers.redisstore keeps all of it in Redis,
`bucket.MemoryBuckets` in this process; tests/policy/*_contract.py hold both to the same properties.

Owns the words of that call. Refuses to know limits' meanings, replies and sessions. Keys are "<limit>:<subject>",
without a store's prefix; ban keys are subjects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from smtpgate.policy.model import Slot
from smtpgate.policy.rules import Limiter

# Seconds that a slot is held without being renewed: three renewals of 20 s may be lost. A dead node's places are free
# after as long (reference/peers.md section 5).
LEASE: Final = 60.0
# Seconds until it is worth asking for a slot again. Nobody knows when a session ends.
SLOT_WAIT: Final = 1.0
# Behind a limit's name, which has no slash: the bucket that counts its refusals, and a ban that came of them.
AFTER: Final = "/after"
# Values of one `distinct` that are remembered; the oldest makes room. A bucket lets pass no more than twice its burst
# within the time for which it remembers, so only bursts above 512 meet it.
MAX_MEMBERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Penalty:
    """What a refusal brings about besides.

    ban: seconds for which `subject` is banned; note: the ban's value, "<limit> <source>". after: the key of the
    bucket that counts refusals, "" for none: the one that follows `denials` of them `within` seconds is escalated. It
    bans for after_ban seconds, if that is set; after_note: "<limit>/after <source>".
    """

    subject: str
    note: str
    ban: float = 0.0
    after: str = ""
    denials: float = 0.0
    within: float = 0.0
    after_ban: float = 0.0
    after_note: str = ""


@dataclass(frozen=True, slots=True)
class Charge:
    """One bucket's part in an event.

    rate: tokens a second. burst: the bucket's size in tokens. cost: tokens asked for. Rate and burst travel with
    every charge, so an edited limit keeps its balance.

    shadow: it is taken on its own account, and refuses nothing. member: a value that costs nothing where this bucket
    has remembered it; it does for as long as an empty bucket takes to fill. hold: seconds; a refusal that need not
    wait for longer brings nothing about, because the session may be held instead. queued: others are held for this
    bucket, so it refuses whoever comes now.
    """

    key: str
    rate: float
    burst: float
    cost: float = 1.0
    shadow: bool = False
    member: str | None = None
    hold: float = 0.0
    queued: bool = False
    penalty: Penalty | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """One place of `amount`, for `holder`, for LEASE seconds or until it is renewed. The rest as in Charge (queued:
    as if no place were free), but a place of a shadow limit too is taken only where the event passes: a refused
    session is not there to give it back.
    """

    key: str
    amount: int
    holder: str
    shadow: bool = False
    hold: float = 0.0
    queued: bool = False
    penalty: Penalty | None = None


@dataclass(frozen=True, slots=True)
class BanCheck:
    """Is `subject` banned? Only by one of `limits` does that refuse the event."""

    subject: str
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ban:
    """A ban that was found. rest: seconds. note: as the Penalty had it."""

    rest: float
    note: str

    @property
    def limit(self) -> str:
        return self.note.partition(" ")[0].removesuffix(AFTER)

    @property
    def escalated(self) -> bool:
        return self.note.partition(" ")[0].endswith(AFTER)


@dataclass(frozen=True, slots=True)
class Taken:
    """The store's answer, in the order of the question.

    passed: everything that is enforced could be paid and held; with debit=True it now is. waits: seconds until each
    bucket could pay; 0.0 where it could now; inf where cost exceeds burst. balances: tokens in each bucket after the
    call. costs: what each charge came to, 0.0 for a member seen before. free: places of each claim before the call;
    0: none, also for who comes behind others. bans: None where there is none. escalated: keys of the charges and
    claims whose refusal is escalated.
    """

    passed: bool
    waits: tuple[float, ...] = ()
    balances: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()
    free: tuple[int, ...] = ()
    bans: tuple[Ban | None, ...] = ()
    escalated: tuple[str, ...] = ()


NOTHING: Final = Taken(passed=True)


def foremost(
    charges: Sequence[Charge], waits: Sequence[float], claims: Sequence[Claim], free: Sequence[int]
) -> tuple[float, Charge | Claim | None]:
    """The enforced refusal with the longest wait, so that nobody is told to come back into the next wall; or none.

    It gives the client its words. If it may be held, the refusal brings nothing about yet.
    """
    longest: float = 0.0
    item: Charge | Claim | None = None
    for charge, wait in zip(charges, waits, strict=True):
        if wait > longest and not charge.shadow:
            longest, item = wait, charge
    if longest < SLOT_WAIT:
        for claim, places in zip(claims, free, strict=True):
            if places <= 0 and not claim.shadow:
                return SLOT_WAIT, claim
    return longest, item


def memory_of(rate: float, burst: float) -> float:
    """Seconds for which a bucket remembers a member: until it would be full, had it been empty."""
    return burst / rate if rate > 0.0 else math.inf


class StoreUnavailable(Exception):
    """The store gave no answer in time. Nothing is known of whether it was charged; never ask again for it."""


class BucketStore(Protocol):
    """Every method raises StoreUnavailable, and waits no longer than its patience. May let other greenlets run."""

    def take(
        self,
        charges: Sequence[Charge],
        *,
        debit: bool = True,
        count: bool = False,
        claims: Sequence[Claim] = (),
        bans: Sequence[BanCheck] = (),
    ) -> Taken:
        """Debit every charge and hold every claim, or none. With debit=False only look: would it pass, and what is
        left. Then nothing is written; with count=True a refusal counts as if it had been one. Charges have distinct
        keys, and so have claims.
        """

    def give(self, charges: Sequence[Charge]) -> None:
        """Put `cost` back into each bucket, up to its burst."""

    def release(self, slots: Sequence[Slot]) -> None:
        """Give places back. One that is not held any more is no error."""

    def renew(self, slots: Sequence[Slot], lease: float = LEASE) -> None:
        """These places are held for `lease` seconds from now, also where the store has forgotten them."""

    def note(self, key: str, member: str, ttl: float, keep: int) -> None:
        """Remember `member` under `key` for ttl seconds; only the `keep` that were noted last stay."""

    def seen(self, key: str, member: str) -> bool:
        """Is `member` still remembered under `key`?"""

    def configure(self, limiter: Limiter) -> None:
        """New timeouts and breaker, from the next call on."""
