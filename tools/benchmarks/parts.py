"""W7 and W10: the limiter and the auth service by themselves."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from peers.process import HOST
from peers.redis import Redis
from stack import Stack

from tools.benchmarks.measure import usage
from tools.benchmarks.workloads import PASSWORD, USERS, SpoiltError

CALLERS: Final = 200
BUCKETS: Final = 4


def limiter(folder: Path, decisions: int, rounds: int) -> list[dict[str, float]]:
    """Decisions over four buckets each, 200 callers, a real Redis: decisions a second and our CPU a decision."""
    folder.mkdir(parents=True)
    server = Redis(folder)
    try:
        return [_child("limiter", {"uri": server.unix_uri, "decisions": decisions}) for _ in range(rounds)]
    finally:
        server.stop()


def authsvc(folder: Path, requests: int, users: str, rounds: int) -> list[dict[str, float]]:
    """Known users over kept connections: requests a second, and the service's CPU a request."""
    folder.mkdir(parents=True)
    stack = Stack(folder, [(HOST, 1)], users=users)
    try:
        assert stack.auth_process is not None
        _child("authsvc", {"host": stack.auth[0], "port": stack.auth[1], "requests": 2 * USERS})  # learns the users
        runs = []
        for _ in range(rounds):
            before = usage(stack.auth_process.members()).cpu
            found = _child("authsvc", {"host": stack.auth[0], "port": stack.auth[1], "requests": requests})
            found["cpu"] = 1e6 * (usage(stack.auth_process.members()).cpu - before) / requests
            runs.append(found)
        return runs
    finally:
        stack.stop()


def _child(part: str, settings: dict[str, Any]) -> dict[str, float]:
    argv = [sys.executable, "-m", "tools.benchmarks.parts", part, json.dumps(settings)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise SpoiltError(done.stderr.strip()[-300:])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _run_limiter(uri: str, decisions: int) -> dict[str, float]:
    import time

    import gevent

    from smtpgate.clock import SystemClock
    from smtpgate.drivers.store import open_store
    from smtpgate.policy.engine import Engine
    from smtpgate.policy.model import Event, Facts
    from smtpgate.snapshot import build

    limits = "\n".join(
        f'  l{n}: {{event: mail, rate: 1000000/1s, burst: 1000000, key: "{{user}}", deny: {{reply: "450 4.7.1 no"}}}}'
        for n in range(BUCKETS)
    )
    clock = SystemClock()
    snapshot = build([("limits.yaml", f"version: 1\nlimits:\n{limits}\n".encode())])
    engine = Engine(open_store(uri, clock=clock), clock, lambda: 0.5, policy=snapshot.policy)
    numbers = iter(range(decisions))
    modes = []

    def caller(index: int) -> None:
        facts = Facts(
            "192.0.2.1", user=f"user{index}@example.com", sender="a@example.com", sender_domain="example.com"
        )
        for _ in numbers:
            if not engine.decide(Event.MAIL, facts).allowed:
                raise SystemExit("a decision was denied")
            modes.append(engine.mode.value)

    began, cpu = time.monotonic(), time.process_time()
    gevent.joinall([gevent.spawn(caller, index) for index in range(CALLERS)], raise_error=True)
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    if set(modes) != {"shared"}:
        raise SystemExit("Redis did not answer every time")
    return {"rate": decisions / seconds, "cpu": 1e6 * spent / decisions}


def _run_authsvc(host: str, port: int, requests: int) -> dict[str, float]:
    import socket
    import time

    import gevent

    password = base64.b64decode(base64.b64encode(PASSWORD.encode())).decode()
    numbers = iter(range(requests))
    failures: list[bytes] = []

    def caller() -> None:
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in numbers:
            lines = (
                "GET /auth HTTP/1.1",
                f"Host: {host}",
                "Auth-Method: plain",
                f"Auth-User: user{number % USERS}@example.com",
                f"Auth-Pass: {password}",
                "Auth-Protocol: smtp",
                "Auth-Login-Attempt: 1",
                "Client-IP: 192.0.2.1",
                "",
                "",
            )
            sock.sendall("\r\n".join(lines).encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += sock.recv(4096)
            if b"Auth-Status: OK" not in answer:
                failures.append(answer)
        sock.close()

    began = time.monotonic()
    gevent.joinall([gevent.spawn(caller) for _ in range(20)], raise_error=True)
    seconds = time.monotonic() - began
    if failures:
        raise SystemExit(f"{len(failures)} refused: {failures[0]!r}")
    return {"rate": requests / seconds}


if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()
    run: Callable[..., dict[str, float]] = _run_limiter if sys.argv[1] == "limiter" else _run_authsvc
    print(json.dumps(run(**json.loads(sys.argv[2]))))
