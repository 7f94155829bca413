"""Time as an argument.

Owns: the Clock port, the system's clock, and Deadline, one budget shared by several waits. Everything else gets
a Clock handed in; tests hand in a manual one and never sleep.
"""

from __future__ import annotations

import time
from typing import ClassVar, Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Wall clock, Unix seconds. For records and for what is compared with other machines."""

    def monotonic(self) -> float:
        """Seconds that never jump. For every timeout and rate."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass; other sessions go on."""


class SystemClock:
    """The machine's clock. Under gevent's monkey patching `sleep` yields to other greenlets."""

    # The functions themselves: a message reads the clock sixty times.
    now: ClassVar = staticmethod(time.time)
    monotonic: ClassVar = staticmethod(time.monotonic)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Deadline:
    """A point in time that several waits share, so that a slow peer cannot stretch a budget step by step.

    Made from a clock and a budget in seconds; `remaining()` never goes below zero.
    """

    __slots__ = ("_at", "_now")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._now = clock.monotonic
        self._at = self._now() + seconds

    def remaining(self) -> float:
        left = self._at - self._now()
        return left if left > 0.0 else 0.0

    @property
    def at(self) -> float:
        """The point itself, in the clock's monotonic seconds."""
        return self._at

    @property
    def expired(self) -> bool:
        return self._at <= self._now()

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining():.3f}s>"
