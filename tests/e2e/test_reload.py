"""HUP, USR2 and WINCH as an operator uses them: what serves goes on serving, whatever happens to the next thing.

The same under load is in test_reload_load.py.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers.process import HOST, answers, free_port, wait_until
from peers.smtptools import SmtpSink
from processtree import children, running, workers_of
from rawclient import RawClient
from stack import RELAY, ROOT, Stack

GOODBYE = b"421 4.3.2 Service shutting down, try again later\r\n"
GREETING = b"220 proxy.example.net ESMTP ready\r\n"
NEW = {"server_name": "new.example.net"}
NEW_GREETING = b"220 new.example.net ESMTP ready\r\n"
LONG = {"graceful_timeout": "60s"}
"""Longer than any test here: what ends in one has not ended because its time was over."""

Start = Callable[..., Stack]


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    server = SmtpSink(tmp_path_factory.mktemp("sink"))
    yield server
    server.stop()


@pytest.fixture
def start(sink: SmtpSink, start_stack: Start) -> Start:
    """A proxy without logins."""

    def begin(**settings: object) -> Stack:
        return start_stack([(HOST, sink.port)], **{"auth_url": None, "listeners": [RELAY], **settings})

    return begin


@pytest.fixture(params=["proxy.py", "gunicorn"])
def start_either(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Start:
    """A proxy under its own command, and under gunicorn's; the latter reads `stack.folder / "gunicorn.py"`."""
    if request.param == "proxy.py":
        return start

    def begin(**settings: object) -> Stack:
        conf = tmp_path / "gunicorn.py"
        conf.write_text(f"import runpy\nglobals().update(runpy.run_path({str(ROOT / 'conf/gunicorn.proxy.py')!r}))\n")
        # Where `start` puts its first stack.
        env = {"SMTPGATE_CONF": str(tmp_path / "stack1/proxy.yaml"), "PYTHONPATH": str(ROOT)}
        return start(command=[sys.executable, "-m", "gunicorn", "-c", str(conf)], env=env, **settings)

    return begin


def greeting(stack: Stack, listener: str | None = None) -> bytes:
    with RawClient(stack.proxy if listener is None else stack.listeners[listener]) as client:
        return client.reply()


def listener(name: str, port: int | None = None, **keys: object) -> dict[str, object]:
    """An entry of `listeners`, whole: for what a test writes into a running proxy's configuration."""
    return {"name": name, "bind": f"{HOST}:{port or free_port()}", "auth": ["none"], **keys}


# --- HUP -----------------------------------------------------------------------------------------------------


def test_sessions_live_on_as_long_as_graceful_timeout(start: Start) -> None:
    stack = start(workers=2, proxy={"graceful_timeout": "8s"})
    old = stack.worker_pids()
    with RawClient(stack.proxy) as resting, RawClient(stack.proxy) as sending, RawClient(stack.proxy) as fresh:
        resting.greeted().deliver()
        sending.greeted().envelope().opened().send(b"Subject: x\r\n")
        assert fresh.reply() == GREETING
        stack.write_proxy_conf(**NEW)
        stack.signal(signal.SIGHUP)
        stack.wait_for_event("process", message="The new configuration is in force")
        for _ in range(4):  # whichever worker it is
            assert greeting(stack) == NEW_GREETING
        # Nobody is told anything: at rest, in a text, at the very beginning.
        assert resting.deliver().startswith(b"250 ")
        assert sending.end(b"\r\nx\r\n").startswith(b"250 ")
        assert fresh.ask(b"EHLO client.example").startswith(b"250-proxy.example.net")
        assert resting.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        for client in (sending, fresh):
            assert client.reply() == GOODBYE
            assert client.at_end()
    wait_until(lambda: not set(old) & set(stack.worker_pids()), "the end of the old workers")
    assert len(stack.worker_pids()) == 2
    assert {line["pid"] for line in stack.log_events("transaction", outcome="delivered")} <= set(old)


def test_a_broken_configuration_changes_nothing(start_either: Start) -> None:
    stack = start_either()
    workers = stack.worker_pids()
    with RawClient(stack.proxy) as client:
        client.greeted()
        good = stack.proxy_conf.read_text()
        stack.proxy_conf.write_text(good + "wrokers: 2\n")
        stack.signal(signal.SIGHUP)
        place = f"{stack.proxy_conf}:{len(good.splitlines()) + 1}:1: wrokers: "
        wait_until(lambda: place in stack.output(), f"{place} in what it prints")
        # The policies are part of what a reload reads.
        stack.proxy_conf.write_text(good)
        stack.edit_policy("limits.yaml", "version: 2\n")
        stack.signal(signal.SIGHUP)
        place = f"{stack.policies}/limits.yaml:1:"
        wait_until(lambda: f"\n{place}" in stack.output(), f"{place} in what it prints")
        assert client.deliver().startswith(b"250 ")
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
    assert stack.worker_pids() == workers
    assert greeting(stack) == GREETING


