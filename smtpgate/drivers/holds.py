"""Sessions that stand in line, and how they are woken.

`policy.waitlist` says whose turn it is; this module lets greenlets wait for it. Owns the bounds on held sessions and
the end of their waiting when the process drains. Refuses to know what they wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gevent.event import Event

from smtpgate.policy.waitlist import Ticket, Waitlist

# Sessions of one process. Each costs its greenlet and its connections; Postfix stops at 100 processes in all
# (default_process_limit), nginx at 512 connections a worker (worker_connections).
MAX_HELD: Final = 1000
# Sessions of one bucket: Postfix' smtpd_client_connection_count_limit, so that nobody's flood takes all places.
MAX_HELD_A_KEY: Final = 50


class Lines:
    """Lines by key. `drain()` ends, for good, the waiting of all who are not `patient`. joined: told of the key of
    each place that is taken.
    """

    def __init__(
        self,
        most: int = MAX_HELD,
        most_a_key: int = MAX_HELD_A_KEY,
        joined: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._joined = joined
        self._list = Waitlist(most, most_a_key)
        self._places: dict[Ticket, Place] = {}
        self._draining = False

    def __len__(self) -> int:
        return len(self._list)

    def waiting(self, key: str) -> bool:
        """Whether somebody stands in the line of `key`: whoever comes now has to stand behind."""
        return self._list.waiting(key)

    def join(self, key: str, *, patient: bool = True) -> Place | None:
        """The last place of a line; None where too many wait already."""
        ticket = self._list.join(key)
        if ticket is None:
            return None
        self._joined(key)
        place = self._places[ticket] = Place(self, ticket, patient)
        if self._draining and not patient:
            place.end()
        return place

    def drain(self) -> None:
        """The process is to end: wake everybody who does not insist on waiting."""
        self._draining = True
        for place in list(self._places.values()):
            if not place.patient:
                place.end()

    def is_first(self, ticket: Ticket) -> bool:
        return self._list.is_first(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Wakes the one whose turn it has become."""
        del self._places[ticket]
        following = self._list.leave(ticket)
        if following is not None:
            self._places[following].wake()


class Place:
    """One session's place in a line. Whoever has it must leave() it, whatever happens."""

    __slots__ = ("_ended", "_left", "_lines", "_ticket", "_woken", "patient")

    def __init__(self, lines: Lines, ticket: Ticket, patient: bool) -> None:
        self.patient = patient
        self._lines = lines
        self._ticket = ticket
        self._woken = Event()
        self._ended = False
        self._left = False

    @property
    def key(self) -> str:
        return self._ticket.key

    @property
    def first(self) -> bool:
        """Nobody stands in front."""
        return self._lines.is_first(self._ticket)

    def rest(self, seconds: float | None) -> bool:
        """Let `seconds` pass (None: any time), or fewer where the turn comes meanwhile. False: wait no longer, the
        process drains. What is thrown into the wait comes out.
        """
        if not self._ended:
            self._woken.wait(seconds)
        if not self._ended:
            self._woken.clear()
        return not self._ended

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self._ended = True
        self._woken.set()

    def leave(self) -> None:
        """May be called twice."""
        if not self._left:
            self._left = True
            self._lines.leave(self._ticket)
