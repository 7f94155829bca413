"""One line an event, escaped, bounded, in order."""

import enum
import io
import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.drivers.journal import LOST, LineJournal, open_journal
from smtpgate.drivers.logline import MAX_TRACEBACK, MAX_VALUE, Stamps, style
from smtpgate.drivers.logoutput import PipeOutput
from smtpgate.drivers.logqueue import LineQueue


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


@pytest.mark.parametrize("style", ["json", "text"])
def test_rows_are_lines_as_any_others(style):
    journal, out = lines(style)
    journal = journal.bind(pid=7)
    journal.rows("session", ["user", "count"], lambda name: ((name, 3), {"end": "quit"})).add("ann")
    journal.info("session", user="ann", count=3, end="quit")
    row, line = out.getvalue().splitlines()
    assert row[len(WHEN) :].partition(" ")[2] == line[len(WHEN) :].partition(" ")[2]


WHEN = '{"timestamp": "2026-11-22T21:48:57.000001Z'


def test_a_row_has_a_value_for_each_name():
    journal, _ = lines()
    with pytest.raises(AssertionError):
        journal.rows("session", ["user", "count"], lambda name: ((name,), None)).add("ann")


def test_the_level_holds_rows_back():
    journal, out = lines(level="warning")
    journal.rows("session", ["user"], lambda name: ((name,), None)).add("ann")
    assert out.getvalue() == ""


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
    assert time.monotonic() - began < 30.0
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


FORKING = """
from gevent import monkey
monkey.patch_all()
import logging, os, sys
from smtpgate.drivers.loghandler import JournalHandler
from smtpgate.journal import FileTarget, SyslogTarget

waitpid = monkey.get_original("os", "waitpid")  # gevent's own waits for a loop that has not begun

def say(words):
    handler.handle(logging.makeLogRecord({"msg": words, "levelname": "INFO"}))

where, value = sys.argv[1:]
target = SyslogTarget("tcp", "127.0.0.1", int(value)) if where == "tcp" else FileTarget(value)
handler = JournalHandler("json", target)
say("parent")
if where == "file":
    os.rename(value, value + ".1")
    os.mkdir(value)  # the child cannot open it, and has its copy of the descriptor
if (child := os.fork()) == 0:
    say("child")
    say("child again")
    os._exit(0)
assert waitpid(child, 0)[1] == 0
say("parent again")
"""


def messages(octets):
    return [re.search(r'"message": "([^"]*)"', line)[1] for line in octets.decode().split("{")[1:]]


def forked(*arguments):
    done = subprocess.run([sys.executable, "-c", FORKING, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_process_has_its_own_stream_to_a_syslog_server():
    """Two that write into one would tear each other's counted octets apart."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        forked("tcp", str(server.getsockname()[1]))
        server.settimeout(5)
        heard = []
        for _ in range(2):
            connection, _address = server.accept()
            with connection:
                heard.append(messages(b"".join(iter(lambda: connection.recv(4096), b""))))  # noqa: B023 - run at once
    assert sorted(heard) == [["child", "child again"], ["parent", "parent again"]]


def test_a_process_that_may_not_open_the_file_writes_to_the_inherited_one(tmp_path):
    forked("file", str(tmp_path / "log"))
    assert messages((tmp_path / "log.1").read_bytes()) == ["parent", "child", "child again", "parent again"]
