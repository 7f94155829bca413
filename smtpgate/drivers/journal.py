"""The log: one JSON object a line (or a readable line), through structlog, to standard output.

Also gunicorn's own lines, in the same form. Owns the format and the escaping: client text reaches it as it is and
leaves it with control, bidirectional and non-ASCII characters escaped, cut at MAX_VALUE characters
(reference/security.md G1). Secrets never reach it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, cast

import structlog

MAX_VALUE: Final = 256  # characters of one logged value (reference/security.md G1)
MAX_TRACEBACK: Final = 8192  # of a bug's traceback, whose end tells what happened

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def open_journal(style: str, level: str, out: TextIO | None = None) -> structlog.typing.FilteringBoundLogger:
    """A Journal. style: "json" or "text"; level: one of LEVELS. Each process opens its own."""
    render = _RENDERERS[style]
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast(TextIO, _Tolerant(out or sys.stdout))),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return logger


class _Tolerant:
    """Where lines go. A line that cannot be written (disk full, reader gone) is lost, and mail flows on: a message
    that the backend has taken must not fail for want of a log (reference/security.md section 3).
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        try:
            self._out.write(text)
        except (OSError, ValueError):
            pass

    def flush(self) -> None:
        try:
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
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": "process",
            "pid": record.process,
            # gunicorn takes every socket for a web server's.
            "message": record.getMessage().replace("http://", ""),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._render(None, record.levelname.lower(), fields)


def _json(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> str:
    # ensure_ascii escapes everything beyond printable ASCII, lone surrogates included.
    return json.dumps({key: _bounded(key, value) for key, value in _ordered(fields)}, ensure_ascii=True, default=str)


def _text(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> str:
    ordered = {key: _bounded(key, value) for key, value in _ordered(fields) if value is not None}
    head = [str(ordered.pop(key)) for key in ("timestamp", "level", "event")]
    return " ".join(head + [f"{key}={json.dumps(value, default=str)}" for key, value in ordered.items()])


_RENDERERS: Final = {"json": _json, "text": _text}


def _ordered(fields: MutableMapping[str, Any]) -> list[tuple[str, Any]]:
    """Time, level and event first: that is where eyes and grep look."""
    first = [(key, fields.pop(key, None)) for key in ("timestamp", "level", "event")]
    return first + list(fields.items())


def _bounded(key: str, value: Any) -> Any:
    if key == "traceback":
        return value[-MAX_TRACEBACK:]
    if isinstance(value, str) and len(value) > MAX_VALUE:
        return value[:MAX_VALUE] + "..."
    if isinstance(value, list | tuple):
        return [_bounded("", item) for item in value]
    return value
