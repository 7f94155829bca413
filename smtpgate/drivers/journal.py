"""The log: one JSON object a line (or a readable line) to standard output.

Also gunicorn's own lines, in the same form. Owns the format and the escaping: client text reaches it as it is and
leaves it with control, bidirectional and non-ASCII characters escaped, cut at MAX_VALUE characters
(reference/security.md G1). Secrets never reach it.

A message is two lines, so a line is made in one pass: 6 us. Through structlog and json.dumps it takes 15, and orjson
leaves what is not ASCII as it is.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from json import JSONEncoder
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, TextIO

MAX_VALUE: Final = 256  # characters of one logged value (reference/security.md G1)
MAX_TRACEBACK: Final = 8192  # of a bug's traceback, whose end tells what happened

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def open_journal(style: str, level: str, out: TextIO | None = None) -> LineJournal:
    """A Journal. style: "json" or "text"; level: one of LEVELS. Each process opens its own."""
    return LineJournal(_RENDERERS[style], LEVELS[level], out or sys.stdout, {})


Renderer = Callable[[Mapping[str, Any]], str]


class LineJournal:
    """A Journal that writes a line a call, to `out`. level: the lowest of LEVELS that is written. bound: fields that
    every line has.

    A line that cannot be written (disk full, reader gone) is lost, and mail flows on: a message that the backend has
    taken must not fail for want of a log (reference/security.md section 3).
    """

    __slots__ = ("_bound", "_level", "_out", "_render")

    def __init__(self, render: Renderer, level: int, out: TextIO, bound: Mapping[str, object]) -> None:
        self._render = render
        self._level = level
        self._out = out
        self._bound = bound

    def bind(self, **fields: object) -> LineJournal:
        """This journal, with more fields in every line."""
        return LineJournal(self._render, self._level, self._out, {**self._bound, **fields})

    def info(self, event: str, **fields: object) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if LEVELS[level] < self._level:
            return
        stamp = _stamp(datetime.now(UTC))
        # Time, level and event first: that is where eyes and grep look.
        line = self._render({"timestamp": stamp, "level": level, "event": event, **self._bound, **fields})
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except (OSError, ValueError):
            pass


def logging_config(style: str, level: str) -> dict[str, Any]:
    """For gunicorn's `logconfig_dict`: what the arbiter says goes where the journal goes, in its form."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"journal": {"()": f"{__name__}.RecordFormatter", "style_name": style}},
        "handlers": {
            "journal": {"class": "logging.StreamHandler", "formatter": "journal", "stream": "ext://sys.stdout"}
        },
        # Both: what is left out of these two gunicorn fills in, with handlers of its own.
        "root": {"handlers": ["journal"], "level": level.upper()},
        "loggers": {"gunicorn.error": {"handlers": ["journal"], "level": level.upper(), "propagate": False}},
    }


class RecordFormatter(logging.Formatter):
    """A standard log record as a line of the journal, event "process"."""

    def __init__(self, style_name: str) -> None:
        super().__init__()
        self._render = _RENDERERS[style_name]

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "timestamp": _stamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "event": "process",
            "pid": record.process,
            # gunicorn takes every socket for a web server's.
            "message": record.getMessage().replace("http://", ""),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._render(fields)


def _stamp(moment: datetime) -> str:
    """RFC 3339, of a moment in UTC."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _json(fields: Mapping[str, Any]) -> str:
    return "{" + ", ".join([f"{_quoted(key)}: {_encoded(key, value)}" for key, value in fields.items()]) + "}"


def _text(fields: Mapping[str, Any]) -> str:
    """timestamp, level and event as they are, the rest with their names; what is not known is left out."""
    known = [(key, value) for key, value in fields.items() if value is not None]
    head = [str(value) for _, value in known[:3]]
    return " ".join(head + [f"{key}={_encoded(key, value)}" for key, value in known[3:]])


_RENDERERS: Final[Mapping[str, Renderer]] = {"json": _json, "text": _text}


def _encoded(key: str, value: Any) -> str:
    """What json.dumps makes of a value; what it has no form for, as str() has it. Long ones are cut."""
    kind = type(value)
    if kind is str:
        # Everything beyond printable ASCII is escaped, lone surrogates included.
        return _quoted(value if len(value) <= MAX_VALUE else _cut(key, value))
    if value is None:
        return "null"
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join([_encoded("", item) for item in value]) + "]"
    if isinstance(value, str):  # of an enum, say
        return _encoded(key, str.__str__(value))
    return _OTHERS.encode(value)


_OTHERS: Final = JSONEncoder(ensure_ascii=True, default=str)


def _cut(key: str, value: str) -> str:
    return value[-MAX_TRACEBACK:] if key == "traceback" else value[:MAX_VALUE] + "..."
