"""The policy engine: select the limits, plan (pure), ask the store once, judge (pure).

Owns the current policy as one reference: a decision reads it once, so a reload cannot tear it. Owns also what to do
when the store is away (each limit's `on_error`), the slots that this process holds, and the counters. Time comes from
`clock`, chance from `jitter`.

Refuses to know replies on the wire, sessions and files.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.bills import Bills
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.judge import away, judge
from smtpgate.policy.model import ALLOWED, Decision, Event, Facts, Paid, Shape, Slot
from smtpgate.policy.newkeys import NewKeys
from smtpgate.policy.plan import Asking, Plan, plan, share, without_store
from smtpgate.policy.rules import Limit
from smtpgate.policy.select import Policy, bans, select
from smtpgate.policy.store import NOTHING, BucketStore, Charge, StoreUnavailable

# Slots in one call of renew: some 2 ms of Redis' only thread.
RENEW_BATCH: Final = 256
# Seconds without a failure before the mode is told to be shared again: one call in a hundred that is late must not
# write a line at each.
SETTLE: Final = 1.0
_HOLDER_OCTETS: Final = 8
_USUALLY: Final = Asking()


class StoreMode(enum.Enum):
    """Where decisions are taken; local as long as the store's last failure is not SETTLE seconds ago."""

    SHARED = "shared"
    LOCAL = "local"


@dataclass(slots=True)
class Counts:
    """Of one limit, since this process started or the limit came. held_seconds: sessions together."""

    checked: int = 0
    denied: int = 0
    held_seconds: float = 0.0
    shadow_denied: int = 0
    refunded: int = 0


def _ignore(mode: StoreMode) -> None:
    return None


def _nobody(key: str) -> bool:
    return False


