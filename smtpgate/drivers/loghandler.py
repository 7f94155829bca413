"""gunicorn's own lines, and whatever libraries say through `logging`, in the journal's form to the journal's place.

Owns the way from a record of `logging` to a line. Refuses to know how a line is spelt and written (`journal`).
"""

from __future__ import annotations

import logging
import os
from typing import Any, TextIO

from smtpgate.drivers.journal import LEVELS, LineJournal, open_journal
from smtpgate.journal import Target


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
    """Standard log records as lines of the journal, event "process". Never waits: gunicorn's workers speak too.

    It is made in the process that forks the workers. Each of them opens its own output with its first line: in one
    TCP stream the lines of two processes would be torn apart, and what waits for a syslog server would be said twice.
    """

    def __init__(self, form: str, to: Target = None, out: TextIO | None = None) -> None:
        super().__init__()
        self._form, self._to, self._out = form, to, out
        self._open()

    def _open(self) -> None:
        self._journal = open_journal(self._form, "debug", self._out, to=self._to)
        self._pid = os.getpid()

    def _own(self) -> LineJournal:
        if self._pid != os.getpid():
            inherited = self._journal
            try:
                self._open()
            except OSError:  # a file that is root's, where the worker is not: the copy of the descriptor serves
                self._pid = os.getpid()
            else:
                inherited.abandon()
        return self._journal

    def emit(self, record: logging.LogRecord) -> None:
        # gunicorn takes every socket for a web server's.
        fields: dict[str, object] = {"pid": record.process, "message": record.getMessage().replace("http://", "")}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        level = record.levelname.lower()
        journal = self._own()
        journal.write(level if level in LEVELS else "info", "process", fields, record.created)
