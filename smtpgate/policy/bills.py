"""What a limit asks of one subject: the charge, the penalty, the receipt. Made once, and kept while somebody asks.

Owns how a limit's terms become words of the store. Pure but for a cache, bounded, whose content follows from limit
and subject alone. Refuses to know facts, stores, and what an event adds (a member, an octet count, somebody who
waits): that is `plan`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from smtpgate.policy.model import Paid
from smtpgate.policy.rules import Cost, Limit
from smtpgate.policy.store import AFTER, Charge, Penalty

# Bills in each of two generations, some 5 MB together: those of a few thousand sessions at once.
GENERATION: Final = 4096


@dataclass(frozen=True, slots=True)
class Bill:
    """A limit with the subject that it counts. own: the subject is the session's own; strangers share it otherwise.

    key: of the bucket, or of the places. charge: what most events ask of the bucket, and `paid` its receipt; a cost
    that each event has anew counts as 0.0 in both. plain: no event adds a cost or a member of its own.
    """

    limit: Limit
    subject: str
    own: bool = True
    key: str = field(init=False, compare=False)
    plain: bool = field(init=False, compare=False)
    charge: Charge = field(init=False, compare=False)
    paid: Paid = field(init=False, compare=False)

    def __post_init__(self) -> None:
        limit = self.limit
        key = f"{limit.name}:{self.subject}"
        penalty, hold = None, 0.0
        deny = limit.deny
        if deny is not None and not limit.shadow:
            penalty, hold = penalty_of(limit, self.subject, self.own), deny.hold
        rate, burst, cost = limit.rate, limit.burst, limit.cost
        own_cost = 0.0 if isinstance(cost, Cost) else cost
        made = {
            "key": key,
            "plain": limit.distinct is None and not isinstance(cost, Cost),
            "charge": Charge(key, rate, burst, own_cost, limit.shadow, None, hold, False, penalty),
            "paid": Paid(limit.name, key, rate, burst, own_cost, limit.refund_rejected),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)  # frozen from here on


class Bills:
    """The bills that were asked for lately, in two generations: when the young one is full it becomes the old one,
    and what is asked for again moves to the new young one.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[tuple[str, str], Bill] = {}
        self._old: dict[tuple[str, str], Bill] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def of(self, limit: Limit, subject: str, own: bool) -> Bill:
        name = (limit.name, subject)
        bill = self._young.get(name)
        # Overrides and edits make another limit of the same name.
        if bill is not None and bill.limit is limit and bill.own is own:
            return bill
        bill = self._old.get(name)
        if bill is None or bill.limit is not limit or bill.own is not own:
            bill = Bill(limit, subject, own)
        if len(self._young) >= GENERATION:
            self._old, self._young = self._young, {}
        self._young[name] = bill
        return bill


def penalty_of(limit: Limit, subject: str, own: bool) -> Penalty | None:
    """What a refusal brings about, None for nothing. A ban needs a subject that is the session's own, or strangers
    would share it.
    """
    deny = limit.deny
    if deny is None or not (deny.ban or deny.after):
        return None
    note = f"{limit.name} {limit.source}"
    ban = deny.ban if own else 0.0
    after = deny.after
    if after is None:
        return Penalty(subject, note, ban)
    return Penalty(
        subject,
        note,
        ban,
        after=f"{limit.name}{AFTER}:{subject}",
        denials=float(after.denials),
        within=after.within,
        after_ban=after.ban if own else 0.0,
        after_note=f"{limit.name}{AFTER} {limit.source}",
    )
