"""Connections that were not let in, in the log: a line a second for each cause, however many there are.

Owns the counting and the pace. A flood that writes a line a connection is two floods.
"""

from __future__ import annotations

from typing import Any, Final

import gevent

from smtpgate.drivers.admission import Refusal
from smtpgate.journal import Journal

INTERVAL: Final = 1.0  # seconds between two lines of one cause


class FloodLog:
    """Writes `flood` lines: listener, reason, how many were refused since the last one, and the latest client."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: dict[tuple[str, Refusal], tuple[int, str]] = {}
        self._timers: dict[tuple[str, Refusal], Any] = {}

    def refused(self, listener: str, refusal: Refusal, client: str) -> None:
        """The first one is told at once. Must not block."""
        cause = (listener, refusal)
        if cause not in self._timers:
            self._tell(cause, 1, client)
            timer = self._timers[cause] = gevent.get_hub().loop.timer(INTERVAL, INTERVAL)
            timer.start(self._second_is_over, cause)
            return
        count, _ = self._waiting.get(cause, (0, ""))
        self._waiting[cause] = count + 1, client

    def _second_is_over(self, cause: tuple[str, Refusal]) -> None:
        found = self._waiting.pop(cause, None)
        if found is not None:
            self._tell(cause, *found)
            return
        timer = self._timers.pop(cause)
        timer.stop()
        timer.close()

    def _tell(self, cause: tuple[str, Refusal], count: int, client: str) -> None:
        listener, refusal = cause
        self._journal.warning("flood", listener=listener, reason=refusal.value, refused=count, client=client)
