"""What tests of drivers share: greenlets over patched sockets in a process of their own, and an auth server
to bend.

redis-py uses the sockets of the standard library, so many greenlets need a monkey-patched process; pytest's
own stays as it is, for the tests that use threads. The auth server lives in this process: AuthHttp uses
gevent's sockets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent.socket
import pytest
from gevent.server import StreamServer
from peers.process import HOST

from smtpgate.drivers.authhttp import AuthHttp

ROOT = Path(__file__).parents[2]
SCENARIOS = Path(__file__).parent


class Scenario:
    """One function of a script of scenarios, running in its own patched process with every warning an error."""

    def __init__(self, name: str, *, script: str = "redis_scenarios.py", **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", SCENARIOS / script, name, json.dumps(arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Any:
        """What the function returned."""
        out, err = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, err
        return json.loads(out)


@pytest.fixture
def scenario() -> type[Scenario]:
    return Scenario


class AuthServer:
    """Answers each request as `behave(socket, n)` does for the n-th; the connection stays while that is not
    False.
    """

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.behave: Callable[[gevent.socket.socket, int], object] = lambda sock, n: False
        self._server = StreamServer((HOST, 0), self._serve)
        self._server.start()
        self.port: int = self._server.server_port

    def say(self, *answers: bytes) -> None:
        """Send these, one for each request, the last again and again."""
        self.behave = lambda sock, n: sock.sendall(answers[min(n, len(answers)) - 1])

    def url(self, uri: str = "/auth") -> str:
        return f"http://{HOST}:{self.port}{uri}"

    def stop(self) -> None:
        self._server.stop()

    def _serve(self, sock: gevent.socket.socket, _address: object) -> None:
        self.connections += 1
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    chunk = sock.recv(65536)
                    if not chunk:
                        return
                    data += chunk
                request, _, data = data.partition(b"\r\n\r\n")
                self.requests.append(request + b"\r\n\r\n")
                if self.behave(sock, len(self.requests)) is False:
                    return
        except OSError:
            return  # the client was faster


@pytest.fixture
def auth_server() -> Iterator[AuthServer]:
    server = AuthServer()
    yield server
    server.stop()


@pytest.fixture
def servers() -> Iterator[list[AuthServer]]:
    """Three more of them."""
    started = [AuthServer() for _ in range(3)]
    yield started
    for server in started:
        server.stop()


@pytest.fixture
def open_auth() -> Iterator[Callable[..., AuthHttp]]:
    """AuthHttp's constructor; all that it made are closed at the test's end."""
    opened: list[AuthHttp] = []

    def make(url: str | Sequence[str], timeout: float = 5.0, **options: Any) -> AuthHttp:
        opened.append(AuthHttp([url] if isinstance(url, str) else url, timeout, **options))
        return opened[-1]

    yield make
    for auth in opened:
        auth.close()
