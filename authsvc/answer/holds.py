"""Logins that a stock nginx was told to WAIT with, so that their waiting has an end.

Owns when each began and until when it may go on. nginx repeats the very question, with the same number of attempt
(reference/auth_http.md section 6.3), so a login is known again by who asks, for whom, and that number. Kept in this
process: a repeat that another worker gets begins anew, so that with several workers a login is held for as many times
the limit's `hold` at most. Refuses to know limits.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from smtpgate.clock import Clock

# Some 300 octets each. nginx's default is 512 connections a worker.
MAX_HELD: Final = 10_000
# Seconds after which a repeat is no longer to be expected, beyond the longest pause that it was told.
GRACE: Final = 2.0

# Client address, user, number of the attempt.
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Hold:
    """limit: what holds the login. began, until: monotonic."""

    limit: str
    began: float
    until: float

    @property
    def forgotten(self) -> float:
        """When a question with this key is a new login's: the last pause was no longer than all of the hold."""
        return 2 * self.until - self.began + GRACE


class Holds:
    """One for each process. size: the oldest is forgotten first."""

    def __init__(self, clock: Clock, *, size: int = MAX_HELD) -> None:
        self._clock = clock
        self._size = size
        self._holds: OrderedDict[Key, Hold] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holds)

    def rest(self, key: Key) -> float | None:
        """Seconds for which this login may still be held, 0.0 for none; None if it is not held."""
        hold = self._holds.get(key)
        if hold is None or self._clock.monotonic() >= hold.forgotten:
            return None
        return max(0.0, hold.until - self._clock.monotonic())

    def begin(self, key: Key, limit: str, seconds: float) -> None:
        """Hold a login for `seconds` at most; one that is held goes on as it began."""
        if self.rest(key) is not None:
            return
        now = self._clock.monotonic()
        self._holds.pop(key, None)
        while len(self._holds) >= self._size:
            self._holds.popitem(last=False)
        self._holds[key] = Hold(limit, now, now + seconds)

    def end(self, key: Key) -> tuple[str, float] | None:
        """This login is held no longer: by what it was, and for how many seconds."""
        hold = self._holds.pop(key, None)
        if hold is None or self._clock.monotonic() >= hold.forgotten:
            return None
        return hold.limit, self._clock.monotonic() - hold.began
