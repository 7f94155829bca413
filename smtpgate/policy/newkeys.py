"""The budget of new subjects: whoever makes up clients by the thousand gets buckets by the prefix.

Owns which keys this process has seen lately, and how many it may see for the first time in a second (shared
policy.md, `limiter.new_keys`). Above that a limit's overflow_key counts; its subjects have a budget of their own, as
large, and where that too is spent all share one subject. Bounded in memory whatever comes. Refuses to know clocks and
stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smtpgate.policy.bucket import refill
from smtpgate.policy.model import Facts
from smtpgate.policy.rules import Limit, Limiter

# Keys in each of two generations, about 10 MB together. HAProxy's documentation sizes stick tables at 100k entries.
GENERATION: Final = 50_000
# The subject of all who are new while both budgets are spent.
EVERYBODY: Final = "~"


class _Budget:
    """New keys as a token bucket, and the keys that were admitted lately.

    Keys are kept as hashes, two generations of them: when the young one is full it becomes the old one, and what is
    asked for again moves to the new young one. Two keys with one hash cost one token less.
    """

    __slots__ = ("_at", "_old", "_tokens", "_young")

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._tokens: float | None = None
        self._at = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def admit(self, limit: str, subject: str, limiter: Limiter, now: float) -> bool:
        mark = hash((limit, subject))
        if mark in self._young:
            return True
        if mark not in self._old and not self._pay(limiter, now):
            return False
        if len(self._young) >= GENERATION:
            self._old, self._young = self._young, set()
        self._young.add(mark)
        return True

    def _pay(self, limiter: Limiter, now: float) -> bool:
        burst = limiter.new_keys_burst
        tokens = burst if self._tokens is None else refill(self._tokens, now - self._at, limiter.new_keys, burst)
        self._at = now
        self._tokens = tokens - 1.0 if tokens >= 1.0 else tokens
        return tokens >= 1.0


class NewKeys:
    """Chooses the subject that a limit counts for a session."""

    def __init__(self) -> None:
        self._own = _Budget()
        self._wide = _Budget()

    def __len__(self) -> int:
        return len(self._own) + len(self._wide)

    def chooser(self, facts: Facts, limiter: Limiter, now: float) -> Callable[[Limit], tuple[str, bool] | None]:
        """For one decision: limit -> its subject, and whether that is the session's own; None where the limit's key
        has no value. Limits with the same key read it once.

        now: seconds of a clock that never jumps.
        """
        read: dict[str, str | None] = {}
        admitted = self._own.admit

        def subject_of(limit: Limit) -> tuple[str, bool] | None:
            key = limit.key
            if key is None:
                return None
            if key.text in read:
                own = read[key.text]
            else:
                own = read[key.text] = key.subject(facts)
            if own is None:
                return None
            overflow = limit.overflow_key
            if overflow is None or admitted(limit.name, own, limiter, now):
                return own, True
            wide = overflow.subject(facts)
            if wide is None or not self._wide.admit(limit.name, wide, limiter, now):
                return EVERYBODY, False
            return wide, False

        return subject_of
