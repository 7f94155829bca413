"""Numbers and sentences as an operator reads them, in a terminal and on a page.

Owns the words alone. Refuses to know where they are shown: no markup, no colours, no columns.
"""

from __future__ import annotations

import math
from typing import Final

from smtpgate.explain.session import EventSaid, LimitSaid, RouteSaid

_NEAR: Final = 1e-4
_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def number(value: float) -> str:
    """At most three decimals, and none that says nothing."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if math.isfinite(value) else "never"


def seconds(value: float) -> str:
    """A wait in its two largest units: 2.5s, 1m30s, 1d4h."""
    if not math.isfinite(value):
        return "never"
    if value < 60:
        return f"{number(round(value, 1))}s"
    parts = []
    left = round(value)
    for unit, size in _UNITS:
        if left >= size:
            parts.append(f"{left // size}{unit}")
        left %= size
    return "".join(parts[:2])


def rate(per_second: float) -> str:
    """A rate in the smallest unit in which it is a whole number: 0.5 -> 30/1m."""
    for unit, size in reversed(_UNITS):
        amount = per_second * size
        # Redis keeps nine decimals: a rate of 1/1d comes back as 0.9999936 a day.
        if round(amount) >= 1 and abs(amount - round(amount)) <= _NEAR * amount:
            return f"{round(amount)}/1{unit}"
    return f"{number(per_second * 86_400)}/1d"


def outcome_text(said: EventSaid) -> str:
    """What happens to one event."""
    refused = said.refused
    if refused is None:
        watched = f"; {', '.join(said.shadow)} would refuse it" if said.shadow else ""
        return f"would be allowed{watched}"
    held = f", after up to {seconds(refused.hold)} of waiting" if refused.hold else ""
    closed = ", and the connection is closed" if refused.close else ""
    whose = f" of {refused.subject}" if refused.subject else ""
    return f'would be refused by {refused.limit}{whose}: "{refused.reply}"{held}{closed}'


def verdict_text(said: LimitSaid) -> str:
    return f"unknown: needs {', '.join(said.needs)}" if said.needs else said.verdict


def where_text(said: LimitSaid) -> str:
    """The line of a limit, and the lines elsewhere that change what it does."""
    if not said.by:
        return said.source
    return f"{said.source} ({'by' if said.verdict in ('exempt', 'off') else 'changed by'} {', '.join(said.by)})"


def route_text(said: RouteSaid) -> str:
    """Where the message goes."""
    if said.route is None:
        return "no route" if said.decided else "no route yet: it depends on what is not given"
    guess = "" if said.decided else ", unless a fact that is not given chooses another one before it"
    return f"{said.route} ({said.source}), pool {said.pool}: {', '.join(said.backends)}{guess}"
