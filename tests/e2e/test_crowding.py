"""More clients than there is room for: everybody hears why, nobody inside notices, and it ends when they have gone.

The bounds themselves are tests/drivers/test_admission.py's; here they are a real process's, with real descriptors.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from certificates import make_certificates
from peers.process import HOST, LATE, free_port, pause, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import RELAY, ROOT, Stack

GREETING = b"220 proxy.example.net ESMTP ready\r\n"
FULL = b"421 4.3.2 Too many connections, try again later\r\n"
OF_ADDRESS = b"421 4.7.0 Too many connections from your address\r\n"
OF_NETWORK = b"421 4.7.0 Too many connections from your network\r\n"
RECOVERY = 2.0
"""Seconds until a process that was full serves again (reference/security.md F4)."""
DRIPPERS = 500
PER_DRIPPER = 96 * 1024
"""Octets of a worker's memory that a dripping connection may take, at any step; measured: 71 KiB in a handshake, most
of it OpenSSL's, and 26 elsewhere."""

Start = Callable[..., Stack]


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    server = Recorder(HOST, free_port())
    yield server
    server.stop()


@pytest.fixture
def start(start_stack: Start, recorder: Recorder) -> Start:
    def begin(**settings: object) -> Stack:
        settings = {"auth_url": None, "listeners": [RELAY], **settings}
        return start_stack([recorder.address], **settings)

    return begin


@contextmanager
def clients(address: tuple[str, int], count: int) -> Iterator[list[RawClient]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RawClient(address)) for _ in range(count)]


def limit_descriptors(pid: int, most: int) -> None:
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={most}:{most}"], check=True)


def served_again(address: tuple[str, int]) -> float:
    """Seconds until somebody is greeted."""
    started = time.monotonic()
    while time.monotonic() - started < RECOVERY + LATE:
        with RawClient(address) as client:
            if client.reply() == GREETING:
                break
        time.sleep(0.02)
    return time.monotonic() - started


def floods(stack: Stack, reason: str) -> list[int]:
    return [line["refused"] for line in stack.log_events("flood", reason=reason)]


def test_a_worker_at_max_sessions_answers(start: Start) -> None:
    stack = start(proxy={"max_sessions": 5})
    with clients(stack.proxy, 5) as inside:
        assert [client.reply() for client in inside] == [GREETING] * 5
        inside[0].envelope()
        with clients(stack.proxy, 200) as outside:
            assert [client.reply() for client in outside] == [FULL] * 200
            assert all(client.at_end() for client in outside)
        assert inside[0].opened().end(b"Subject: x\r\n\r\nx\r\n").startswith(b"250 ")
        wait_until(lambda: sum(floods(stack, "max_sessions")) == 200, "all of them are told of")
        assert len(floods(stack, "max_sessions")) <= 20  # not a line each
    assert served_again(stack.proxy) < RECOVERY + LATE


def test_a_process_without_descriptors_answers(start: Start) -> None:
    """The limit goes down while it runs, so that no budget knows of it."""
    stack = start()
    (worker,) = stack.worker_pids()
    with clients(stack.proxy, 1) as inside:
        inside[0].greeted().envelope()  # its backend is there
        used = max(int(one.name) for one in Path(f"/proc/{worker}/fd").iterdir() if int(one.name) < 200)
        limit_descriptors(worker, used + 10)
        with clients(stack.proxy, 60) as outside:
            heard = [client.reply() for client in outside]
            assert set(heard) == {GREETING, FULL}
            assert 40 <= heard.count(FULL) < 60
            greeted = outside[heard.index(GREETING)]
            assert greeted.ask(b"MAIL FROM:<a@a.test>").startswith(b"250 ")
            assert greeted.ask(b"RCPT TO:<b@b.test>") == b"451 4.3.1 Out of resources, try again later\r\n"
            assert inside[0].opened().end(b"Subject: x\r\n\r\nx\r\n").startswith(b"250 ")
    assert served_again(stack.proxy) < RECOVERY + LATE
    wait_until(lambda: sum(floods(stack, "descriptors")) >= heard.count(FULL), "the count of them in the log")
    assert "Traceback" not in stack.output()


def test_the_budget_follows_from_the_descriptors(start: Start) -> None:
    stack = start(command=["prlimit", "--nofile=128:128", sys.executable, str(ROOT / "proxy.py"), "-c", "proxy.yaml"])
    (line,) = stack.log_events("config", about="max_sessions")
    assert line["advice"] == "RLIMIT_NOFILE is enough for 16 of 10000; the next ones are told 421"
    with clients(stack.proxy, 500) as crowd:
        heard = [client.reply() for client in crowd]
        assert (heard.count(GREETING), heard.count(FULL)) == (16, 484)
        assert crowd[heard.index(GREETING)].deliver().startswith(b"250 ")
    assert served_again(stack.proxy) < RECOVERY + LATE


def test_one_address_and_one_network_have_so_many(start: Start) -> None:
    limited = {**RELAY, "max_sessions_per_ip": 2, "max_sessions_per_network": 3}
    stack = start(listeners=[limited])
    with ExitStack() as inside:

        def heard(source: str) -> bytes:
            return inside.enter_context(RawClient(stack.proxy, source=source)).reply()

        assert [heard("127.0.7.1") for _ in range(3)] == [GREETING, GREETING, OF_ADDRESS]
        assert [heard(f"127.0.7.{last}") for last in (2, 3)] == [GREETING, OF_NETWORK]
        assert heard("127.0.8.1") == GREETING
    for reason in ("max_sessions_per_ip", "max_sessions_per_network"):
        stack.wait_for_event("flood", reason=reason)
        assert floods(stack, reason) == [1]


def test_what_memory_drippers_take(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients that have begun something and do not go on, at each step where nothing is known of them yet."""
    files = make_certificates(tmp_path)
    certificate = [{"cert": str(files.server[0]), "key": str(files.server[1])}]
    common = {"auth": ["none"], "timeout": "5m"}
    listeners = [
        {"name": "clear", **common},
        {"name": "proxied", **common, "proxy_protocol": ["127.0.0.0/8"]},
        {"name": "tls", **common, "tls": "implicit", "certificate": certificate},
    ]
    stack = start(listeners=listeners)
    (worker,) = stack.worker_pids()
    hello = client_hello()
    steps = {
        "greeting": ("clear", b""),
        "PROXY header": ("proxied", b"PROXY TCP4 192.0.2."),
        "ClientHello": ("tls", hello[:-1]),
        "command": ("clear", b"EHLO " + b"a" * 4000),
        "handshake": ("tls", hello),
    }
    told = []
    before = resident(worker)  # of a worker that has served nobody: what the allocator keeps counts too
    for step, (listener, octets) in steps.items():
        address = stack.listeners[listener]
        with clients(address, DRIPPERS) as drippers:
            for client in drippers:
                client.send(octets)
            wait_until(lambda address=address: established(address) >= DRIPPERS, "all of them")
            pause(0.3)
            taken = (resident(worker) - before) / DRIPPERS
        told.append(f"{step}: {taken / 1024:.1f} KiB")
        assert taken < PER_DRIPPER, told
    with capsys.disabled():
        print(f"\n{DRIPPERS} drippers take, each, at: {', '.join(told)}")


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="mail.example.com").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def resident(pid: int) -> int:
    """Octets of memory that are the process's alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def established(address: tuple[str, int]) -> int:
    """Connections that the process has accepted and that nobody has ended: their inode is not 0."""
    ip = socket.inet_aton(address[0])[::-1].hex().upper()
    here = f"{ip}:{address[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if (row[1], row[3]) == (here, "01") and row[9] != "0")
