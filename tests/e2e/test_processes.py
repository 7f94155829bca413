"""The proxy as a service: checked, crashed, drained, started twice, and gone without a trace.

Its reload and its upgrade are in test_reload.py.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from peers.process import HOST, LATE, Process, answers, free_port, wait_until
from peers.smtptools import SmtpSink
from rawclient import TIMEOUT, RawClient
from recorder import Recorder
from stack import RELAY, ROOT, Stack

GOODBYE = b"421 4.3.2 Service shutting down, try again later\r\n"
AT_ONCE, GRACEFUL = 3.0, 6.0
"""Seconds: who has nothing under way does not wait for the end of `graceful_timeout`."""

GREETING = b"220 proxy.example.net ESMTP ready\r\n"
PROXY = str(ROOT / "proxy.py")
BAD_CONF = """\
server_name: mail.example.com
workers: 1
wrokers: 2
listeners:
  - name: submission
    bind: 127.0.0.1:70000
    auth: [plain]
"""


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    server = SmtpSink(tmp_path_factory.mktemp("sink"))
    yield server
    server.stop()


@pytest.fixture
def start(sink: SmtpSink, start_stack: Callable[..., Stack]) -> Callable[..., Stack]:
    """A proxy without logins: the auth service has no part in these tests."""

    def begin(**settings: object) -> Stack:
        return start_stack([(HOST, sink.port)], **{"auth_url": None, "listeners": [RELAY], **settings})

    return begin


class UnixClient(RawClient):
    """A RawClient at a unix socket."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(path))
        self.ended = False
        self._buffer = b""


def run_proxy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """To its end, which has to come by itself."""
    argv = [sys.executable, PROXY, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def ends(process: Process, timeout: float) -> None:
    """The process ends by itself, and so does all that it started."""
    wait_until(lambda: not process.running, "the arbiter's end", timeout)
    wait_until(lambda: process.members() == [], "the end of its workers")


# --- --check -------------------------------------------------------------------------------------------------


def test_check_of_what_is_valid() -> None:
    done = run_proxy("-c", ROOT / "conf/proxy.yaml", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ROOT}/conf/proxy.yaml: valid\n", "")


def test_check_tells_every_problem_and_its_place(tmp_path: Path) -> None:
    conf = tmp_path / "proxy.yaml"
    conf.write_text(BAD_CONF)
    done = run_proxy("-c", conf, "--check")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"{conf}:") and "; expected " in line for line in lines), lines
    assert [line.removeprefix(f"{conf}:").partition(": ")[0] for line in lines] == ["1:1", "3:1", "6:5"]
    # Somebody has to know the passwords of a listener with logins.
    assert [name for name in ("auth_http", "wrokers", "listeners[0].bind") if f": {name}: " in done.stderr] == [
        "auth_http",
        "wrokers",
        "listeners[0].bind",
    ]
    # Without --check it is the same, and nothing is started.
    started = run_proxy("-c", conf)
    assert (started.returncode, started.stdout, started.stderr) == (2, "", done.stderr)


def test_check_reads_the_policies_too(tmp_path: Path) -> None:
    conf = tmp_path / "proxy.yaml"
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "limits.yaml").write_text("version: 1\nlimits:\n  a: {event: mail, rate: 10}\n")
    conf.write_text(
        "server_name: mail.example.com\npolicies: policies/\n"
        f"listeners: [{{name: mx, bind: '{HOST}:2525', auth: [none]}}]\n"
    )
    done = run_proxy("-c", conf, "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/policies/limits.yaml:3:" in done.stderr
    assert "limits.a.rate: 10 is not a rate; expected " in done.stderr.replace("limits[a]", "limits.a")


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run_proxy("-c", tmp_path / "none.yaml", "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path}/none.yaml:1:1: ")
    assert "No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- crashes -------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_the_others_go_on(start: Callable[..., Stack]) -> None:
    stack = start(workers=2)
    workers = stack.worker_pids()
    with RawClient(stack.proxy) as client:
        client.greeted().deliver()
        [line] = stack.wait_for_event("transaction")
        [killed] = [pid for pid in workers if pid != line["pid"]]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in stack.worker_pids() and len(stack.worker_pids()) == 2, "a new worker")
        assert client.deliver().startswith(b"250 ")
    for _ in range(4):
        with RawClient(stack.proxy) as client:
            client.greeted()
            assert client.deliver().startswith(b"250 ")


def test_a_killed_worker_is_replaced_while_the_policies_are_broken(start: Callable[..., Stack]) -> None:
    """A mistake in a file and a crash must not add up to an outage: the last good policies are in force."""
    stack = start(policy={"limits.yaml": _one_message_an_hour("good")})
    stack.edit_policy("limits.yaml", "version: 1\nlimits: [\n")
    stack.wait_for_event("policies_rejected")
    [killed] = stack.worker_pids()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: stack.worker_pids() not in ([], [killed]), "a new worker")
    with RawClient(stack.proxy) as client:
        client.greeted()
        assert client.deliver().startswith(b"250 ")
        assert client.ask(b"MAIL FROM:<a@example.com>") == b"450 4.7.1 good\r\n"
    # It tells of the fault as the one before did, and takes the repaired files.
    stack.wait_for_event("policies_rejected", 2)
    stack.edit_policy("limits.yaml", _one_message_an_hour("repaired"))
    stack.wait_for_event("policies_loaded", 2)
    with RawClient(stack.proxy) as client:
        assert client.greeted().ask(b"MAIL FROM:<a@example.com>") == b"450 4.7.1 repaired\r\n"


