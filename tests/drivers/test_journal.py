"""One line an event, escaped, bounded, in order; gunicorn's lines in the same form."""

import enum
import io
import json
import logging
import logging.config
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.drivers.journal import LOST, JournalHandler, LineJournal, logging_config, open_journal
from smtpgate.drivers.logline import MAX_TRACEBACK, MAX_VALUE, Stamps, style
from smtpgate.drivers.logoutput import PipeOutput
from smtpgate.drivers.logqueue import LineQueue
from smtpgate.journal import FileTarget


def lines(style="json", level="info"):
    out = io.StringIO()
    return open_journal(style, level, out), out


def test_a_json_line_begins_with_time_level_and_event():
    journal, out = lines()
    journal.info("session", client="192.0.2.7", seconds=0.5)
    line = out.getvalue()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    parsed = json.loads(line)
    assert list(parsed) == ["timestamp", "level", "event", "client", "seconds"]
    assert (parsed["level"], parsed["event"], parsed["seconds"]) == ("info", "session", 0.5)


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("hostile", ["a\r\nb", "\x1b[2J", "\u202e", "\u2028", "\x00", "\udcff", 'x" y="z', "\x85"])
def test_client_text_cannot_forge_or_hide_a_line(style, hostile):
    journal, out = lines(style)
    journal.info("auth", login=hostile)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert line.rstrip("\n").isascii()
    assert line.rstrip("\n").isprintable()
    if style == "json":
        assert json.loads(line)["login"] == hostile


def test_values_are_cut():
    journal, out = lines()
    journal.info("auth", login="x" * 10_000, listed=["y" * 10_000])
    parsed = json.loads(out.getvalue())
    assert parsed["login"] == "x" * MAX_VALUE + "..."
    assert parsed["listed"] == ["y" * MAX_VALUE + "..."]


class Colour(enum.StrEnum):
    RED = "red"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=MAX_VALUE),  # lone surrogates among them
    st.binary(max_size=8),  # has no form in JSON
    st.just(Colour.RED),
)


@given(
    st.one_of(
        SCALARS,
        st.lists(SCALARS),
        st.tuples(SCALARS, st.lists(SCALARS)),
        st.dictionaries(st.text(max_size=8), SCALARS),
    )
)
def test_a_value_is_spelt_as_json_dumps_spells_it(value):
    journal, out = lines()
    journal.info("e", value=value)
    assert out.getvalue().partition(', "value": ')[2] == json.dumps(value, ensure_ascii=True, default=str) + "}\n"


def test_an_object_without_a_form_is_what_str_makes_of_it():
    journal, out = lines()
    journal.info("e", reason=ValueError('no "x"\n'))
    assert json.loads(out.getvalue())["reason"] == 'no "x"\n'


@pytest.mark.parametrize("style", ["json", "text"])
def test_times_sort_as_text(style):
    journal, out = lines(style)
    journal.info("e")
    stamp = json.loads(out.getvalue())["timestamp"] if style == "json" else out.getvalue().split(" ")[0]
    assert len(stamp) == len("2026-11-22T21:48:57.000001Z")
    assert stamp[10] == "T"
    assert stamp.endswith("Z")


def test_the_level_holds_lines_back():
    journal, out = lines(level="warning")
    journal.info("session")
    journal.warning("denied")
    assert json.loads(out.getvalue())["event"] == "denied"


def test_text_leaves_out_what_is_not_known():
    journal, out = lines("text")
    journal.info("session", user=None, helo="c.test")
    assert out.getvalue().split(" ", 1)[1] == 'info session helo="c.test"\n'


def test_bound_fields_are_in_every_line():
    journal, out = lines()
    journal.bind(pid=7).error("bug")
    assert json.loads(out.getvalue())["pid"] == 7


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


class Full(io.StringIO):
    """A disk without room: every write fails."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_is_lost_and_mail_flows_on():
    open_journal("json", "info", Full()).info("transaction", outcome="delivered")
    closed = io.StringIO()
    closed.close()
    open_journal("json", "info", closed).info("transaction")


def test_with_nobody_who_reads_the_log_nothing_waits_and_each_line_is_told_of():
    """The whole of it on a real pipe: what was read and what was said to be lost are together what was said."""
    reading, writing = os.pipe()
    output = PipeOutput(writing)
    spelling = style("json")
    tell = lambda lost: ("warning", "T", spelling.line("T", "warning", LOST, spelling.fields({"lines": lost})))  # noqa: E731
    journal = LineJournal(spelling, Stamps(), 20, LineQueue(output, tell))
    began = time.monotonic()
    for _ in range(5000):
        journal.info("transaction", filling="x" * 200, more="x" * 200)
    assert time.monotonic() - began < 5.0
    os.set_blocking(reading, False)
    read = b""
    while b"lines" not in read[-100:]:
        journal.flush()
        try:
            read += os.read(reading, 1 << 16)
        except BlockingIOError:
            pass
    *said, last = [json.loads(line) for line in read.splitlines()]
    assert (last["event"], last["level"]) == ("log_lines_lost", "warning")
    assert 0 < last["lines"] < 5000
    assert len(said) + last["lines"] == 5000
    output.close()
    os.close(reading)
    os.close(writing)


def test_the_end_of_a_traceback_is_what_is_kept():
    journal, out = lines()
    journal.error("bug", traceback="x" * 20_000 + "ZeroDivisionError: the cause")
    kept = json.loads(out.getvalue())["traceback"]
    assert len(kept) == MAX_TRACEBACK
    assert kept.endswith("ZeroDivisionError: the cause")
