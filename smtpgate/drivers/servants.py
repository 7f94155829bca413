"""Greenlets that stay: whoever has served one connection waits for the next.

A greenlet that is made for a connection and ends with it costs 10 us, half of them gevent's and half the mmap and
munmap of its frames; to wake one that is there costs less than one.

Owns those greenlets and their number. Refuses to know what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event

# That wait for something to do, of a process: a busy worker's sessions at once. Each keeps 16 KiB of frames.
MAX_RESTING: Final = 100


class Servants:
    """Calls `serve`, which raises nothing, each time in a greenlet that does nothing else meanwhile."""

    def __init__(self, serve: Callable[..., object], most_resting: int = MAX_RESTING) -> None:
        self._serve = serve
        self._most_resting = most_resting
        self._busy: set[gevent.Greenlet[..., None]] = set()
        self._resting: list[gevent.Greenlet[..., None]] = []
        self._all_done: Event | None = None  # somebody waits for it
        self._ending = False

    def __len__(self) -> int:
        """Those that serve now."""
        return len(self._busy)

    @property
    def resting(self) -> int:
        """Those that wait for something to do."""
        return len(self._resting)

    def call(self, *arguments: Any) -> None:
        """Let `serve` be called with these, soon. Does not block."""
        call = [arguments]
        if self._resting:
            servant = self._resting.pop()
            gevent.get_hub().loop.run_callback(servant.switch, call)
        else:
            servant = gevent.Greenlet(self._work, call)
            servant.start()
        self._busy.add(servant)

    def join(self, timeout: float) -> None:
        """Wait until nobody serves, so many seconds at most."""
        if not self._busy:
            return
        self._all_done = Event()
        try:
            self._all_done.wait(timeout)
        finally:
            self._all_done = None

    def kill(self, timeout: float) -> None:
        """GreenletExit for all who serve; wait so many seconds at most until they have ended. Nobody rests from now
        on.
        """
        self._ending = True
        gevent.killall(list(self._busy), timeout=timeout)

    def _work(self, call: list[tuple[Any, ...]]) -> None:
        """call: emptied, because a greenlet holds on to what it was started with."""
        me = gevent.getcurrent()
        while True:
            try:
                self._serve(*call.pop())
            finally:
                self._busy.discard(me)
                if self._all_done is not None and not self._busy:
                    self._all_done.set()
            if self._ending or len(self._resting) >= self._most_resting:
                return
            self._resting.append(me)  # type: ignore[arg-type] # a Greenlet, as `call` made it
            call = gevent.get_hub().switch()
