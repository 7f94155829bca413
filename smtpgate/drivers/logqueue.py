"""The lines of the log that wait to be written: a bound on them, and a word about those that were lost.

A message must not fail, or wait, for want of a log (reference/security.md section 3): a full disk, a reader that
stands still or a syslog server that is away costs lines. How many these were is told in the first line that can be
written again. Owns when lines are written, and when those are spelt that need not be at once: one behind the other
they take half as long as one after each message, while the processor's caches are full of other things. Refuses to
know where lines go (`logoutput`) and what they say.
"""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import gevent

from smtpgate.drivers.logoutput import Line, Output

# Octets of lines that wait; some thousand messages. rsyslog's queue in memory has 1,000 entries.
MAX_PENDING: Final = 1 << 20
# Seconds for which lines are gathered: a write costs as much as the making of a line. A process that is killed loses
# as much.
GATHER: Final = 0.01
# Lines that are not spelt yet: what a session's strings take is its client's choice, so few of them wait.
MAX_UNSPELT: Final = 16
# Seconds until it is tried again, where nothing could be written.
RETRY: Final = 0.1


@dataclass(slots=True)
class Tally:
    """lines: how many were to be written, by level. dropped: those of them that could not be."""

    lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("debug", "info", "warning", "error"), 0))
    dropped: int = 0


class Unspelt(ABC):
    @abstractmethod
    def line(self) -> Line:
        """The line, with the time at which it was said."""


class LineQueue:
    """tell: makes the line that says how many were lost. gathered: lines are written together, from gevent's loop;
    else each at once, for a process that has none or ends soon.
    """

    def __init__(self, output: Output, tell: Callable[[int], Line], *, gathered: bool = False) -> None:
        self._output = output
        self._tell = tell
        self._gathered = gathered
        self._lines: list[Line] = []
        self._unspelt: list[Unspelt] = []  # behind all lines
        self._octets = 0
        self._lost = 0
        self.tally = Tally()
        self._waiting = False  # for the loop to flush
        if gathered:
            atexit.register(self.flush)

    @property
    def pending(self) -> int:
        """Octets of lines that wait."""
        return self._octets

    def add(self, line: Line) -> None:
        """Never waits, never raises."""
        if self._unspelt:
            self._spell()
        self._keep(line)
        self._see_to_it()

    def add_unspelt(self, unspelt: Unspelt) -> None:
        """As `add`; it is spelt when it is written, or soon."""
        self._unspelt.append(unspelt)
        if len(self._unspelt) >= MAX_UNSPELT:
            self._spell()
        self._see_to_it()

    def _see_to_it(self) -> None:
        if not self._gathered:
            self.flush()
        elif not self._waiting:
            self._flush_in(GATHER)

    def _spell(self) -> None:
        unspelt, self._unspelt = self._unspelt, []
        for one in unspelt:
            self._keep(one.line())

    def _keep(self, line: Line) -> None:
        lines = self.tally.lines
        lines[line[0]] = lines.get(line[0], 0) + 1
        if self._octets >= MAX_PENDING:
            self._lost += 1
            self.tally.dropped += 1
        else:
            self._lines.append(line)
            self._octets += len(line[2])

    def flush(self) -> None:
        """Write what can be written now."""
        self._spell()
        if self._written() and self._lost:
            lost, self._lost = self._lost, 0
            line = self._tell(lost)
            self._lines.append(line)
            self._octets = len(line[2])
            self._written()
        if self._gathered and self._lines and not self._waiting:
            self._flush_in(RETRY)

    def abandon(self) -> None:
        """Close the output, and forget what waits."""
        self._lines, self._unspelt, self._octets, self._lost = [], [], 0, 0
        self._output.close()

    def _written(self) -> bool:
        """Nothing waits any more."""
        if self._lines:
            try:
                taken = self._output.write(self._lines)
            except (OSError, ValueError):
                return False
            if taken == len(self._lines):
                self._lines, self._octets = [], 0
            else:
                del self._lines[:taken]
                self._octets = sum([len(text) for _, _, text in self._lines])
        return not self._lines

    def _flush_in(self, seconds: float) -> None:
        self._waiting = True
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(self._flush_from, timer)

    def _flush_from(self, timer: Any) -> None:
        timer.close()
        self._waiting = False
        self.flush()