class Engine:
    """Decides for every session of a process.

    store: where the balances are kept. clock: for the local ones. jitter: draws from 0.0 to 1.0. host: our name, for
    {host} in replies. on_mode: told of each change between shared and local, once. token: (octets) -> random hex, for
    the names of slots' holders; two processes on one store must not draw the same. waiting: is a session held for
    this bucket?
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
        token: Callable[[int], str] | None = None,
        waiting: Callable[[str], bool] = _nobody,
    ) -> None:
        self._store = store
        self._clock = clock
        self._local = MemoryBuckets(clock)
        self._jitter = jitter
        self._host = host
        self._on_mode = on_mode
        self._waiting = waiting
        # 53 random bits where nobody gave a better source.
        self._node = f"{int(jitter() * 2**53):014x}" if token is None else token(_HOLDER_OCTETS)
        self._numbers = itertools.count(1)
        self._new_keys = NewKeys()
        self._bills = Bills()
        self._held: dict[Slot, None] = {}
        self._mode = StoreMode.SHARED
        self._failed_at = 0.0
        self._counters: dict[str, Counts] = {}
        self._policy = Policy()
        if policy is not None:
            self.swap(policy)

    @property
    def policy(self) -> Policy:
        return self._policy

    @property
    def mode(self) -> StoreMode:
        return self._mode

    @property
    def counters(self) -> Mapping[str, Counts]:
        """By the name of the limit: those of the current policy, as far as they were ever asked."""
        return self._counters

    @property
    def held(self) -> int:
        """Slots that this process holds."""
        return len(self._held)

    def swap(self, policy: Policy) -> None:
        """From the next decision on. Balances stay; a decision under way keeps the policy it began with."""
        self._policy = policy
        self._bills = Bills()
        self._store.configure(policy.limiter)
        names = {limit.name for limits in policy.limits.values() for limit in limits}
        for name in self._counters.keys() - names:
            del self._counters[name]

    # --- deciding ---

    def decide(
        self,
        event: Event,
        facts: Facts,
        *,
        debit: bool = True,
        count: bool = True,
        turn: bool = False,
        hold: float | None = None,
        slots: bool = True,
    ) -> Decision:
        """Charge every limit that applies, or none and say why. Never raises.

        One store call at most, and none where no limit applies. May let other greenlets run meanwhile, no longer than
        the store is patient.

        debit: False takes nothing, whatever the answer. count: False, with debit=False, is a look that changes
        nothing at all; else a refusal counts, escalates and bans as any other. turn: the session is the first of
        those that are held; whoever else comes finds a bucket short that somebody is held for. hold: seconds that the
        session is willing to be held, at most, where a limit offers that; None is as the limit offers, and none at
        its turn. A denial with hold > 0 is not counted yet, and brings nothing about: the session is to wait and to
        ask again, with hold=0.0 if it will not wait. slots: False leaves concurrency limits out, for those who cannot
        tell when a session ends.
        """
        policy = self._policy
        if event not in policy.asked:
            return ALLOWED
        limits = select(policy, event, facts)
        banning = bans(policy, event, facts)
        if not limits and not banning:
            return ALLOWED
        asking = _USUALLY if slots and not turn and hold is None else Asking(turn, hold, slots)
        planned = self._plan(policy, event, facts, limits, banning, asking)
        decision = self._ask(policy, planned, debit=debit, count=count)
        if decision.slots:
            self._keep(decision.slots)
        if debit or (count and not decision.allowed):
            self._count(planned, decision)
        return decision

    def _plan(
        self,
        policy: Policy,
        event: Event,
        facts: Facts,
        limits: Sequence[Limit],
        banning: Sequence[Limit],
        asking: Asking,
    ) -> Plan:
        return plan(
            event,
            facts,
            limits,
            banning,
            subject_of=self._new_keys.chooser(facts, policy.limiter, self._clock.monotonic()),
            waiting=self._waiting,
            holder=self._holder,
            asking=asking,
            bill_of=self._bills.of,
        )

    def _holder(self) -> str:
        return f"{self._node}:{next(self._numbers)}"

    def _ask(self, policy: Policy, planned: Plan, *, debit: bool, count: bool) -> Decision:
        taken = NOTHING
        if planned.asks:
            try:
                taken = self._store.take(
                    planned.charges, debit=debit, count=count, claims=planned.claims, bans=planned.checks
                )
            except StoreUnavailable:
                # Nothing is known of whether the store charged; it is never asked again for the same event.
                self._failed()
                return self._ask_here(policy, planned, debit=debit, count=count)
            self._answered()
        return judge(planned, taken, jitter=self._jitter(), host=self._host, debit=debit)

    def _ask_here(self, policy: Policy, planned: Plan, *, debit: bool, count: bool) -> Decision:
        """The store is away: `on_error` of each limit says what it does without."""
        limiter = policy.limiter
        denial = away(planned, retry=limiter.breaker.open_for, jitter=self._jitter(), host=self._host)
        if denial is not None:
            return Decision(denial)
        planned = without_store(planned, limiter.local_share)
        taken = self._local.take(
            planned.charges, debit=debit, count=count, claims=planned.claims, bans=planned.checks
        )
        return judge(planned, taken, jitter=self._jitter(), host=self._host, debit=debit, local=True)

    def draw(self, shape: Shape, octets: int) -> float:
        """Pay for `octets` of a message: 0.0 if they are paid, else seconds until they could be. Never raises.

        What is above the burst is paid as the burst: ask for less at a time.
        """
        charge = Charge(shape.key, shape.rate, shape.burst, min(float(octets), shape.burst))
        try:
            wait = self._store.take([charge]).waits[0]
        except StoreUnavailable:
            self._failed()
            if not shape.local:
                return 0.0
            wait = self._local.take(share([charge], self._policy.limiter.local_share)).waits[0]
        else:
            self._answered()
        return wait

    # --- giving back ---

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None:
        """Give back what decisions have debited. Never raises; where the store is away, it is lost.

        ours: it was our fault (no mail server, or it was lost). Else the mail server refused, and only limits that
        say `refund: rejected` give back.
        """
        due = [one for one in paid if ours or one.rejected]
        here = [_charge(one) for one in due if one.local]
        shared = [_charge(one) for one in due if not one.local]
        if here:
            self._local.give(here)
        if shared:
            try:
                self._store.give(shared)
            except StoreUnavailable:
                self._failed()
                due = [one for one in due if one.local]
            else:
                self._answered()
        for one in due:
            self._counts(one.limit).refunded += 1

    def release(self, slots: Sequence[Slot]) -> None:
        """Give places back. Never raises; what the store does not hear of comes true when the lease ends."""
        for slot in slots:
            self._held.pop(slot, None)
        if slots:
            self._local.release(slots)
            try:
                self._store.release(slots)
            except StoreUnavailable:
                self._failed()

    def renew(self) -> None:
        """Extend the leases of all slots that this process holds; to be called well within LEASE. Never raises.

        Places that the store has forgotten, or never knew because it was away, it knows again.
        """
        for batch in _batched(list(self._held), RENEW_BATCH):
            # Sessions may have ended while the last batch was under way.
            slots = [slot for slot in batch if slot in self._held]
            self._local.renew(slots)
            try:
                self._store.renew(slots)
            except StoreUnavailable:
                self._failed()

    def held_for(self, limit: str, seconds: float) -> None:
        """Count the seconds for which a session was held for a limit."""
        self._counts(limit).held_seconds += seconds

    # --- keeping account ---

    def _keep(self, slots: Sequence[Slot]) -> None:
        """The local store knows the places as well, for the time when there is no other."""
        self._held.update(dict.fromkeys(slots))
        self._local.renew(slots)

    def _count(self, planned: Plan, decision: Decision) -> None:
        counters = self._counters
        for name in planned.asked:
            counts = counters.get(name) or self._counts(name)
            counts.checked += 1
        denial = decision.denial
        if denial is not None and not denial.hold:
            self._counts(denial.limit).denied += 1
        for watched in decision.shadow:
            self._counts(watched.limit).shadow_denied += 1

    def _counts(self, limit: str) -> Counts:
        found = self._counters.get(limit)
        if found is None:
            found = self._counters[limit] = Counts()
        return found

    def _failed(self) -> None:
        self._failed_at = self._clock.monotonic()
        self._switch(StoreMode.LOCAL)

    def _answered(self) -> None:
        if self._mode is StoreMode.LOCAL and self._clock.monotonic() - self._failed_at >= SETTLE:
            self._switch(StoreMode.SHARED)

    def _switch(self, mode: StoreMode) -> None:
        if mode is not self._mode:
            self._mode = mode
            self._on_mode(mode)


def _charge(paid: Paid) -> Charge:
    return Charge(paid.key, paid.rate, paid.burst, paid.cost)


def _batched(slots: Sequence[Slot], size: int) -> Sequence[Sequence[Slot]]:
    return [slots[start : start + size] for start in range(0, len(slots), size)]