def test_listeners_come_go_and_change_places(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "gone.sock"
    stack = start(listeners=[RELAY, {**RELAY, "name": "gone"}, {**RELAY, "name": "local", "bind": f"unix:{path}"}])
    relay, gone = stack.listeners["relay"], stack.listeners["gone"]
    with RawClient(relay) as old, RawClient(gone) as left:
        assert old.reply() == left.reply() == GREETING
        added = tmp_path / "added.sock"
        new = listener("new", bind=[f"{HOST}:{free_port()}", f"unix:{added}"])
        stack.write_proxy_conf(**NEW, **LONG, listeners=[new, stack.keys["listeners"][0]])
        stack.signal(signal.SIGHUP)
        wait_until(lambda: not answers(gone[1]), "the end of a listener")
        assert not path.exists()
        assert added.exists()
        for address in (relay, (HOST, int(str(new["bind"][0]).rpartition(":")[2]))):  # type: ignore[index]
            with RawClient(address) as client:
                assert client.reply() == NEW_GREETING
                assert client.ask(b"EHLO client.example").startswith(b"250")
                assert client.deliver().startswith(b"250 ")
        # Each socket has the rules of its own listener, although their order is another one.
        assert [line["listener"] for line in stack.wait_for_event("transaction", 2)] == ["relay", "new"]
        assert left.ask(b"NOOP").startswith(b"250 ")  # a listener is gone, its sessions are not
    assert stack.stop() == 0
    assert not added.exists()


def test_an_address_that_cannot_be_bound_changes_nothing(start_either: Start) -> None:
    stack = start_either()
    workers = stack.worker_pids()
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        opened = listener("opened")
        before = stack.keys["listeners"]
        stack.write_proxy_conf(**NEW, listeners=[opened, listener("taken", port)])
        stack.signal(signal.SIGHUP)
        told = (
            f"{stack.proxy_conf}: listener taken: {HOST}:{port} cannot be bound: Address already in use; nothing has"
        )
        wait_until(lambda: told in stack.output(), told)
    assert stack.worker_pids() == workers
    assert greeting(stack) == GREETING
    assert not answers(int(str(opened["bind"]).rpartition(":")[2]))
    # Repaired, it is taken.
    stack.write_proxy_conf(listeners=before)
    stack.signal(signal.SIGHUP)
    wait_until(lambda: greeting(stack) == NEW_GREETING, "the repaired configuration")


def test_the_arbiter_serves_while_old_sessions_live_on(start: Start) -> None:
    stack = start(workers=2, proxy=LONG)
    with RawClient(stack.proxy) as client:
        client.greeted()
        for name in ("first.example.net", "second.example.net"):
            stack.write_proxy_conf(server_name=name)
            stack.signal(signal.SIGHUP)
            wait_until(lambda name=name: name.encode() in greeting(stack), name)  # type: ignore[misc]
        wait_until(lambda: len(stack.worker_pids()) == 3, "the end of the old workers without sessions")
        new = children(stack.process.pid)[-1]
        os.kill(new, signal.SIGKILL)
        wait_until(lambda: new not in stack.worker_pids() and len(stack.worker_pids()) == 3, "a new worker")
        assert client.deliver().startswith(b"250 ")
        # TERM reaches the workers of long ago too.
        stack.signal(signal.SIGTERM)
        assert client.reply() == GOODBYE
        wait_until(lambda: not stack.process.running, "the end")
    assert stack.process.stop() == 0


@pytest.mark.parametrize("start_either", ["gunicorn"], indirect=True)
def test_workers_that_cannot_start_leave_the_old_ones_in_charge(start_either: Start, tmp_path: Path) -> None:
    stack = start_either(workers=2)
    workers = stack.worker_pids()
    conf = tmp_path / "gunicorn.py"
    good = conf.read_text()
    with RawClient(stack.proxy) as client:
        client.greeted()
        added = listener("added")
        stack.write_proxy_conf(**NEW, listeners=[added, *stack.keys["listeners"]])
        conf.write_text(good + "wsgi_app = 'nothing.there'\n")
        stack.signal(signal.SIGHUP)
        told = f"{stack.proxy_conf}: its workers cannot start; the configuration of before stays in force"
        wait_until(lambda: told in stack.output(), told)
        wait_until(lambda: stack.worker_pids() == workers, "the workers of before, and no others")
        assert not answers(int(str(added["bind"]).rpartition(":")[2]))
        # gunicorn's own settings may be broken altogether.
        conf.write_text(good + "(\n")
        stack.signal(signal.SIGHUP)
        wait_until(lambda: "SyntaxError" in stack.output(), "what is wrong")
        assert client.deliver().startswith(b"250 ")
    assert greeting(stack) == GREETING
    # And nothing of it is left: a worker that is born now belongs to the configuration of before.
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: workers[0] not in stack.worker_pids() and len(stack.worker_pids()) == 2, "a new worker")
    assert {greeting(stack) for _ in range(8)} == {GREETING}
    conf.write_text(good)
    stack.signal(signal.SIGHUP)
    wait_until(lambda: greeting(stack) == NEW_GREETING, "the repaired settings")


