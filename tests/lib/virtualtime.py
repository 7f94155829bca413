"""A clock whose time passes only when every greenlet waits for it: seconds of traffic in milliseconds, the same
every time.
"""

from __future__ import annotations

import heapq
import itertools

import gevent
from gevent.event import Event


class VirtualClock:
    """A smtpgate.clock.Clock. run() lets time pass; meanwhile greenlets sleep in it."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self._sleepers: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        woken = Event()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), woken))
        woken.wait()

    def run(self, seconds: float) -> None:
        """Let `seconds` pass, waking sleepers in their order."""
        end = self.time + seconds
        gevent.idle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, woken = heapq.heappop(self._sleepers)
            self.time = max(self.time, at)
            woken.set()
            gevent.idle()
        self.time = end
