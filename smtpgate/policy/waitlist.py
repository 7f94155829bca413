"""Who waits for what, in order: the lines in which sessions stand until a bucket has tokens for them.

Owns the order, first come, first served, and the bounds. Knows neither how somebody waits nor how somebody is
woken: `drivers.holds` does both.
"""

from __future__ import annotations

from collections import deque


class Ticket:
    """One place in the line of `key`. Two tickets are never equal."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key


class Waitlist:
    """At most `most` waiters in all, and `most_a_key` in one line; a line that nobody stands in takes no room."""

    def __init__(self, most: int, most_a_key: int) -> None:
        self._most = most
        self._most_a_key = most_a_key
        self._lines: dict[str, deque[Ticket]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def waiting(self, key: str) -> bool:
        """Whether somebody stands in the line of `key`."""
        return key in self._lines

    def join(self, key: str) -> Ticket | None:
        """The last place in the line of `key`; None where one of the bounds is reached."""
        line = self._lines.get(key)
        if self._count >= self._most or (line is not None and len(line) >= self._most_a_key):
            return None
        if line is None:
            line = self._lines[key] = deque()
        ticket = Ticket(key)
        line.append(ticket)
        self._count += 1
        return ticket

    def is_first(self, ticket: Ticket) -> bool:
        """Whether it is this one's turn."""
        line = self._lines.get(ticket.key)
        return line is not None and line[0] is ticket

    def leave(self, ticket: Ticket) -> Ticket | None:
        """Give a place up, wherever in the line it is: whose turn it has become by that, if anybody's.

        Raises ValueError for a place that was given up already.
        """
        line = self._lines.get(ticket.key)
        if line is None:
            raise ValueError(f"nobody waits for {ticket.key!r}; expected a place that was not given up yet")
        first = line[0] is ticket
        line.remove(ticket)
        self._count -= 1
        if not line:
            del self._lines[ticket.key]
            return None
        return line[0] if first else None
