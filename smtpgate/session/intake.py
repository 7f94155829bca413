"""How one text is read from its client: no faster than a shape allows, no slower than the listener bears, and for how
long where it was refused before its end.

Owns these three counts. Refuses to know what the text is, who refused it, and what the client is told.
"""

from __future__ import annotations

from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.session.ports import Lane
from smtpgate.session.streams import TEXT_READ_SIZE
from smtpgate.smtp.content import MAX_DISCARDED

DATA_GRACE: Final = 180.0
"""Seconds that a text may take however small it is: one data block timeout (RFC 5321 section 4.5.3.2.5)."""

DRAIN_TIMEOUT: Final = 300.0
"""Seconds for which the rest of a refused text is read, so that its client hears the reply: RFC 5321 section 4.5.3.2
gives a command five minutes. In octets the bound is MAX_DISCARDED."""


class Intake:
    """One text, from its 354 or first chunk to its end.

    rate: octets a second that a client must send on average, beyond DATA_GRACE; 0 asks for none (Postfix,
    smtpd_min_data_rate). Only the time in which we wait for the client counts: a shape's waits, a hold and a slow
    backend are not its fault. began: monotonic seconds.
    """

    __slots__ = ("_allowed", "_clock", "_doomed", "_drained", "_lane", "_rate", "_waiting", "began", "piece")

    def __init__(self, clock: Clock, rate: float, lane: Lane | None) -> None:
        self._clock = clock
        self._rate = rate
        self._lane = lane
        self._allowed = DATA_GRACE  # seconds that the client has left
        self._waiting = 0.0
        self._doomed: Deadline | None = None
        self._drained = 0
        self.began = clock.monotonic()
        self.piece = TEXT_READ_SIZE if lane is None else lane.piece

    @property
    def shaped(self) -> bool:
        """A limit says how fast it may be read."""
        return self._lane is not None

    def settle(self) -> bool:
        """Wait until what was read is paid for. Whether there was anything to pay: the client has waited for us."""
        return self._lane is not None and self._lane.settle()

    def wait(self, patience: Deadline) -> Deadline:
        """The client is waited for from now on: until when, at most."""
        self._waiting = self._clock.monotonic()
        left = patience.remaining()
        if self._doomed is not None:
            left = min(left, self._doomed.remaining())
        if self._rate > 0.0:
            left = min(left, self._allowed)
        return Deadline(self._clock, left)

    def came(self, octets: int) -> None:
        """So many were read. Not to be called after a wait that ended in vain."""
        if self._rate > 0.0:
            self._allowed += octets / self._rate - (self._clock.monotonic() - self._waiting)
        if self._doomed is not None:
            self._drained += octets
        if self._lane is not None:
            self._lane.owe(octets)

    def doom(self) -> None:
        """The text will not be committed: what follows is only read to its end. May be said again."""
        if self._doomed is None:
            self._doomed = Deadline(self._clock, DRAIN_TIMEOUT)

    @property
    def in_vain(self) -> bool:
        """What was refused has been read for long enough."""
        return self._doomed is not None and (self._drained > MAX_DISCARDED or self._doomed.expired)

    def close(self) -> None:
        """The text has ended. May be called twice."""
        if self._lane is not None:
            self._lane.close()
