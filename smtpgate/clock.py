"""Time as an argument.

Owns: the Clock port, the system's clock, and Deadline, one budget shared by several waits. Everything else gets
a Clock handed in; tests hand in a manual one and never sleep.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Wall clock, Unix seconds. For records and for what is compared with other machines."""

    def monotonic(self) -> float:
        """Seconds that never jump. For every timeout and rate."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass; other sessions go on."""


class SystemClock:
    """The machine's clock. Under gevent's monkey patching `sleep` yields to other greenlets."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Deadline:
    """A point in time that several waits share, so that a slow peer cannot stretch a budget step by step.

    Made from a clock and a budget in seconds; `remaining()` never goes below zero.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._at = clock.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self._at - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining() <= 0.0

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining():.3f}s>"
