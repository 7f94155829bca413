"""Backends as a node sees them: probed once, known to every worker, offered to clients, left when they are silent."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from peers.process import HOST, LATE, free_port, wait_until
from rawclient import RawClient
from recorder import Act, Recorder
from stack import RELAY, ROOT, Stack

PROBES = {"probe": "ehlo", "every": "200ms", "timeout": "200ms", "rise": 1, "fall": 2}
AUTO = {**RELAY, "capabilities": "auto"}
HELLO = b"EHLO proxy.example.net"


@pytest.fixture
def start(start_stack: Callable[..., Stack]) -> Callable[..., Stack]:
    def begin(backends: list[tuple[str, int]], health: dict[str, object] | None = None, **settings: object) -> Stack:
        pool = {"health": health or PROBES, **settings.pop("pool", {})}  # type: ignore[dict-item]
        return start_stack(backends, pool=pool, auth_url=None, listeners=[AUTO], **settings)

    return begin


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder(HOST, free_port()) as server:
        yield server


def offered(stack: Stack) -> list[bytes]:
    with RawClient(stack.proxy) as client:
        client.reply()
        return [line[4:] for line in client.ask(b"EHLO client.example").splitlines()[1:]]


def probes(recorder: Recorder) -> list[list[bytes]]:
    return [one.commands for one in recorder.conversations if one.commands[:1] == [HELLO]]


@pytest.mark.parametrize("command", ["proxy.py", "gunicorn"])
def test_a_node_probes_once_and_all_workers_know(
    command: str, recorder: Recorder, start: Callable[..., Stack]
) -> None:
    """Also under gunicorn's own command, where conf/gunicorn.proxy.py is all that runs before the fork."""
    settings: dict[str, object] = {}
    if command == "gunicorn":
        settings["command"] = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.proxy.py")]
        settings["env"] = {"SMTPGATE_CONF": "proxy.yaml"}
    stack = start([recorder.address, (HOST, free_port())], workers=3, **settings)
    stack.wait_for_event("backend_down", backend="b2")
    began, before = time.monotonic(), len(probes(recorder))
    wait_until(lambda: len(probes(recorder)) >= before + 5, "five probes")
    assert time.monotonic() - began > 4 * 0.2 * 0.9
    assert all(commands in ([HELLO, b"QUIT"], [HELLO]) for commands in probes(recorder))
    down = stack.log_events("backend_down")
    assert [(one["pool"], one["backend"], one["by"]) for one in down] == [("core", "b2", "probe")]
    assert down[0]["reason"] == "ECONNREFUSED: Connection refused"
    (leader,) = {one["pid"] for one in stack.log_events("health_leader")}
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: len(stack.log_events("health_leader")) == 2, "another one leads")
    before = len(probes(recorder))
    wait_until(lambda: len(probes(recorder)) >= before + 2, "it probes")
    assert len(stack.log_events("backend_down")) == 1  # that is known already


def test_auto_offers_what_the_live_backends_take(start: Callable[..., Stack]) -> None:
    small = b"250-small\r\n250-SIZE 5000\r\n250-8BITMIME\r\n250-XVERP\r\n250 BINARYMIME\r\n"
    with Recorder(HOST, free_port()) as one, Recorder(HOST, free_port(), {"EHLO": Act(small)}) as other:
        stack = start([one.address, other.address], workers=2)
        wait_until(lambda: offered(stack) == [b"PIPELINING", b"SIZE 5000", b"8BITMIME"], "both are known")
        other.script = {"GREETING": Act(b"554 closed today\r\n", then="close")}
        stack.wait_for_event("backend_down", backend="b2")
        wide = [b"PIPELINING", b"SIZE 104857600", b"ENHANCEDSTATUSCODES", b"8BITMIME", b"DSN"]
        wait_until(lambda: all(offered(stack) == wide for _ in range(6)), "every worker knows that one is left")


def test_before_anybody_answered_little_is_promised(start: Callable[..., Stack]) -> None:
    stack = start([(HOST, free_port())])
    assert offered(stack) == [b"PIPELINING", b"SIZE"]


def test_a_backend_that_one_worker_ejects_is_ejected_for_all(recorder: Recorder, start: Callable[..., Stack]) -> None:
    """Probes are off: only sessions can tell."""
    pool = {"breaker": {"connect": 2, "open": "1m"}, "failover": {"attempts": 1, "deadline": "2s"}}
    stack = start([(HOST, free_port()), recorder.address], {"probe": "off"}, workers=3, pool=pool)
    sent = 0
    while not stack.log_events("backend_down"):
        with RawClient(stack.proxy) as client:
            assert client.greeted().deliver().startswith(b"250")
        sent += 1
        assert sent < 60
    time.sleep(2.0)  # within a second all know
    failed = len(stack.log_events("backend_failed"))
    for _ in range(12):
        with RawClient(stack.proxy) as client:
            assert client.greeted().deliver().startswith(b"250")
    assert len(stack.log_events("backend_failed")) == failed
    assert len(stack.log_events("backend_down")) == 1


@pytest.fixture(params=["never accepted", "accepted and silent"])
def black_hole(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a backend that never says anything."""
    with socket.socket() as hole:
        hole.bind((HOST, 0))
        hole.listen(0 if request.param == "never accepted" else 100)
        held = [socket.socket() for _ in range(4 if request.param == "never accepted" else 0)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(hole.getsockname())
        time.sleep(0.05)
        yield hole.getsockname()[1]
        for one in held:
            one.close()


def test_a_black_hole_costs_a_client_its_part_of_the_deadline_and_others_nothing(
    black_hole: int, recorder: Recorder, start: Callable[..., Stack]
) -> None:
    pool = {"failover": {"attempts": 1, "deadline": "3s"}, "breaker": {"connect": 2, "open": "5m"}}
    stack = start([(HOST, black_hole), recorder.address], {"probe": "off"}, pool=pool)
    slow = []
    for _ in range(8):
        with RawClient(stack.proxy) as client:
            began = time.monotonic()
            assert client.greeted().deliver().startswith(b"250")
            slow.append(time.monotonic() - began)
    assert max(slow) < 3.0
    assert sum(seconds > 1.3 for seconds in slow) == 2  # then the breaker is open
    assert len(stack.log_events("backend_down", backend="b1")) == 1


def test_a_black_hole_alone_costs_no_more_than_the_deadline(black_hole: int, start: Callable[..., Stack]) -> None:
    stack = start([(HOST, black_hole)], {"probe": "off"}, pool={"failover": {"attempts": 2, "deadline": "500ms"}})
    with RawClient(stack.proxy) as client:
        client.greeted().ask(b"MAIL FROM:<a@example.com>")
        began = time.monotonic()
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"451 4.4.1 ")
        assert 0.4 < time.monotonic() - began < 0.5 + LATE
