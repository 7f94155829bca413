"""Whether an auth_http server is worth a question, by what came of the last ones.

Owns that decision and nothing that does IO; time is an argument. One question without an answer is enough to open
it: a service that is down costs each client that asks its whole time, and asking it at full speed keeps it from
coming back. What counts is that a server answers, not how fast and not what: where another question was answered
since the one that failed was asked, the server is not down, and this one's fate was its own.
"""

from __future__ import annotations

from typing import Final

# Seconds between two questions to a server that gives no answer (reference/security.md section 3: 1 probe/s).
PAUSE: Final = 1.0


class AuthBreaker:
    """One server's. Closed; after a failure open, and then one question in every PAUSE is let through as a probe,
    until any is answered. A probe that never reports is followed by the next one.
    """

    __slots__ = ("_answers", "_next")

    def __init__(self) -> None:
        self._answers = 0
        self._next: float | None = None  # while it is open: when the next probe may be

    def may_ask(self, now: float) -> bool:
        """now: monotonic seconds, as everywhere here. Changes nothing."""
        return self._next is None or now >= self._next

    def admit(self, now: float) -> int | None:
        """May somebody ask? A number to give back with a failure; None for no."""
        if not self.may_ask(now):
            return None
        if self._next is not None:
            self._next = now + PAUSE
        return self._answers

    def failed(self, admitted: int, now: float) -> bool:
        """No answer came. admitted: what `admit` said to that question. True when that has opened the breaker."""
        if self._next is not None or self._answers != admitted:
            return False
        self._next = now + PAUSE
        return True

    def answered(self) -> bool:
        """An answer came, to whichever question. True when that has closed the breaker."""
        was_open = self._next is not None
        self._answers += 1
        self._next = None
        return was_open
