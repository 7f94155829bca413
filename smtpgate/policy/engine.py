"""The policy engine: plan the charges (pure), ask the store once, judge (pure).

Owns the current policy as one reference: a decision reads it once, so a reload cannot tear it. Owns also what
to do when the store is away: buckets in this process at a share of each rate, so that mail flows and is still
limited. Time comes from the local buckets' clock, chance from `jitter`.

Refuses to know replies on the wire, sessions and files.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts
from smtpgate.policy.rules import Limit, Policy
from smtpgate.policy.store import BucketStore, Charge, StoreUnavailable, Taken

# The part of a wait that chance may add, so that clients told to come back do not come together.
JITTER: Final = 0.1


class StoreMode(enum.Enum):
    """Where the last decision was taken."""

    SHARED = "shared"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of one event that apply to one session, and the charge for each, in the same order."""

    limits: tuple[Limit, ...]
    charges: tuple[Charge, ...]


def plan(policy: Policy, event: Event, facts: Facts) -> Plan:
    """A limit applies where its match is certainly true and its key has all its parts."""
    limits, charges = [], []
    for limit in policy.limits.get(event, ()):
        if limit.match(facts) is not True:
            continue
        subject = limit.key.subject(facts)
        if subject is not None:
            limits.append(limit)
            charges.append(Charge(f"{limit.name}:{subject}", limit.rate, limit.burst))
    return Plan(tuple(limits), tuple(charges))


def judge(planned: Plan, taken: Taken, *, jitter: float, host: str) -> Decision:
    """The denial with the longest wait, so that nobody is told to come back into the next wall.

    jitter: 0.0 to 1.0, how much of JITTER is added to the wait that is told. The refusal is held back for the
    limit's delay; with max_delay, for as long as the bucket needs, but no less and no more than the two.
    """
    if taken.passed:
        return ALLOWED
    index = max(range(len(taken.waits)), key=taken.waits.__getitem__)
    limit, wait = planned.limits[index], taken.waits[index]
    retry = wait * (1.0 + JITTER * jitter)
    delay = limit.delay if limit.max_delay is None else min(max(limit.delay, wait), limit.max_delay)
    return Decision(
        Denial(
            limit=limit.name,
            subject=planned.charges[index].key.removeprefix(f"{limit.name}:"),
            reply=limit.reply.render(limit=limit.name, retry=retry, rate=limit.rate_text, host=host),
            retry=retry,
            delay=delay,
            close=limit.close,
            balance=taken.balances[index],
            source=limit.source,
        )
    )


def share(charges: Sequence[Charge], part: float) -> tuple[Charge, ...]:
    """The same charges at a part of their rate and burst; a burst still pays for one."""
    return tuple(
        replace(charge, rate=charge.rate * part, burst=max(charge.cost, charge.burst * part)) for charge in charges
    )


def _ignore(mode: StoreMode) -> None:
    return None


class Engine:
    """Decides for every session of a process.

    store: where the buckets are kept. clock: for the local buckets. jitter: draws from 0.0 to 1.0. host: our
    name, for {host} in replies. on_mode: told of each change between shared and local buckets, once.
    """

    def __init__(
        self,
        store: BucketStore,
        clock: Clock,
        jitter: Callable[[], float],
        *,
        policy: Policy | None = None,
        host: str = "localhost",
        on_mode: Callable[[StoreMode], None] = _ignore,
    ) -> None:
        self._store = store
        self._local = MemoryBuckets(clock)
        self._jitter = jitter
        self._policy = policy or Policy()
        self._host = host
        self._on_mode = on_mode
        self._mode = StoreMode.SHARED

    @property
    def policy(self) -> Policy:
        return self._policy

    @property
    def mode(self) -> StoreMode:
        return self._mode

    def swap(self, policy: Policy) -> None:
        """From the next decision on. Balances stay; a decision under way keeps the policy it began with."""
        self._policy = policy

    def decide(self, event: Event, facts: Facts, *, debit: bool = True) -> Decision:
        """Charge every limit that applies, or none and say why. With debit=False only look. Never raises.

        One store call at most, and none where no limit applies. May let other greenlets run meanwhile.
        """
        policy = self._policy
        planned = plan(policy, event, facts)
        if not planned.charges:
            return ALLOWED
        try:
            taken = self._store.take(planned.charges, debit=debit)
        except StoreUnavailable:
            # Nothing is known of whether the store charged; it is never asked again for the same event.
            taken = self._local.take(share(planned.charges, policy.local_share), debit=debit)
            self._switch(StoreMode.LOCAL)
        else:
            self._switch(StoreMode.SHARED)
        if taken.passed:
            return ALLOWED
        return judge(planned, taken, jitter=self._jitter(), host=self._host)

    def _switch(self, mode: StoreMode) -> None:
        if mode is not self._mode:
            self._mode = mode
            self._on_mode(mode)
