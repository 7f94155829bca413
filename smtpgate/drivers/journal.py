"""The log: one JSON object a line (or a readable line), to standard output, a file or syslog.

Owns what every line has; `logline` spells it, `logqueue` bounds what waits, `logoutput` writes it; `loghandler`
brings the lines of gunicorn and of libraries. Secrets never reach it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TextIO

from smtpgate.drivers.logline import Frame, Stamps, Style, style
from smtpgate.drivers.logoutput import Line, TextOutput, open_output
from smtpgate.drivers.logqueue import LineQueue, Tally, Unspelt
from smtpgate.journal import Record, Row, Target

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# Of the line that tells how many were lost.
LOST: Final = "log_lines_lost"
# Of the line that tells why a file that was rotated is still written to.
NOT_REOPENED: Final = "log_not_reopened"


def open_journal(
    form: str, level: str, out: TextIO | None = None, *, to: Target = None, gathered: bool = False
) -> LineJournal:
    """A Journal. form: "json" or "text"; level: one of LEVELS. Each process opens its own.

    out: a stream, for tests; else `to`. gathered: a few milliseconds of lines are written together (`logqueue`).
    Raises OSError where a file cannot be opened.
    """
    spelling, stamps = style(form), Stamps()

    def warned(event: str, **fields: object) -> Line:
        """Of the log itself: it does not wait in the queue of which it tells."""
        stamp = stamps.of(time.time())
        return "warning", stamp, spelling.line(stamp, "warning", event, spelling.fields(fields))

    def lost(lines: int) -> Line:
        return warned(LOST, lines=lines)

    output = TextOutput(out) if out is not None else open_output(to, lambda why: warned(NOT_REOPENED, reason=why))
    return LineJournal(spelling, stamps, LEVELS[level], LineQueue(output, lost, gathered=gathered))


class LineJournal:
    """A Journal that makes a line of each call. level: the least that is written. bound: fields that every line has,
    spelt.
    """

    __slots__ = ("_bound", "_level", "_queue", "_stamps", "_style")

    def __init__(self, spelling: Style, stamps: Stamps, level: int, queue: LineQueue, bound: str = "") -> None:
        self._style = spelling
        self._stamps = stamps
        self._level = level
        self._queue = queue
        self._bound = bound

    @property
    def tally(self) -> Tally:
        """Of all journals that are bound to the same output."""
        return self._queue.tally

    def bind(self, **fields: object) -> LineJournal:
        """This journal, with more fields in every line."""
        bound = self._bound + self._style.fields(fields)
        return LineJournal(self._style, self._stamps, self._level, self._queue, bound)

    def rows(self, event: str, names: Sequence[str], row: Callable[[Record], Row]) -> LineRows[Record]:
        return LineRows(self, self._style.frame("info", event, self._bound, names), row)

    def info(self, event: str, **fields: object) -> None:
        self.write("info", event, fields, time.time())

    def warning(self, event: str, **fields: object) -> None:
        self.write("warning", event, fields, time.time())

    def error(self, event: str, **fields: object) -> None:
        self.write("error", event, fields, time.time())
        self._queue.flush()  # whoever dies of it has said so

    def flush(self) -> None:
        """Write what waits, as far as that can be done now."""
        self._queue.flush()

    def abandon(self) -> None:
        """Close what it writes to, in a process that has a copy of it; what waits is the other one's to write."""
        self._queue.abandon()

    def write(self, level: str, event: str, fields: Mapping[str, object], at: float) -> None:
        """at: Unix seconds."""
        if LEVELS[level] >= self._level:
            self._add(level, event, self._style.fields(fields), at)

    def later(self, line: Unspelt) -> None:
        """For `rows`. A line of level info that is spelt when it is written."""
        if LEVELS["info"] >= self._level:
            self._queue.add_unspelt(line)

    def spelt(self, frame: Frame, row: Row, at: float) -> Line:
        """A row. at: Unix seconds."""
        style, stamp = self._style, self._stamps.of(at)
        values, more = row
        assert len(values) == len(frame.names)
        return "info", stamp, style.row(frame, stamp, values, style.fields(more) if more else "")

    def _add(self, level: str, event: str, spelt: str, at: float) -> None:
        stamp = self._stamps.of(at)
        self._queue.add((level, stamp, self._style.line(stamp, level, event, self._bound + spelt)))


class LineRows(Generic[Record]):
    """Rows of a LineJournal: `journal.Rows`."""

    __slots__ = ("_frame", "_journal", "_row")

    def __init__(self, journal: LineJournal, frame: Frame, row: Callable[[Record], Row]) -> None:
        self._journal = journal
        self._frame = frame
        self._row = row

    def add(self, record: Record) -> None:
        self._journal.later(_UnspeltRow(self, record))

    def line(self, record: Record, at: float) -> Line:
        """at: Unix seconds."""
        return self._journal.spelt(self._frame, self._row(record), at)


class _UnspeltRow(Unspelt, Generic[Record]):
    """One of them, which waits."""

    __slots__ = ("_at", "_record", "_rows")

    def __init__(self, rows: LineRows[Record], record: Record) -> None:
        self._rows = rows
        self._record = record
        self._at = time.time()

    def line(self) -> Line:
        return self._rows.line(self._record, self._at)
