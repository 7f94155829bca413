"""SMTP sessions at a steady rate, of one message each, and what became of every one.

A process of its own: what the test is busy with does not slow it down. Sessions begin when they are due, whether or
not earlier ones have ended, as clients do. Every message has a number, in its Message-ID.

    load = SessionLoad(tmp_path, [Target(*stack.proxy)], rate=60)
    ...
    result = load.stop()
    assert result.failures == []
"""

from __future__ import annotations

import json
import signal
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.pool
import gevent.socket
import gevent.ssl
from gevent.event import Event

TIMEOUT: Final = 30.0  # seconds for any one reply, on a busy machine
UNDER_WAY: Final = 2 * TIMEOUT  # seconds for the last sessions to end


@dataclass(frozen=True, slots=True)
class Target:
    """Where sessions go. login: user and password for AUTH PLAIN. tls: from the first octet."""

    host: str
    port: int
    login: tuple[str, str] | None = None
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """told: numbers of the messages that were answered with 250. failures: what went another way than it should."""

    told: list[int]
    failures: list[str]


class SessionLoad:
    """Runs from construction to `stop()`; the sessions take turns at the targets."""

    def __init__(self, folder: Path, targets: Sequence[Target], rate: float) -> None:
        from peers.process import Process  # not on the path of the process that sends

        plan = json.dumps({"targets": [asdict(target) for target in targets], "rate": rate})
        self._process = Process("load", [sys.executable, __file__, plan], folder)

    def stop(self) -> Result:
        """Begin no more, wait for those under way."""
        from peers.process import wait_until

        self._process.signal(signal.SIGTERM)
        wait_until(lambda: not self._process.running, "the end of the sessions under way", UNDER_WAY)
        status = self._process.stop()
        assert status == 0, self._process.output()
        return Result(**json.loads(self._process.output()))


class _Unexpected(Exception):
    """Another answer than the one that lets the session go on."""


class _Session:
    """One session from connect to QUIT, in lock step."""

    def __init__(self, target: dict[str, Any]) -> None:
        self.step = "connect"
        self._sock: Any = gevent.socket.create_connection((target["host"], target["port"]), TIMEOUT)
        if target["tls"]:
            self._sock = _CONTEXT.wrap_socket(self._sock)
        self._replies = self._sock.makefile("rb")

    def deliver(self, number: int, login: list[str] | None) -> None:
        self._expect(b"220")
        self._say("EHLO load.example", b"250")
        if login is not None:
            self._say("AUTH PLAIN " + b64encode("\0".join(["", *login]).encode()).decode(), b"235")
        self._say("MAIL FROM:<a@example.com>", b"250")
        self._say("RCPT TO:<b@example.com>", b"250")
        self._say("DATA", b"354")
        self._say(f"Message-ID: <{number}@load>\r\n\r\nx\r\n.", b"250")

    def quit(self) -> None:
        self._say("QUIT", b"221")

    def close(self) -> None:
        self._replies.close()
        self._sock.close()

    def _say(self, line: str, expected: bytes) -> None:
        self.step = line[:4]
        self._sock.sendall(line.encode() + b"\r\n")
        self._expect(expected)

    def _expect(self, expected: bytes) -> None:
        line = self._replies.readline()
        while line[3:4] == b"-":
            line = self._replies.readline()
        if line[:3] != expected:
            raise _Unexpected(repr(line))


_CONTEXT: Final = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname, _CONTEXT.verify_mode = False, gevent.ssl.CERT_NONE


def _run(plan: dict[str, Any]) -> Result:
    result = Result([], [])
    stopping = Event()
    gevent.signal_handler(signal.SIGTERM, stopping.set)

    def one(number: int) -> None:
        target = plan["targets"][number % len(plan["targets"])]
        session: _Session | None = None
        try:
            session = _Session(target)
            session.deliver(number, target["login"])
            result.told.append(number)
            session.quit()
        except (OSError, _Unexpected) as error:
            result.failures.append(f"{number}, {session.step if session else 'connect'}: {error!r}")
        finally:
            if session is not None:
                session.close()

    sessions = gevent.pool.Group()
    began, number = time.monotonic(), 0
    while not stopping.wait(max(0.0, began + number / plan["rate"] - time.monotonic())):
        sessions.spawn(one, number)
        number += 1
    sessions.join()
    return result


if __name__ == "__main__":
    print(json.dumps(asdict(_run(json.loads(sys.argv[1])))))
