"""Who asks the limiter and the auth service in W7 and W10: `python -m tools.benchmarks.callers PART JSON`.

A process of its own, so that its CPU is told apart, which prints one line of JSON. Callers are greenlets.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - nothing may be imported before the patch
import socket  # noqa: E402 - as above
import sys  # noqa: E402 - as above
import time  # noqa: E402 - as above
from collections.abc import Callable  # noqa: E402 - as above
from typing import Final  # noqa: E402 - as above

import gevent  # noqa: E402 - as above

import compiled  # noqa: E402 - as above

CALLERS: Final = 200
BUCKETS: Final = 4
CLIENTS: Final = 20


def limiter(uri: str, decisions: int) -> dict[str, float]:
    """`decisions` over BUCKETS buckets each. Exits if one is denied, or decided without the store."""
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
    modes = set()

    def caller(index: int) -> None:
        facts = Facts(
            "192.0.2.1", user=f"user{index}@example.com", sender="a@example.com", sender_domain="example.com"
        )
        for _ in numbers:
            if not engine.decide(Event.MAIL, facts).allowed:
                raise SystemExit("a decision was denied")
            modes.add(engine.mode.value)

    began, cpu = time.monotonic(), time.process_time()
    gevent.joinall([gevent.spawn(caller, index) for index in range(CALLERS)], raise_error=True)
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    if modes != {"shared"}:
        raise SystemExit("Redis did not answer every time")
    return {"rate": decisions / seconds, "cpu": 1e6 * spent / decisions}


def authsvc(
    host: str, port: int, users: int, password: str, requests: int, clients: int = CLIENTS
) -> dict[str, float]:
    """`requests` over `clients` kept connections, by users in turn. Exits if one is refused."""
    numbers = iter(range(requests))

    def caller() -> None:
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in numbers:
            lines = (
                "GET /auth HTTP/1.1",
                f"Host: {host}",
                "Auth-Method: plain",
                f"Auth-User: user{number % users}@example.com",
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
                if not (more := sock.recv(4096)):
                    raise SystemExit(f"the connection ended after {answer!r}")
                answer += more
            if b"Auth-Status: OK" not in answer:
                raise SystemExit(f"refused: {answer!r}")
        sock.close()

    began, cpu = time.monotonic(), time.process_time()
    gevent.joinall([gevent.spawn(caller) for _ in range(clients)], raise_error=True)
    return {"rate": requests / (time.monotonic() - began), "load": 1e6 * (time.process_time() - cpu) / requests}


if __name__ == "__main__":
    compiled.use_if_wanted()
    parts: dict[str, Callable[..., dict[str, float]]] = {"limiter": limiter, "authsvc": authsvc}
    print(json.dumps(parts[sys.argv[1]](**json.loads(sys.argv[2]))))
