"""The end of a socket's waits: one timer for all that follow each other, where gevent has one for each.

A message waits a dozen times, and next to none of these waits comes to its end. So the timer of one is left running
for the next, and looks when it rings whether the wait of that moment is over; it is set anew where one ends earlier.

Owns that timer. Refuses to know what is waited for.
"""

from __future__ import annotations

from typing import Any

import gevent
from greenlet import greenlet

from smtpgate.clock import Deadline


class Alarm:
    """For one greenlet at a time. close() it, or the timer runs to its end."""

    __slots__ = ("_deadline", "_rings", "_timer", "_waiting")

    def __init__(self) -> None:
        self._timer: Any = None
        self._rings = 0.0  # when, in the deadlines' time
        self._deadline: Deadline | None = None
        self._waiting: greenlet | None = None

    def wait(self, watcher: Any, deadline: Deadline) -> None:
        """Until a socket's watcher sees what it is made for. Raises TimeoutError.

        As Hub.wait() does it, without its Waiter, which tells apart who switches here: here it is the watcher alone,
        and whoever waits for a socket looks afterwards whether there is anything.
        """
        if self._timer is None or deadline.at < self._rings:
            self._set(deadline)
        self._deadline = deadline
        self._waiting = waiting = gevent.getcurrent()
        watcher.start(waiting.switch)
        try:
            gevent.get_hub().switch()
        finally:
            watcher.stop()
            self._waiting = None

    def close(self) -> None:
        """Nobody waits any more. May be called twice."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()

    def _set(self, deadline: Deadline) -> None:
        self.close()
        left = deadline.remaining()
        if left <= 0.0:
            raise TimeoutError
        # The priority is gevent.Timeout's: what has arrived when the time runs out has arrived.
        self._timer = gevent.get_hub().loop.timer(left, priority=-1)
        self._timer.start(self._ring, update=True)
        self._rings = deadline.at

    def _ring(self) -> None:
        """Called by the hub."""
        self.close()
        waiting, deadline = self._waiting, self._deadline
        if waiting is None or deadline is None:
            return
        if deadline.expired:
            waiting.throw(TimeoutError)
        else:
            self._set(deadline)
