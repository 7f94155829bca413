"""Plan what an event asks of the store: the pure half of a decision before the call. `judge` is the other.

Owns what an event adds to the bills of its limits: cost, member, patience, who waits. Refuses to know stores, clocks
and which limits a policy has: they come from `select`, overrides worked in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from smtpgate.policy.bills import Bill
from smtpgate.policy.model import Event, Facts, Shape
from smtpgate.policy.rules import Cost, Kind, Limit, OnError
from smtpgate.policy.store import BanCheck, Charge, Claim

# (limit) -> (subject, is it the session's own), or None: the limit does not concern this session.
SubjectOf = Callable[[Limit], tuple[str, bool] | None]

# An enum's member costs 0.1 us each time that it is asked of its class (CPython 3.11).
_RATE, _CONCURRENCY, _MAX, _SHAPE = Kind.RATE, Kind.CONCURRENCY, Kind.MAX, Kind.SHAPE


@dataclass(frozen=True, slots=True)
class Plan:
    """bills[i] is what charges[i] is for; places[i] goes with claims[i]. capped: limits that the facts alone exceed.
    banning: the limits that may have banned, with the subjects that `checks` asks for. shapes: for event data.
    asked: the names of all limits that concern the session, for the counters.
    """

    bills: tuple[Bill, ...] = ()
    charges: tuple[Charge, ...] = ()
    places: tuple[Bill, ...] = ()
    claims: tuple[Claim, ...] = ()
    banning: tuple[Bill, ...] = ()
    checks: tuple[BanCheck, ...] = ()
    capped: tuple[Bill, ...] = ()
    shapes: tuple[Shape, ...] = ()
    asked: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Is there anything to ask the store?"""
        return bool(self.charges or self.claims or self.checks)


@dataclass(frozen=True, slots=True)
class Asking:
    """How a session asks. turn: it is the first of those that are held. hold: seconds that it is willing to wait, at
    most, where a limit offers that; None is what the limit says, and nothing for a session whose turn it is. slots:
    False leaves concurrency limits out.
    """

    turn: bool = False
    hold: float | None = None
    slots: bool = True

    def patience(self, offered: float) -> float:
        """Seconds that this session may be held for a limit that offers so many."""
        if self.hold is None:
            return 0.0 if self.turn else offered
        return min(offered, self.hold)


def plan(
    event: Event,
    facts: Facts,
    limits: Sequence[Limit],
    banning: Sequence[Limit],
    *,
    subject_of: SubjectOf,
    waiting: Callable[[str], bool],
    holder: Callable[[], str],
    asking: Asking,
    bill_of: Callable[[Limit, str, bool], Bill] = Bill,
) -> Plan:
    """What each limit asks of the store. A limit whose key has no value in this session does not concern it.

    waiting: are sessions held for this bucket, or these places? holder: a new name for whoever takes a place.
    bill_of: `Bills.of`, where the same subjects come again.
    """
    bills, charges, places, claims, capped, shapes, asked = [], [], [], [], [], [], []
    refused = False
    for limit in limits:
        kind = limit.kind
        if kind is _MAX:
            asked.append(limit.name)
            if used(limit, event, facts) > limit.amount:
                capped.append(Bill(limit, ""))
                refused = refused or not limit.shadow
            continue
        found = None if kind is _CONCURRENCY and not asking.slots else subject_of(limit)
        if found is None:
            continue
        bill = bill_of(limit, *found)
        if kind is _RATE:
            asked.append(limit.name)
            bills.append(bill)
            charges.append(_charge(bill, facts, asking, waiting))
        elif kind is _CONCURRENCY:
            asked.append(limit.name)
            places.append(bill)
            claims.append(_claim(bill, holder(), asking, waiting))
        elif kind is _SHAPE and not limit.shadow:
            shapes.append(Shape(limit.name, bill.key, limit.rate, limit.burst, limit.on_error is OnError.LOCAL))
    if refused:
        return _watched(Plan(tuple(bills), tuple(charges), capped=tuple(capped), asked=tuple(asked)))
    banned, checks = _bans(banning, facts, bill_of) if banning else ((), ())
    return Plan(
        tuple(bills),
        tuple(charges),
        tuple(places),
        tuple(claims),
        banned,
        checks,
        tuple(capped),
        tuple(shapes),
        tuple(asked),
    )


