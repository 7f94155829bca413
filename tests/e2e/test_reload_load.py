"""Certificates replaced, the configuration reloaded five times and the program upgraded once, while mail flows.

SMTPGATE_LONG=1 makes it 200 sessions a second for half a minute; by default it is what two cores of a CI runner do
beside other things.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import Authority, Pair
from peers.process import HOST, free_port, wait_until
from processtree import children, running
from rawclient import RawClient
from recorder import Recorder
from sessionload import SessionLoad, Target
from stack import RELAY, SUBMISSION, Stack

LONG = os.environ.get("SMTPGATE_LONG") == "1"
RATE = 200.0 if LONG else 60.0
PAUSE = 4.0 if LONG else 0.4
"""Seconds of undisturbed load between two events."""
WORKERS = 2
NUMBER = re.compile(rb"\AMessage-ID: <(\d+)@load>\r\n")


@pytest.fixture
def backend() -> Iterator[Recorder]:
    with Recorder(HOST, free_port()) as server:
        yield server


def served(address: tuple[str, int]) -> bytes:
    """The certificate that a client gets, DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with RawClient(address) as client, context.wrap_socket(client.sock) as secured:
        return secured.getpeercert(binary_form=True) or b""


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


def install(pair: Pair, folder: Path) -> None:
    """Where the configuration looks for it; a reader finds each file whole."""
    for path, name in ((pair.cert, "proxy.crt"), (pair.key, "proxy.key")):
        draft = folder / f".{name}"
        shutil.copy(path, draft)
        draft.rename(folder / name)


def reload(stack: Stack, name: str, pid: int) -> None:
    """HUP to `pid` with a new server_name, until every worker that accepts has it."""
    done = len(stack.log_events("process", message="The new configuration is in force"))
    stack.write_proxy_conf(server_name=name)
    os.kill(pid, signal.SIGHUP)
    stack.wait_for_event("process", done + 1, 60, message="The new configuration is in force")
    wait_until(lambda: len(children(pid)) == WORKERS, "the end of the old workers", 60)
    with RawClient(stack.proxy) as client:
        assert client.reply() == f"220 {name} ESMTP ready\r\n".encode()


def upgrade(stack: Stack) -> int:
    """USR2, WINCH and QUIT; the pid of the new program."""
    old = stack.process.pid
    before = set(children(old))
    stack.write_proxy_conf(server_name="upgraded.example.net")
    loaded = len(stack.log_events("policies_loaded"))
    os.kill(old, signal.SIGUSR2)
    stack.wait_for_event("policies_loaded", loaded + WORKERS, 60)
    [new] = set(children(old)) - before
    os.kill(old, signal.SIGWINCH)
    wait_until(lambda: children(old) == [new], "the end of the old workers", 60)
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: not stack.process.running, "the end of the old program")
    return new


@pytest.mark.timeout(300)
def test_nothing_is_refused_dropped_lost_or_doubled(
    start_stack: Callable[..., Stack], backend: Recorder, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pairs = [authority.sign(f"mail{n}", f"mail{n}.example.net") for n in range(2)]
    install(pairs[0], tmp_path)
    certificate = [{"cert": str(tmp_path / "proxy.crt"), "key": str(tmp_path / "proxy.key")}]
    implicit = {**RELAY, "name": "smtps", "tls": "implicit", "certificate": certificate}
    stack = start_stack(
        [backend.address], workers=WORKERS, listeners=[RELAY, SUBMISSION, implicit], proxy={"graceful_timeout": "30s"}
    )
    relay, submission, smtps = stack.listeners["relay"], stack.listeners["submission"], stack.listeners["smtps"]
    targets = [Target(*relay), Target(*submission, login=("test", "1234")), Target(*relay), Target(*smtps, tls=True)]
    load = SessionLoad(tmp_path, targets, RATE)
    new = 0
    try:
        wait_until(lambda: len(backend.messages) > RATE / 4, "the load has begun")
        assert served(smtps) == der(pairs[0])
        for number in range(3):
            reload(stack, f"name{number}.example.net", stack.process.pid)
            time.sleep(PAUSE)
        install(pairs[1], tmp_path)
        reload(stack, "certified.example.net", stack.process.pid)
        assert served(smtps) == der(pairs[1])
        new = upgrade(stack)
        time.sleep(PAUSE)
        reload(stack, "last.example.net", new)
        time.sleep(PAUSE)
    finally:
        result = load.stop()
        if new:
            os.kill(new, signal.SIGTERM)
            wait_until(lambda: not running(new), "the end of the new program")
    assert result.failures == []
    assert len(result.told) > RATE * 5 * PAUSE
    delivered = Counter(int(found[1]) for message in backend.messages if (found := NUMBER.match(message.text)))
    assert delivered == Counter(result.told)
