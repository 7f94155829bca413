"""gunicorn's lines have the journal's form."""

import io
import json
import logging
import logging.config

from smtpgate.drivers.loghandler import JournalHandler, logging_config
from smtpgate.journal import FileTarget


def record(message, *args, exc_info=None):
    return logging.LogRecord("gunicorn.error", logging.INFO, "arbiter.py", 1, message, args, exc_info)


def said(given):
    out = io.StringIO()
    JournalHandler("json", out=out).handle(given)
    return out.getvalue()


def test_gunicorns_lines_have_the_same_form():
    parsed = json.loads(said(record("Listening at: %s (%s)", "http://127.0.0.1:25", 9)))
    assert list(parsed) == ["timestamp", "level", "event", "pid", "message"]
    assert (parsed["event"], parsed["level"]) == ("process", "info")
    assert parsed["message"] == "Listening at: 127.0.0.1:25 (9)"


def test_gunicorns_tracebacks_stay_in_their_line():
    try:
        raise ValueError("no")
    except ValueError as error:
        line = said(record("failed", exc_info=(ValueError, error, error.__traceback__)))
    assert line.count("\n") == 1
    assert "ValueError: no" in json.loads(line)["traceback"]


def test_the_logging_config_is_one_that_logging_takes(tmp_path):
    target = FileTarget(str(tmp_path / "log"))
    logging.config.dictConfig(logging_config("text", "info", target))
    logging.getLogger("gunicorn.error").critical("no worker %s", "lives")
    logging.getLogger("gunicorn.error").debug("of no use")
    assert (tmp_path / "log").read_text().endswith(' message="no worker lives"\n')
    assert (tmp_path / "log").read_text().count("\n") == 1
    logging.config.dictConfig(logging_config("json", "info"))
