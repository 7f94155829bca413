"""Judge the store's answer: the pure half of a decision after the call. `plan` is the other.

Owns which refusal the client hears, in which words, and what is reported beside it. Refuses to know stores and
clocks; chance is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from smtpgate.policy.bills import Bill
from smtpgate.policy.model import Decision, Denial, Paid, Slot
from smtpgate.policy.plan import Plan
from smtpgate.policy.rules import LONGEST_RETRY, Cost, OnError, ReplyTemplate
from smtpgate.policy.store import SLOT_WAIT, Charge, Claim, Taken, foremost

# The part of a wait that chance may add, so that clients told to come back do not come together.
JITTER: Final = 0.1
# While the store is away and the limit says `on_error: tempfail` (RFC 3463: 4.3.0, other mail system status).
AWAY: Final = ReplyTemplate(451, "4.3.0", "limit {limit} temporarily unavailable, try again later")
# A cost above the burst can never be paid: a 4xx would have the client try for days (RFC 1870 section 6.1).
TOO_BIG: Final = ReplyTemplate(552, "5.3.4", "message too big for limit {limit} ({rate})")
TOO_MUCH: Final = ReplyTemplate(550, "5.7.1", "more than limit {limit} ({rate}) ever allows")


def judge(
    planned: Plan, taken: Taken, *, jitter: float, host: str, debit: bool = True, local: bool = False
) -> Decision:
    """The decision, in the words of the enforced refusal with the longest wait.

    jitter: 0.0 to 1.0, how much of JITTER is added to the wait that is told. local: a bucket of this process paid.
    """
    if taken.passed and not (planned.capped or any(taken.waits) or 0 in taken.free or any(taken.bans)):
        shadow: tuple[Denial, ...] = ()
    else:
        words = _Words(jitter, host)
        shadow = tuple(_shadow(planned, taken, words))
        denial = _denial(planned, taken, words)
        if denial is not None:
            return Decision(denial, shadow)
    if not debit:
        return Decision(None, shadow, shapes=planned.shapes)
    paid = []
    for bill, charge, cost, wait in zip(planned.bills, planned.charges, taken.costs, taken.waits, strict=True):
        # Values that are remembered cost nothing when they come again: there is nothing to give back.
        if cost and not wait and charge.member is None:
            usual = bill.paid
            if local or usual.cost != cost:
                usual = Paid(usual.limit, charge.key, charge.rate, charge.burst, cost, usual.rejected, local)
            paid.append(usual)
    slots = []
    if planned.claims:
        slots = [
            Slot(bill.limit.name, claim.key, claim.holder)
            for bill, claim, free in zip(planned.places, planned.claims, taken.free, strict=True)
            if free > 0
        ]
    return Decision(None, shadow, tuple(paid), tuple(slots), planned.shapes)


def _denial(planned: Plan, taken: Taken, words: _Words) -> Denial | None:
    for bill in planned.capped:
        if not bill.limit.shadow:
            return words.capped(bill)
    if taken.passed:
        return None
    for check, ban in zip(planned.checks, taken.bans, strict=True):
        if ban is not None and ban.limit in check.limits:
            limit = next(b.limit for b in planned.banning if b.limit.name == ban.limit and b.subject == check.subject)
            return words.banned(Bill(limit, check.subject), ban.rest, ban.escalated)
    _, item = foremost(planned.charges, taken.waits, planned.claims, taken.free)
    escalated = item is not None and item.key in taken.escalated
    if isinstance(item, Claim):
        return words.full(planned.places[planned.claims.index(item)], item.hold, escalated)
    assert item is not None, "a store refuses for a ban, a bucket or a claim"
    index = planned.charges.index(item)
    return words.short(planned.bills[index], item, taken.waits[index], taken.balances[index], item.hold, escalated)


def _shadow(planned: Plan, taken: Taken, words: _Words) -> Sequence[Denial]:
    """What the limits that only watch would have said."""
    said = [words.capped(bill) for bill in planned.capped if bill.limit.shadow]
    for index, charge in enumerate(planned.charges):
        if charge.shadow and taken.waits[index]:
            said.append(words.short(planned.bills[index], charge, taken.waits[index], taken.balances[index]))
    for bill, claim, free in zip(planned.places, planned.claims, taken.free, strict=True):
        if claim.shadow and free <= 0:
            said.append(words.full(bill))
    for check, ban in zip(planned.checks, taken.bans, strict=True):
        said += [
            words.banned(bill, ban.rest, ban.escalated)
            for bill in planned.banning
            if ban is not None and bill.limit.shadow and (bill.limit.name, bill.subject) == (ban.limit, check.subject)
        ]
    return said


@dataclass(frozen=True, slots=True)
class _Words:
    """Puts a refusal into the words of its limit."""

    jitter: float
    host: str

    def short(
        self,
        bill: Bill,
        charge: Charge,
        wait: float,
        balance: float,
        patience: float = 0.0,
        escalated: bool = False,
    ) -> Denial:
        too_much = None
        if charge.cost > bill.limit.burst:
            too_much = TOO_BIG if bill.limit.cost is Cost.BYTES else TOO_MUCH
        return self._say(bill, wait, balance, patience=patience, escalated=escalated, instead=too_much)

    def full(self, bill: Bill, patience: float = 0.0, escalated: bool = False) -> Denial:
        return self._say(bill, SLOT_WAIT, 0.0, patience=patience, escalated=escalated)

    def capped(self, bill: Bill) -> Denial:
        """The next transaction starts anew, so there is nothing to wait for."""
        return self._say(bill, 0.0, 0.0)

    def banned(self, bill: Bill, rest: float, escalated: bool) -> Denial:
        """Whoever is banned is told at once: a tarpit would cost us a session."""
        return replace(self._say(bill, rest, 0.0, escalated=escalated), delay=0.0, banned=rest)

    def away(self, bill: Bill, retry: float) -> Denial:
        """The store is away, and the limit will not do without."""
        denial = self._say(bill, retry, 0.0, instead=AWAY)
        return replace(denial, wait=0.0, delay=0.0, close=False)

    def _say(
        self,
        bill: Bill,
        wait: float,
        balance: float,
        *,
        patience: float = 0.0,
        escalated: bool = False,
        instead: ReplyTemplate | None = None,
    ) -> Denial:
        limit, deny = bill.limit, bill.limit.deny
        assert deny is not None, "only `shape` has no deny, and it never refuses"
        template, close = deny.reply, deny.close
        if escalated and deny.after is not None:
            template, close = deny.after.reply, deny.after.close or close
        if instead is not None and (instead.code < 500 or template.code < 500):
            template = instead
        retry = min(wait * (1.0 + JITTER * self.jitter), LONGEST_RETRY)
        # The refusal is held back for the limit's delay; with max_delay, for as long as the bucket needs, but no less
        # and no more than the two.
        delay = deny.delay if deny.max_delay is None else min(max(deny.delay, wait), deny.max_delay)
        return Denial(
            limit=limit.name,
            subject=bill.subject,
            reply=template.render(limit=limit.name, retry=retry, rate=limit.rate_text, host=self.host),
            retry=retry,
            delay=delay,
            close=close,
            balance=balance,
            source=limit.source,
            wait=wait,
            hold=patience if wait <= patience else 0.0,
        )


def away(planned: Plan, *, retry: float, jitter: float, host: str) -> Denial | None:
    """The refusal of the first limit that will not do without the store. retry: seconds."""
    for bill in (*planned.bills, *planned.places):
        if bill.limit.on_error is OnError.TEMPFAIL and not bill.limit.shadow:
            return _Words(jitter, host).away(bill, retry)
    return None
