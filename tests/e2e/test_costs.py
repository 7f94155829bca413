"""What one message costs, counted and not timed: a busy machine changes none of it.

A figure here is what was measured when it was last written down. More than it is a loss that somebody should know
of; clearly less is a gain, and whoever made it writes the new figure.
"""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent.socket
import pytest
from callcount import calls
from fakes import FakeBackends, FakeStream, ManualClock, ScriptedBackend, ports
from peers.fixtures import StartSink
from peers.process import HOST, wait_until
from peers.smtptools import smtp_source
from stack import Stack

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.journal import LineJournal, open_journal
from smtpgate.drivers.stream import SocketStream
from smtpgate.session import flow
from smtpgate.smtp.server import ServerSettings

SESSION_CALLS = 1408
"""Python and C functions of one session with one message: session, smtp and the log, between fakes. 115 of them are
list.append, the cheapest there is."""

LOG_LINE_CALLS = 58
"""Of a log line with a dozen fields."""

POLL_CALLS, READ_CALLS, WRITE_CALLS = 4, 6, 7
"""Of a stream that need not wait."""

ALLOWANCE = 0.05

SYSTEM_CALLS = {
    "accept4": 1,
    "getsockname": 2,  # one is CPython's, which asks for each socket that it is given
    "ioctl": 2,  # gevent: FIONBIO; FIONREAD: has the client said anything that nobody has read, when it is closed
    "fcntl": 2,  # libev looks at the two watchers' descriptors
    "getrandom": 1,  # the session's id
    "recvfrom": 10,  # six from the client, three or four from the backend, as MAIL and RCPT are answered apart or not
    "sendto": 10,  # seven to the client; MAIL with RCPT, DATA, the text with its end to the backend
    # Has the backend said anything before it is taken and asked for MAIL, for DATA, told the final dot; and is there
    # another connection to accept.
    "poll": 4,
    "write": 1,  # the log: two lines, those of 10 ms together
    "close": 1,
    # As many as it happens that nobody has anything to do.
    "epoll_wait": 2,
    "epoll_ctl": 2,
    "getpid": 2,
}
"""Of the worker, at most, that succeed for each message of a connection of its own. Two limits are in memory, and the
connections to the backend are used again. Beside these nothing may be called once a message.
"""

RARELY = 0.2
"""Calls a message; below it something is done by time, or once for many."""

MESSAGES = 200

LIMITS = """\
version: 1
limits:
  net.msgs: {event: mail, rate: 1000000/1s, key: "{net}", deny: {reply: "450 4.7.1 slow down"}}
  net.rcpts: {event: rcpt, rate: 1000000/1s, key: "{net}", deny: {reply: "450 4.7.1 slow down"}}
"""

ENVELOPE = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"
TEXT = b"Subject: x\r\n\r\n" + 14 * (b"x" * 68 + b"\r\n") + b".\r\n"
SETTINGS = flow.SessionSettings("relay", ServerSettings("mx.test", ("PIPELINING",), (), auth_required=False))


def session(journal: LineJournal, log: io.StringIO) -> None:
    stream = FakeStream(
        [b"EHLO c.test\r\n", b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n", b"DATA\r\n", TEXT, b"QUIT\r\n"]
    )
    backend = ScriptedBackend(
        [
            (b"", b"220 mta1\r\n"),
            (b"EHLO mx.test\r\n", b"250-mta1\r\n250 PIPELINING\r\n"),
            (ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (TEXT, b"250 2.0.0 Ok: queued as 4F2\r\n"),
        ]
    )
    clock = ManualClock()
    world = ports(clock, FakeBackends(clock, [("b1", backend)]), journal=journal)
    flow.run(stream, SETTINGS, world)
    journal.flush()
    assert '"outcome": "delivered"' in log.getvalue()


def near(figure: float) -> object:
    return pytest.approx(figure, rel=ALLOWANCE)


def test_a_session_between_fakes() -> None:
    log = io.StringIO()
    journal = open_journal("json", "info", log, gathered=True)
    session(journal, log)  # whatever is made once is made
    assert calls(session, journal, log) == near(SESSION_CALLS)


def test_a_log_line() -> None:
    journal = open_journal("json", "info", io.StringIO(), gathered=True).bind(pid=7)
    fields = {f"text{n}": "some text" for n in range(8)} | {"count": 1, "seconds": 0.5, "user": None, "names": ["a"]}
    assert calls(lambda: journal.info("transaction", **fields)) == near(LOG_LINE_CALLS)


@pytest.fixture
def pair() -> Iterator[tuple[SocketStream, gevent.socket.socket]]:
    near_end, far_end = gevent.socket.socketpair()
    stream = SocketStream(near_end)
    yield stream, far_end
    stream.close()
    far_end.close()


def test_a_stream_that_need_not_wait(pair: tuple[SocketStream, gevent.socket.socket]) -> None:
    stream, peer = pair
    deadline = Deadline(SystemClock(), 5.0)
    stream.readable()  # the first makes what it needs
    peer.sendall(b"NOOP\r\n")
    assert calls(stream.readable) == near(POLL_CALLS)
    assert calls(stream.read, deadline) == near(READ_CALLS)
    assert calls(stream.write, b"250 OK\r\n", deadline) == near(WRITE_CALLS)


def test_the_system_calls_of_a_message(
    tmp_path: Path, start_stack: Callable[..., Stack], smtp_sink: StartSink
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    stack = start_stack(
        [(HOST, smtp_sink().port)],
        listeners=[{"name": "relay", "auth": ["none"]}],
        policy={"limits.yaml": LIMITS},
        pool={"xclient": "off"},
        auth_url=None,
    )
    port = stack.proxy[1]
    assert smtp_source(port, messages=50).returncode == 0  # connections to the backend are made
    counted = count_system_calls(stack.worker_pids()[0], tmp_path / "calls", port)
    often = {name: count / MESSAGES for name, count in counted.items() if count >= RARELY * MESSAGES}
    assert often["sendto"] == near(SYSTEM_CALLS["sendto"])  # it was this that was counted
    assert {name: n for name, n in often.items() if n > SYSTEM_CALLS.get(name, 0) * (1 + ALLOWANCE)} == {}


def count_system_calls(pid: int, out: Path, port: int) -> dict[str, int]:
    """Those of a process that succeed while MESSAGES messages are sent to `port`, by name."""
    argv = ["strace", "-c", "-f", "-p", str(pid), "-o", str(out)]
    strace = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        status = Path(f"/proc/{pid}/status")
        wait_until(
            lambda: strace.poll() is not None or "TracerPid:\t0\n" not in status.read_text(), "strace attached"
        )
        if strace.poll() is not None:
            pytest.skip(f"strace may not attach: {strace.communicate()[1].strip()}")
        assert smtp_source(port, messages=MESSAGES).returncode == 0
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=10)
    # % time, seconds, usecs/call, calls, errors where there were any, name
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(\d+)? +(\w+)$", out.read_text(), re.MULTILINE)
    return {name: int(count) - int(errors or 0) for count, errors, name in rows if name != "total"}
