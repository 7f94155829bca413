"""The compiled policy, as frozen values: what `compile` makes and `engine` reads.

Owns the rendering of a reply template, the one place where a limit's numbers become words. Refuses to know
YAML, stores and time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from smtpgate.policy.keys import KeyTemplate
from smtpgate.policy.match import Matcher, NamedSet
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


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket for each subject of `key`, asked at `event` for sessions that `match`.

    rate: tokens a second. burst: tokens of a full bucket. rate_text: for people, in its shortest form. delay,
    max_delay: seconds to hold the refusal back (see engine.judge). source: "file:line".
    """

    name: str
    event: Event
    rate: float
    burst: float
    key: KeyTemplate
    reply: ReplyTemplate
    source: str
    rate_text: str
    match: Matcher = field(default_factory=Matcher)
    close: bool = False
    delay: float = 0.0
    max_delay: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """All limits by event, in file order. local_share: the part of each rate and burst while the store is
    away.

    replies and sets: by name, for whoever compiles routes and pools beside it.
    """

    limits: Mapping[Event, tuple[Limit, ...]] = field(default_factory=dict)
    local_share: float = 0.5
    replies: Mapping[str, ReplyTemplate] = field(default_factory=dict)
    sets: Mapping[str, NamedSet] = field(default_factory=dict)