def _watched(planned: Plan) -> Plan:
    """The facts alone refuse, and denied attempts are free: the store is asked for what only watches."""
    watching = [(b, c) for b, c in zip(planned.bills, planned.charges, strict=True) if c.shadow]
    return replace(planned, bills=tuple([b for b, _ in watching]), charges=tuple([c for _, c in watching]))


def _charge(bill: Bill, facts: Facts, asking: Asking, waiting: Callable[[str], bool]) -> Charge:
    """The bill's own charge, wherever the event adds nothing to it."""
    usual, limit = bill.charge, bill.limit
    queued = not (asking.turn or usual.shadow) and waiting(usual.key)
    hold = asking.patience(usual.hold) if usual.hold else 0.0
    if bill.plain and not queued and hold == usual.hold:
        return usual
    member = None if limit.distinct is None else limit.distinct.subject(facts)
    cost = cost_of(limit, facts)
    return Charge(usual.key, usual.rate, usual.burst, cost, usual.shadow, member, hold, queued, usual.penalty)


def _claim(bill: Bill, holder: str, asking: Asking, waiting: Callable[[str], bool]) -> Claim:
    usual = bill.charge
    queued = not (asking.turn or usual.shadow) and waiting(usual.key)
    hold = asking.patience(usual.hold) if usual.hold else 0.0
    return Claim(bill.key, bill.limit.amount, holder, usual.shadow, hold, queued, usual.penalty)


def _bans(
    banning: Sequence[Limit], facts: Facts, bill_of: Callable[[Limit, str, bool], Bill]
) -> tuple[tuple[Bill, ...], tuple[BanCheck, ...]]:
    """A ban is the subject's, whichever limit made it; it counts where the limit that made it is one of these."""
    bills = []
    enforced: dict[str, list[str]] = {}
    for limit in banning:
        subject = None if limit.key is None else limit.key.subject(facts)
        if subject is None:
            continue
        bills.append(bill_of(limit, subject, True))
        names = enforced.setdefault(subject, [])
        if not limit.shadow:
            names.append(limit.name)
    return tuple(bills), tuple([BanCheck(subject, tuple(names)) for subject, names in enforced.items()])


def used(limit: Limit, event: Event, facts: Facts) -> int:
    """What a `max` is compared with: the count with this event included."""
    if event is Event.RCPT:
        return facts.recipients + 1
    if event is Event.MAIL:
        return facts.messages + 1
    return facts.recipients if limit.cost is Cost.RECIPIENTS else facts.octets or 0


def cost_of(limit: Limit, facts: Facts) -> float:
    if limit.cost is Cost.BYTES:
        return float(facts.octets or 0)
    if limit.cost is Cost.RECIPIENTS:
        return float(facts.recipients)
    return limit.cost


def without_store(planned: Plan, part: float) -> Plan:
    """What is still asked of this process alone while the store is away: limits that say `on_error: local`, at a part
    of their rate, burst and amount.
    """
    paying = [
        (b, c) for b, c in zip(planned.bills, planned.charges, strict=True) if b.limit.on_error is OnError.LOCAL
    ]
    held = [(b, c) for b, c in zip(planned.places, planned.claims, strict=True) if b.limit.on_error is OnError.LOCAL]
    return replace(
        planned,
        bills=tuple([b for b, _ in paying]),
        charges=share([c for _, c in paying], part),
        places=tuple([b for b, _ in held]),
        claims=share_of_places([c for _, c in held], part),
    )


def share(charges: Sequence[Charge], part: float) -> tuple[Charge, ...]:
    """The same charges at a part of their rate and burst; a burst still pays for what it could pay when whole."""
    return tuple([replace(c, rate=c.rate * part, burst=max(min(c.cost, c.burst), c.burst * part)) for c in charges])


def share_of_places(claims: Sequence[Claim], part: float) -> tuple[Claim, ...]:
    """A part of each amount, and at least one."""
    return tuple([replace(claim, amount=max(1, math.floor(claim.amount * part))) for claim in claims])
