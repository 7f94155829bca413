"""`tools/run` as a newcomer meets it: the command itself, on its own ports, and the line that it says to paste.

What it refuses, and the whole of it where these ports are taken, is in tests/tools/test_run.py.
"""

from __future__ import annotations

import mailbox
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers.process import LATE, Process, answers, require, wait_until
from stack import ROOT

pytestmark = pytest.mark.programs

LOCALHOST = "127.0.0.1"
PORTS = (20025, 18080, 10025)
UP_TIMEOUT = 60.0
"""Seconds; the first run in a fresh clone also fills .venv, which is tools/test's matter here."""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """tools/run, up."""
    require("swaks")
    taken = [port for port in PORTS if answers(port, LOCALHOST)]
    if taken:
        pytest.skip(f"somebody listens on {LOCALHOST}, port {', '.join(map(str, taken))}")
    process = Process("run", [str(ROOT / "tools/run")], tmp_path_factory.mktemp("run"))
    try:
        wait_until(lambda: "a restart." in process.output() or not process.running, "tools/run is up", UP_TIMEOUT)
        assert process.running, process.output()
        yield process
    finally:
        if process.running:
            process.signal(signal.SIGINT)
            wait_until(lambda: not process.running, "the end of tools/run")
        process.stop()


@pytest.fixture
def maildir() -> Iterator[mailbox.Maildir]:
    """Where the sink puts mail, put back as it was afterwards."""
    found = mailbox.Maildir(ROOT / "var/maildir")
    before = set(found.keys())
    yield found
    for key in set(found.keys()) - before:
        found.remove(key)


def printed(process: Process, start: str) -> str:
    [line] = [line.strip() for line in process.output().splitlines() if line.strip().startswith(start)]
    return line


def run(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_the_printed_line_delivers(gate: Process, maildir: mailbox.Maildir, mechanism: str) -> None:
    before = set(maildir.keys())
    line = printed(gate, "swaks ").replace("--auth PLAIN", f"--auth {mechanism}")
    done = run(f"{line} --header 'Subject: by {mechanism}' --body 'hello there'")
    assert done.returncode == 0, done.stdout + done.stderr
    [key] = set(maildir.keys()) - before
    message = maildir[key]
    assert (message["Subject"], message["To"], message["From"]) == (
        f"by {mechanism}",
        "b@example.com",
        "a@example.com",
    )
    assert message.get_payload().strip() == "hello there"
    wait_until(lambda: f"file=new/{key}" in gate.output(), "the sink's line for it")
    wait_until(lambda: "backend=sink" in gate.output(), "the proxy's line for it")


def test_a_wrong_password_is_refused_after_its_delay(gate: Process, maildir: mailbox.Maildir) -> None:
    before = set(maildir.keys())
    began = time.monotonic()
    done = run(printed(gate, "swaks ").replace("--auth-password 1234", "--auth-password 1235"))
    assert done.returncode == 28, done.stdout  # swaks(1): authentication failed
    assert "<** 535 5.7.8 Authentication credentials invalid" in done.stdout
    assert time.monotonic() - began >= 1.0
    assert set(maildir.keys()) == before


def test_a_second_one_says_who_is_in_its_way(gate: Process, tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "tools/run"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    for port, wanted in (
        (20025, "proxy wants it (listener submission in conf/proxy.yaml)"),
        (18080, "auth wants it"),
    ):
        start = f"tools/run: {LOCALHOST}:{port}: address already in use; {wanted}"
        assert [line for line in lines if line.startswith(start)], done.stderr
    assert gate.running


def test_ctrl_c_ends_all_of_it(gate: Process) -> None:
    """The last test of this module: the fixture's own end has nothing left to do."""
    began = time.monotonic()
    gate.signal(signal.SIGINT)
    wait_until(lambda: not gate.running, "the end of tools/run")
    assert time.monotonic() - began < 5.0 + LATE
    assert gate.stop() == 0
    assert gate.output().endswith("\nended\n")
    assert [port for port in PORTS if answers(port, LOCALHOST)] == []
    assert "Traceback" not in gate.output()
    # Lines for a reader, not JSON.
    assert '{"' not in gate.output()
