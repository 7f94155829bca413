"""The log: one JSON object a line (or a readable line), to standard output, a file or syslog.

Also gunicorn's own lines, and whatever libraries say through `logging`, in the same form to the same place. Owns what
every line has; `logline` spells it, `logqueue` bounds what waits, `logoutput` writes it. Secrets never reach it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

from smtpgate.drivers.logline import Stamps, Style, style
from smtpgate.drivers.logoutput import Line, TextOutput, open_output
from smtpgate.drivers.logqueue import LineQueue, Tally
from smtpgate.journal import Target

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# Of the line that tells how many were lost.
LOST: Final = "log_lines_lost"


def open_journal(
    form: str, level: str, out: TextIO | None = None, *, to: Target = None, gathered: bool = False
) -> LineJournal:
    """A Journal. form: "json" or "text"; level: one of LEVELS. Each process opens its own.

    out: a stream, for tests; else `to`. gathered: a few milliseconds of lines are written together (`logqueue`).
    Raises OSError where a file cannot be opened.
    """
    output = open_output(to) if out is None else TextOutput(out)
    spelling, stamps = style(form), Stamps()

    def lost(lines: int) -> Line:
        stamp = stamps.of(time.time())
        return "warning", stamp, spelling.line(stamp, "warning", LOST, spelling.fields({"lines": lines}))

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

    def write(self, level: str, event: str, fields: Mapping[str, object], at: float) -> None:
        """at: Unix seconds."""
        if LEVELS[level] >= self._level:
            stamp = self._stamps.of(at)
            spelt = self._bound + self._style.fields(fields)
            self._queue.add((level, stamp, self._style.line(stamp, level, event, spelt)))


def logging_config(form: str, level: str, to: Target = None) -> dict[str, Any]:
    """For gunicorn's `logconfig_dict`: what the arbiter says goes where the journal goes, in its form."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"journal": {"class": f"{__name__}.JournalHandler", "form": form, "to": to}},
        # Both: what is left out of these two gunicorn fills in, with handlers of its own.
        "root": {"handlers": ["journal"], "level": level.upper()},
        "loggers": {"gunicorn.error": {"handlers": ["journal"], "level": level.upper(), "propagate": False}},
    }


class JournalHandler(logging.Handler):
    """Standard log records as lines of the journal, event "process". Never waits: gunicorn's workers speak too."""

    def __init__(self, form: str, to: Target = None, out: TextIO | None = None) -> None:
        super().__init__()
        self._journal = open_journal(form, "debug", out, to=to)

    def emit(self, record: logging.LogRecord) -> None:
        # gunicorn takes every socket for a web server's.
        fields: dict[str, object] = {"pid": record.process, "message": record.getMessage().replace("http://", "")}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        level = record.levelname.lower()
        self._journal.write(level if level in LEVELS else "info", "process", fields, record.created)