# --- USR2 and WINCH ------------------------------------------------------------------------------------------


@pytest.fixture
def upgraded() -> Iterator[Callable[[Stack], int]]:
    """`upgraded(stack)`: USR2, and the pid of the new program once its workers serve. Ended with the test."""
    started: list[int] = []

    def upgrade(stack: Stack) -> int:
        before = set(children(stack.process.pid))
        stack.signal(signal.SIGUSR2)
        count = stack.keys["workers"]

        def new() -> list[int]:
            return [pid for pid in children(stack.process.pid) if pid not in before and len(children(pid)) >= count]

        wait_until(lambda: bool(new()), "the new program and its workers")
        [pid] = new()
        wait_until(lambda: workers_of(stack, pid) >= count, "the new workers serve")
        started.append(pid)
        return pid

    yield upgrade
    for pid in started:
        if running(pid):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not any(map(running, started)), "the end of the new programs")


def test_an_upgrade_hands_over_the_sockets(
    start_either: Start, upgraded: Callable[[Stack], int], tmp_path: Path
) -> None:
    path = tmp_path / "smtp.sock"
    stack = start_either(
        workers=2, listeners=[RELAY, {**RELAY, "name": "local", "bind": f"unix:{path}"}], proxy={**LONG, **NEW}
    )
    old = stack.process.pid
    with RawClient(stack.proxy) as client:
        client.greeted()
        # What the new program reads may differ from what the old one has open.
        added = listener("added")
        stack.write_proxy_conf(
            server_name="upgraded.example.net", listeners=[added, *reversed(stack.keys["listeners"])]
        )
        new = upgraded(stack)
        assert answers(int(str(added["bind"]).rpartition(":")[2]))
        os.kill(old, signal.SIGWINCH)
        wait_until(lambda: len(children(old)) == 2, "the old workers without sessions end")  # and the new program
        assert {greeting(stack) for _ in range(8)} == {b"220 upgraded.example.net ESMTP ready\r\n"}
        assert client.deliver().startswith(b"250 ")
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
    wait_until(lambda: children(old) == [new], "the end of the old workers")
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: not stack.process.running, "the end of the old program")
    assert path.exists()
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(path))
        assert local.recv(100) == b"220 upgraded.example.net ESMTP ready\r\n"
    # It is a master as any other now: it reloads, and leaves nothing behind.
    wait_until(lambda: bool(stack.log_events("process", message="Master has been promoted.")), "its promotion")
    stack.write_proxy_conf(server_name="reloaded.example.net")
    os.kill(new, signal.SIGHUP)
    wait_until(lambda: greeting(stack) == b"220 reloaded.example.net ESMTP ready\r\n", "a reload of the new program")
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not running(new), "the end of the new program")
    assert not path.exists()


def test_an_upgrade_that_is_taken_back(start: Start, upgraded: Callable[[Stack], int], tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    stack = start(listeners=[RELAY, {**RELAY, "name": "local", "bind": f"unix:{path}"}])
    new = upgraded(stack)
    stack.signal(signal.SIGWINCH)
    wait_until(lambda: children(stack.process.pid) == [new], "the end of the old workers")
    stack.signal(signal.SIGHUP)
    wait_until(lambda: len(children(stack.process.pid)) == 2, "old workers again")
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not running(new), "the end of the new program")
    assert path.exists()
    assert greeting(stack) == GREETING


def test_a_new_program_that_cannot_start_harms_nobody(start: Start, upgraded: Callable[[Stack], int]) -> None:
    stack = start()
    workers = stack.worker_pids()
    good = stack.proxy_conf.read_text()
    stack.proxy_conf.write_text(good + "wrokers: 2\n")
    stack.signal(signal.SIGUSR2)
    wait_until(lambda: "wrokers: " in stack.output(), "what is wrong with the configuration")
    wait_until(lambda: stack.worker_pids() == workers, "the end of the new program")
    stack.proxy_conf.write_text(good)
    # The folder that the program was started in is gone: not even Python can be started.
    stack.folder.rename(stack.folder.with_name("moved"))
    try:
        stack.signal(signal.SIGUSR2)
        output = stack.folder.with_name("moved") / "proxy.out"
        wait_until(lambda: "The new program cannot be started" in output.read_text(), "the failure is told")
        assert greeting(stack) == GREETING
    finally:
        stack.folder.with_name("moved").rename(stack.folder)
    wait_until(lambda: stack.worker_pids() == workers, "the end of what was to be the new program")
    upgraded(stack)
