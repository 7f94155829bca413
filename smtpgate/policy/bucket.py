"""Token buckets: the arithmetic, and a store that keeps them, slots and bans in this process.

A bucket starts full with `burst` tokens and refills evenly at `rate` tokens a second. It is written down as
(tokens, at): what was left, and when. Everything else follows by arithmetic, so a bucket that nobody asks for
costs nothing but its place.

Owns no clock and no lock: code that never waits is atomic among greenlets. The shared twin is
drivers.redisstore; tests/policy/*_contract.py hold both to the same properties.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.leases import Leases
from smtpgate.policy.model import Slot
from smtpgate.policy.rules import Limiter
from smtpgate.policy.store import (
    LEASE,
    MAX_MEMBERS,
    Ban,
    BanCheck,
    Charge,
    Claim,
    Penalty,
    Taken,
    foremost,
    memory_of,
)

# About 35 MB at worst. Postfix' anvil keeps a record for each client of a minute, HAProxy's documentation
# sizes stick tables at 100k to 1m entries.
DEFAULT_MAX_KEYS: Final = 100_000
# Tokens. A client that waits exactly as long as it was told must pass: 3.0 * 0.1 is short of 0.3 by 6e-17.
SLACK: Final = 1e-9


def refill(tokens: float, elapsed: float, rate: float, burst: float) -> float:
    """Tokens after `elapsed` seconds, at most `burst`. A clock that went back counts as standing still."""
    if elapsed > 0.0:
        tokens += elapsed * rate
    return tokens if tokens < burst else burst


def wait(tokens: float, cost: float, rate: float, burst: float) -> float:
    """Seconds until `cost` can be paid: 0.0 now, inf never (a cost above the burst)."""
    if tokens + SLACK >= cost:
        return 0.0
    if cost > burst or rate <= 0.0:
        return math.inf
    return (cost - tokens) / rate


def spend(tokens: float, cost: float, burst: float) -> float:
    """Tokens after `cost`, between 0 and `burst`: a negative cost gives back, and never more than fits."""
    tokens -= cost
    if tokens <= 0.0:
        return 0.0
    return tokens if tokens < burst else burst


class MemoryBuckets:
    """A `policy.store.BucketStore` of at most `max_keys` buckets, and as many sets of slots, of members and bans.
    Time is `clock.monotonic()`.

    When there is no more room, the bucket that was charged longest ago is forgotten: it is full when it is next asked
    for. Whoever charges `max_keys` others between two charges of a bucket can so have it refilled, and nobody's is
    emptied.
    """

    def __init__(self, clock: Clock, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys is {max_keys}; expected at least 1")
        self._clock = clock
        self._max_keys = max_keys
        # key -> (tokens, as of when), in the order of their last charges.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        # subject -> (until, note), in the order of their making.
        self._bans: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._slots = Leases(max_keys)
        self._members = Leases(max_keys)
        self._notes = Leases(max_keys)

    def __len__(self) -> int:
        return len(self._buckets)

    def __repr__(self) -> str:
        return f"<MemoryBuckets {len(self._buckets)} of at most {self._max_keys}>"

    def take(
        self,
        charges: Sequence[Charge],
        *,
        debit: bool = True,
        count: bool = False,
        claims: Sequence[Claim] = (),
        bans: Sequence[BanCheck] = (),
    ) -> Taken:
        """See BucketStore.take. Never raises StoreUnavailable, never waits."""
        now = self._clock.monotonic()
        costs, balances, waits = [], [], []
        for charge in charges:
            cost = charge.cost if charge.member is None else self._cost(charge, charge.member, now)
            left = self._balance(charge.key, charge.rate, charge.burst, now)
            costs.append(cost)
            balances.append(left)
            waits.append(_wait(charge, left, cost))
        free = [0 if claim.queued else self._places(claim, now) for claim in claims]
        found: tuple[Ban | None, ...] = ()
        banned = False
        if bans:
            found = tuple([self._ban(check.subject, now) for check in bans])
            banned = any(ban.limit in check.limits for ban, check in zip(found, bans, strict=True) if ban is not None)
        longest, refusal = foremost(charges, waits, claims, free) if any(waits) or 0 in free else (0.0, None)
        passed = not banned and refusal is None
        # A refusal whose words the client will not hear yet, because the session may be held, changes nothing at all.
        final = passed or banned or (refusal is not None and longest > refusal.hold)
        escalated: tuple[str, ...] = ()
        if debit:
            self._debit(charges, passed, final, waits, balances, costs, now)
            if passed:
                self._hold(claims, free, now)
        if (debit or count) and final and refusal is not None and not banned:
            escalated = self._punish(charges, waits, claims, free, now)
        return Taken(passed, tuple(waits), tuple(balances), tuple(costs), tuple(free), found, escalated)

    def give(self, charges: Sequence[Charge]) -> None:
        now = self._clock.monotonic()
        for charge in charges:
            if charge.key in self._buckets:
                left = self._balance(charge.key, charge.rate, charge.burst, now)
                self._write(charge.key, spend(left, -charge.cost, charge.burst), now)

    def release(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            self._slots.drop(slot.key, slot.holder)

    def renew(self, slots: Sequence[Slot], lease: float = LEASE) -> None:
        now = self._clock.monotonic()
        for slot in slots:
            self._slots.put(slot.key, slot.holder, now, lease)

    def note(self, key: str, member: str, ttl: float, keep: int) -> None:
        self._notes.put(key, member, self._clock.monotonic(), ttl, keep)

    def seen(self, key: str, member: str) -> bool:
        return self._notes.holds(key, member, self._clock.monotonic())

    def configure(self, limiter: Limiter) -> None:
        """Nothing here waits or breaks."""

    def _ban(self, subject: str, now: float) -> Ban | None:
        found = self._bans.get(subject)
        if found is None:
            return None
        until, note = found
        if until <= now:
            del self._bans[subject]
            return None
        return Ban(until - now, note)

    def _cost(self, charge: Charge, member: str, now: float) -> float:
        return 0.0 if self._members.holds(charge.key, member, now) else charge.cost

    def _balance(self, key: str, rate: float, burst: float, now: float) -> float:
        found = self._buckets.get(key)
        if found is None:
            return burst
        tokens, at = found
        return refill(tokens, now - at, rate, burst)

    def _places(self, claim: Claim, now: float) -> int:
        return max(0, claim.amount - self._slots.count(claim.key, now))

    def _write(self, key: str, tokens: float, now: float) -> None:
        buckets = self._buckets
        buckets[key] = (tokens, now)
        buckets.move_to_end(key)
        if len(buckets) > self._max_keys:
            buckets.popitem(last=False)

    def _debit(
        self,
        charges: Sequence[Charge],
        passed: bool,
        final: bool,
        waits: Sequence[float],
        balances: list[float],
        costs: Sequence[float],
        now: float,
    ) -> None:
        """Bring the balances up to date. Enforced buckets pay together, a shadow's by itself."""
        for index, charge in enumerate(charges):
            cost = costs[index]
            if not cost or waits[index] or not (passed or (charge.shadow and final)):
                continue
            left = balances[index] = spend(balances[index], cost, charge.burst)
            self._write(charge.key, left, now)
            if charge.member is not None:
                self._members.put(charge.key, charge.member, now, memory_of(charge.rate, charge.burst), MAX_MEMBERS)

    def _hold(self, claims: Sequence[Claim], free: Sequence[int], now: float) -> None:
        for claim, places in zip(claims, free, strict=True):
            if places > 0:
                self._slots.put(claim.key, claim.holder, now, LEASE)

    def _punish(
        self,
        charges: Sequence[Charge],
        waits: Sequence[float],
        claims: Sequence[Claim],
        free: Sequence[int],
        now: float,
    ) -> tuple[str, ...]:
        """What the refusals bring about; the keys of those that are escalated."""
        refused: list[Charge | Claim] = [c for c, short in zip(charges, waits, strict=True) if short]
        refused += [claim for claim, places in zip(claims, free, strict=True) if places <= 0]
        return tuple([r.key for r in refused if not r.shadow and r.penalty and self._escalates(r.penalty, now)])

    def _escalates(self, penalty: Penalty, now: float) -> bool:
        escalated, ban, note = False, penalty.ban, penalty.note
        if penalty.after:
            rate = penalty.denials / penalty.within
            left = self._balance(penalty.after, rate, penalty.denials, now)
            escalated = wait(left, 1.0, rate, penalty.denials) > 0.0
            # Whoever goes on finds it empty: else every token that comes back meanwhile would be one mild answer.
            self._write(penalty.after, 0.0 if escalated else spend(left, 1.0, penalty.denials), now)
            if escalated and penalty.after_ban:
                ban, note = penalty.after_ban, penalty.after_note
        standing = self._bans.get(penalty.subject, (now, ""))[0]
        if now + ban > standing:
            self._bans.pop(penalty.subject, None)
            self._bans[penalty.subject] = (now + ban, note)
            if len(self._bans) > self._max_keys:
                self._bans.popitem(last=False)
        return escalated


def _wait(charge: Charge, left: float, cost: float) -> float:
    """Seconds until the bucket can pay; while others are held for it, until there is that much again."""
    seconds = wait(left, cost, charge.rate, charge.burst)
    if charge.queued and cost and not seconds:
        return cost / charge.rate if charge.rate > 0.0 else math.inf
    return seconds
