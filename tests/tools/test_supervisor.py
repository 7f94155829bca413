"""Services as children: shown, ended together, and every way in which one of them can disappoint."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers.process import HOST, free_port

from tools import supervisor
from tools.supervisor import Endpoint, Service, ServiceError, Supervisor, check_free, readable

pytestmark = pytest.mark.programs

SERVER = """
import signal, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("up", flush=True)
while True:
    client, _ = listener.accept()
    client.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
    client.close()
"""


def python(name: str, code: str, *args: str, endpoints: tuple[Endpoint, ...] = ()) -> Service:
    return Service(name, (sys.executable, "-u", "-c", code, *args), endpoints)


def server(name: str, says: str = "220 hello\\r\\n", protocol: str = "smtp") -> Service:
    port = free_port()
    endpoint = Endpoint(HOST, port, "http" if protocol == "http" else "smtp", "a test")
    return python(name, SERVER, HOST, str(port), says, endpoints=(endpoint,))


class Screen:
    """What would be on the terminal."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- the life of services ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_all_start_and_a_signal_ends_all(number: signal.Signals) -> None:
    screen = Screen()
    before = signal.getsignal(number)
    services = [server("one"), server("two"), server("three", "HTTP/1.0 200 OK\\r\\n\\r\\n", "http")]
    with Supervisor(services, screen) as running:
        assert running.wait_ready()
        os.kill(os.getpid(), number)
        running.wait()
    assert sorted(screen.lines) == [("one", "up"), ("three", "up"), ("two", "up")]
    assert signal.getsignal(number) is before
    check_free(services)


def test_one_that_ends_is_told_and_ends_the_others() -> None:
    screen = Screen()
    stays = server("stays")
    with (
        pytest.raises(ServiceError) as caught,
        Supervisor([stays, python("goes", "import sys; print('last words'); sys.exit(3)")], screen) as running,
    ):
        running.wait()
    assert str(caught.value) == "goes ended with status 3; ending the others"
    assert ("goes", "last words") in screen.lines
    check_free([stays])


def test_one_that_was_killed_is_told_by_its_signal() -> None:
    suicide = python("goes", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with Supervisor([suicide], Screen()) as running, pytest.raises(ServiceError, match="goes ended by SIGKILL"):
        running.wait()


def test_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_TIMEOUT", 0.5)
    wrong = server("wrong", "554 go away\\r\\n")
    with Supervisor([wrong], Screen()) as running, pytest.raises(ServiceError) as caught:
        running.wait_ready()
    assert str(caught.value) == f"wrong does not answer on {wrong.endpoints[0]} after 0 s"


def test_one_that_ignores_term_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_GRACE", 0.3)
    screen = Screen()
    code = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid)
time.sleep(600)
"""
    with Supervisor([python("deaf", code)], screen) as running:
        while not screen.lines:
            running._turn()
    pids = [int(pid) for pid in screen.lines[0][1].split()]
    until(lambda: not any(alive(pid) for pid in pids))


def test_asking_twice_does_not_wait() -> None:
    screen = Screen()
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    started = time.monotonic()
    with Supervisor([python("deaf", code)], screen) as running:
        while not screen.lines:
            running._turn()
        os.kill(os.getpid(), signal.SIGINT)
        running.wait()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert time.monotonic() - started < supervisor.STOP_GRACE


def test_much_output_that_nobody_reads_ends_the_services() -> None:
    """`tools/run | head`: printing fails, the children are ended all the same and do not hang on a full pipe."""

    def broken(name: str, line: str) -> None:
        raise BrokenPipeError

    talker = python("talker", "while True: print('x' * 1000)")
    with Supervisor([talker], broken) as running:
        running.wait()
    assert [child.returncode for _, child in running._children] == [-signal.SIGTERM]


def test_a_program_that_is_not_there() -> None:
    stays = server("stays")
    missing = Service("missing", ("/no/such/program",))
    with pytest.raises(ServiceError) as caught, Supervisor([stays, missing], Screen()):
        pass
    assert str(caught.value) == "cannot start missing (/no/such/program): No such file or directory"
    check_free([stays])


# --- ports -------------------------------------------------------------------------------------------------


def test_every_taken_port_is_named_with_who_wants_it() -> None:
    free, one, two = (Endpoint(HOST, free_port(), "smtp", f"setting {i}") for i in range(3))
    with socket.create_server((HOST, one.port)), socket.create_server((HOST, two.port)):
        with pytest.raises(ServiceError) as caught:
            check_free([Service("proxy", (), (free, one)), Service("sink", (), (two,))])
    assert str(caught.value).splitlines() == [
        f"{HOST}:{one.port}: address already in use; proxy wants it (setting 1)",
        f"{HOST}:{two.port}: address already in use; sink wants it (setting 2)",
        "see who has a port: ss -ltnp",
    ]


def test_an_address_is_written_with_brackets_where_it_needs_them() -> None:
    assert str(Endpoint("::1", 25, "smtp", "")) == "[::1]:25"
    assert str(Endpoint("127.0.0.1", 25, "smtp", "")) == "127.0.0.1:25"


# --- lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[2026-11-22] [INFO] Listening", "[2026-11-22] [INFO] Listening"),
        ("", ""),
        ("red \x1b[31m and \u202eback", "red \\x1b[31m and \\u202eback"),
        ("\tat line 3 näh", "\tat line 3 näh"),
        ('["a", "list"]', '["a", "list"]'),
        ('{"no": "log line"}', '{"no": "log line"}'),
        ("{broken", "{broken"),
        (
            '{"timestamp": "2026-11-22T17:12:03.123456Z", "level": "info", "event": "session", "user": "ann",'
            ' "code": 250, "helo": null, "reply": "450 4.7.1 slow", "tls": true, "rcpts": ["b@c", "d@e"]}',
            '17:12:03 info session user=ann code=250 reply="450 4.7.1 slow" tls=true rcpts=["b@c", "d@e"]',
        ),
        ('{"event": "x", "helo": "\\u001b[2J\\u007f", "user": ""}', 'x helo="\\u001b[2J\\u007f" user=""'),
        ('{"event": "x\\u001b", "k\\u0007": 1}', "x\\x1b k\\x07=1"),
    ],
)
def test_lines_are_readable_and_harmless(line: str, shown: str) -> None:
    assert readable(line) == shown
