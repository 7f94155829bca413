"""How often, how long and how late a transaction may look for another backend: `failover` of its pool, counted.

Owns that count and the sharing of time. Refuses to know what a try does.
"""

from __future__ import annotations

from typing import Final, Literal

from smtpgate.clock import Clock, Deadline
from smtpgate.routing.model import Failover

Stage = Literal["connect", "rcpt", "data_start", "buffered"]
STAGES: Final[tuple[Stage, ...]] = ("connect", "rcpt", "data_start", "buffered")
"""How far a transaction has come with a backend, in the words of `failover.until`."""

# Until the pool is known. One object: a session has three Tries.
_UNTOLD: Final = Failover()


class Tries:
    """Of one transaction. failover: the pool's. tried: backends that failed. turn: the time of the present try."""

    def __init__(self, clock: Clock) -> None:
        self.failover = _UNTOLD
        self.tried: set[str] = set()
        self.turn = Deadline(clock, self.failover.deadline)
        self._clock = clock
        self._search: Deadline | None = None

    def begin(self, failover: Failover) -> None:
        """A command begins; its time runs from its first try: what the client took for the last is not our delay."""
        self.failover = failover
        self._search = None

    @property
    def left(self) -> bool:
        """Whether there may be another."""
        in_time = self._search is None or not self._search.expired
        return in_time and len(self.tried) <= self.failover.attempts

    def next(self) -> Deadline:
        """A try begins, with an equal part of the time for each that is left: one backend that hangs must not use up
        the others'.
        """
        if self._search is None:
            self._search = Deadline(self._clock, self.failover.deadline)
        tries = self.failover.attempts + 1 - len(self.tried)
        self.turn = Deadline(self._clock, self._search.remaining() / tries)
        return self.turn

    def allowed(self, reached: Stage) -> bool:
        """Whether a backend that is lost in this stage is replaced."""
        return STAGES.index(reached) <= STAGES.index(self.failover.until)
