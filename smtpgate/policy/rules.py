"""The limits of a policy, as frozen values: what `compile` makes, `select` hands out and `engine` charges.

Owns the rendering of a reply template, the one place where a limit's numbers become words. Refuses to know
YAML, stores and time.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.keys import KeyTemplate
from smtpgate.policy.model import Event, ReplyText

# Seconds shown for a wait that is longer, or never ends: a year.
LONGEST_RETRY: Final = 31_536_000


@dataclass(frozen=True, slots=True)
class ReplyTemplate:
    """A reply with {limit} {retry} {rate} {host} in its text; no other braces (compile sees to it)."""

    code: int
    enhanced: str
    text: str

    def render(self, *, limit: str, retry: float, rate: str, host: str) -> ReplyText:
        """retry: seconds, shown as whole ones, rounded up."""
        # Milliseconds first: 100 s and a tenth are 110.00000000000001 in floats, and not 111.
        shown = max(1, math.ceil(round(min(retry, LONGEST_RETRY), 3)))
        text = self.text.format(limit=limit, retry=shown, rate=rate, host=host)
        return ReplyText(self.code, self.enhanced, text)


class Kind(enum.Enum):
    """What a limit counts."""

    RATE = "rate"  # a token bucket
    CONCURRENCY = "concurrency"  # places that are held until the session ends
    MAX = "max"  # a cap on what the facts themselves count; needs no store
    SHAPE = "shape"  # a token bucket of octets that slows, and never denies


class Cost(enum.Enum):
    """What one event takes from a bucket, where that is no number."""

    BYTES = "bytes"  # facts.octets
    RECIPIENTS = "recipients"  # facts.recipients


class OnError(enum.Enum):
    """What a limit does while the store gives no answer."""

    LOCAL = "local"  # buckets of this process, at `local_share` of rate and burst
    ALLOW = "allow"
    TEMPFAIL = "tempfail"


@dataclass(frozen=True, slots=True)
class Escalation:
    """`after`: from the denial on that follows `denials` of them `within` seconds, `reply` and `close` are used."""

    denials: int
    within: float
    reply: ReplyTemplate
    close: bool
    ban: float = 0.0


@dataclass(frozen=True, slots=True)
class Deny:
    """What a refused client gets. delay, max_delay, hold, ban: seconds; 0 is none (max_delay: None is none)."""

    reply: ReplyTemplate
    close: bool = False
    delay: float = 0.0
    max_delay: float | None = None
    hold: float = 0.0
    ban: float = 0.0
    after: Escalation | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as it applies to a session: overrides are worked in already when `select` hands it out.

    kind decides what else counts. RATE: rate (tokens a second), burst (tokens of a full bucket), cost. SHAPE: rate
    and burst in octets. CONCURRENCY and MAX: amount. rate_text: for people, in its shortest form (an amount for the
    latter two). key: None for MAX alone. distinct: events whose value was seen before in this bucket's time cost
    nothing. overflow_key: for subjects that are new while the budget of new ones is spent. source: "file:line".
    """

    name: str
    event: Event
    kind: Kind
    source: str
    key: KeyTemplate | None
    deny: Deny | None  # None for SHAPE alone
    rate: float = 0.0
    burst: float = 0.0
    amount: int = 0
    rate_text: str = ""
    cost: float | Cost = 1.0
    shadow: bool = False
    refund_rejected: bool = False
    distinct: KeyTemplate | None = None
    overflow_key: KeyTemplate | None = None
    on_error: OnError = OnError.LOCAL


@dataclass(frozen=True, slots=True)
class Breaker:
    """errors failures within `within` seconds open it for `open_for` seconds."""

    errors: int = 5
    within: float = 2.0
    open_for: float = 5.0


@dataclass(frozen=True, slots=True)
class Limiter:
    """`limiter`: how the store is asked. timeout: seconds for each of connect and reply. local_share: the part of
    each rate and burst while the store is away. new_keys, new_keys_burst: subjects a second that one process may see
    for the first time before overflow_key counts for them.
    """

    timeout: float = 0.05
    on_error: OnError = OnError.LOCAL
    local_share: float = 0.5
    breaker: Breaker = Breaker()
    new_keys: float = 2000.0
    new_keys_burst: float = 2000.0