def test_workers_do_not_outlive_a_killed_arbiter(start: Callable[..., Stack]) -> None:
    stack = start(workers=2)
    stack.signal(signal.SIGKILL)
    wait_until(lambda: not stack.process.running, "the arbiter's end")
    wait_until(lambda: stack.process.members() == [], "the workers' end")


# --- TERM ----------------------------------------------------------------------------------------------------


def test_term_lets_transactions_finish_and_cuts_what_does_not(start_stack: Callable[..., Stack]) -> None:
    with Recorder(HOST, free_port()) as backend, ExitStack() as open_clients:
        stack = start_stack(
            [backend.address],
            auth_url=None,
            listeners=[RELAY],
            proxy={"graceful_timeout": f"{GRACEFUL:g}s"},
            workers=2,
        )
        clients = [open_clients.enter_context(RawClient(stack.proxy)) for _ in range(5)]
        resting, between, mailing, sending, stuck = clients
        resting.greeted()
        between.greeted().deliver()
        mailing.greeted().envelope()
        for client in (sending, stuck):
            client.greeted().envelope().opened().send(b"Subject: x\r\n")
        began = time.monotonic()
        stack.signal(signal.SIGTERM)
        for client in (resting, between):
            assert client.reply() == GOODBYE
            assert client.at_end()
            assert time.monotonic() - began < AT_ONCE
        wait_until(lambda: not answers(stack.proxy[1]), "the last worker has closed its listener", AT_ONCE)
        # A second recipient, the text, and its 250 come all behind the TERM; only then it is over.
        assert mailing.ask(b"RCPT TO:<c@example.com>").startswith(b"250 ")
        mailing.opened().send(b"Subject: y\r\n\r\ny\r\n.\r\n")
        sending.send(b"\r\nx\r\n.\r\n")
        for client in (mailing, sending):
            assert client.reply().startswith(b"250 ")
            assert client.reply() == GOODBYE
            assert client.at_end()
        assert stack.process.running
        assert time.monotonic() - began < GRACEFUL
        assert stuck.reply() == GOODBYE
        assert stuck.at_end()
        assert GRACEFUL <= time.monotonic() - began < GRACEFUL + LATE
        ends(stack.process, LATE)
        assert stack.process.stop() == 0
        assert sorted(len(message.recipients) for message in backend.messages) == [1, 1, 2]
    assert sorted(line["end"] for line in stack.log_events("session")) == [*["closed with 421"] * 4, "cut off"]
    assert [line["outcome"] for line in stack.log_events("transaction")] == [*["delivered"] * 3, "cut off"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_nothing_is_left_behind(start: Callable[..., Stack], number: signal.Signals) -> None:
    stack = start(workers=2, proxy={"graceful_timeout": f"{2 * LATE:g}s"})
    with RawClient(stack.proxy) as client:
        client.greeted()
        stack.signal(number)
        ends(stack.process, LATE)
    assert stack.process.stop() == 0
    assert not answers(stack.proxy[1])


# --- sockets -------------------------------------------------------------------------------------------------


def test_a_taken_port_is_a_clear_message(start: Callable[..., Stack]) -> None:
    stack = start()
    began = time.monotonic()
    second = run_proxy("-c", stack.proxy_conf)
    assert second.returncode == 1
    assert time.monotonic() - began < 10 + LATE
    printed = second.stdout + second.stderr
    assert re.search(rf"{re.escape(HOST)}\W+{stack.proxy[1]}\b.*[Aa]ddress already in use", printed), printed
    assert "Traceback" not in printed
    assert _greeting(stack) == GREETING


def test_several_listeners_each_with_its_own_rules(start: Callable[..., Stack]) -> None:
    stack = start(
        listeners=[
            {"name": "inbound", "auth": ["none"], "capabilities": ["SIZE 1000"]},
            {"name": "other", "auth": ["none"], "capabilities": ["SIZE 2000"], "helo_required": True},
        ],
        policy={"limits.yaml": _one_message_an_hour("inbound.only", "match: {listener: inbound}")},
    )
    with RawClient(stack.listeners["inbound"]) as inbound, RawClient(stack.listeners["other"]) as other:
        assert inbound.reply() == other.reply() == GREETING
        assert other.ask(b"MAIL FROM:<a@example.com>")[:3] == b"503"
        assert b"SIZE 1000" in inbound.ask(b"EHLO client.example")
        assert b"SIZE 2000" in other.ask(b"EHLO client.example")
        assert inbound.deliver().startswith(b"250 ")
        assert inbound.ask(b"MAIL FROM:<a@example.com>") == b"450 4.7.1 inbound.only\r\n"
        for _ in range(2):
            assert other.deliver().startswith(b"250 ")
    delivered = stack.wait_for_event("transaction", 3)
    assert [line["listener"] for line in delivered] == ["inbound", "other", "other"]


def test_a_listener_on_a_unix_socket(start: Callable[..., Stack], tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    stack = start(listeners=[{**RELAY, "bind": f"unix:{path}"}])
    with UnixClient(path) as client:
        client.greeted()
        assert client.deliver().startswith(b"250 ")
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
    [line] = stack.wait_for_event("transaction")
    assert (line["client"], line["outcome"]) == ("unix:", "delivered")
    assert stack.stop() == 0
    assert not path.exists()


def _greeting(stack: Stack) -> bytes:
    with RawClient(stack.proxy) as client:
        return client.reply()


def _one_message_an_hour(word: str, match: str = "match: {}") -> str:
    """limits.yaml; whoever comes second is told that word."""
    deny = f'deny: {{reply: "450 4.7.1 {word}"}}'
    return f'version: 1\nlimits:\n  few: {{event: mail, rate: 1/1h, burst: 1, key: "all", {match}, {deny}}}\n'
