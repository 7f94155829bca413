"""What a limit's numbers are as written, and the limit that they make.

Owns the defaults that depend on other values (burst), and how an override is laid over what stands in `limits`.
Refuses to know matches, names and files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from smtpgate.policy.rules import Cost, Deny, Escalation, Kind, Limit, OnError, ReplyTemplate
from smtpgate.units import Rate, format_size

# Seconds of the rate that a bucket holds where no burst is written: 2000/1d must not be sent in one go.
DEFAULT_BURST_PERIOD: Final = 60.0
# Yet a bucket that messages pay for must take one message. Octets: Gmail takes messages of 50 MB, Exchange Online of
# 36 MB by default, Postfix of 10 MB.
OCTETS_OF_A_MESSAGE: Final = 50 * 1024 * 1024
# RFC 5321 section 4.5.3.1.8: a server takes at least so many recipients in one message.
RECIPIENTS_OF_A_MESSAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Amount:
    """A count, or octets. in_bytes: it was written with a unit."""

    value: int
    in_bytes: bool = False

    def __str__(self) -> str:
        return format_size(self.value) if self.in_bytes else str(self.value)


@dataclass(frozen=True, slots=True)
class Terms:
    """What an override may name of a limit; None is "not written". Durations in seconds, sizes in octets."""

    rate: Rate | None = None
    burst: Amount | None = None
    concurrency: int | None = None
    max: Amount | None = None
    shape: Rate | None = None
    cost: float | Cost | None = None
    shadow: bool | None = None
    on_error: OnError | None = None
    reply: ReplyTemplate | None = None
    close: bool | None = None
    delay: float | None = None
    max_delay: float | None = None
    hold: float | None = None
    ban: float | None = None
    after: Escalation | None = None

    @property
    def may_ban(self) -> bool:
        return bool(self.ban) or (self.after is not None and self.after.ban > 0.0)


_NAMES: Final = tuple(one.name for one in fields(Terms))


def merged(terms: Terms, changes: Sequence[Terms]) -> Terms:
    """The terms with the changes laid over them, the last one on top; what a change does not name stays."""
    named = {}
    for change in changes:
        for name in _NAMES:
            value = getattr(change, name)
            if value is not None:
                named[name] = value
    return replace(terms, **named)


def default_burst(rate: Rate, cost: float | Cost = 1.0) -> float:
    """One minute's worth and at least one event's, but never more than the rate's amount; at least 1."""
    if cost is Cost.BYTES:
        least = float(OCTETS_OF_A_MESSAGE)
    elif cost is Cost.RECIPIENTS:
        least = float(RECIPIENTS_OF_A_MESSAGE)
    else:
        least = float(cost)
    return max(1.0, min(float(rate.amount), max(rate.per_second * DEFAULT_BURST_PERIOD, least)))


def settled(limit: Limit, terms: Terms, *, shadow: bool) -> Limit:
    """The limit with all that follows from its terms. shadow: whether the whole policy only watches."""
    cost = 1.0 if terms.cost is None else terms.cost
    rate = terms.shape if limit.kind is Kind.SHAPE else terms.rate
    common = replace(
        limit,
        cost=cost,
        shadow=shadow or bool(terms.shadow),
        on_error=limit.on_error if terms.on_error is None else terms.on_error,
        deny=_deny(terms),
    )
    if rate is not None:
        burst = default_burst(rate, cost) if terms.burst is None else float(terms.burst.value)
        return replace(common, rate=rate.per_second, burst=burst, rate_text=str(rate))
    amount = terms.max.value if terms.max is not None else terms.concurrency or 0
    text = format_size(amount) if cost is Cost.BYTES else str(amount)
    return replace(common, amount=amount, rate_text=text)


def _deny(terms: Terms) -> Deny | None:
    """None for a limit that only slows."""
    if terms.reply is None:
        return None
    return Deny(
        reply=terms.reply,
        # RFC 5321 section 3.8: 421 announces that the channel closes.
        close=bool(terms.close) or terms.reply.code == 421,
        delay=terms.delay or 0.0,
        max_delay=terms.max_delay,
        hold=terms.hold or 0.0,
        ban=terms.ban or 0.0,
        after=terms.after,
    )
