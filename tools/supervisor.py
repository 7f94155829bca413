"""Several services as children of one command: started together, shown on one terminal, ended together.

Owns processes, their output and signals. Refuses to know what the services are: `tools/run.py` tells.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, Literal, Self

START_TIMEOUT: Final = 30.0  # seconds for all services to answer; a cold disk needs about five
STOP_GRACE: Final = 5.0  # seconds between TERM and KILL
LAST_WORDS: Final = 1.0  # seconds for the output of the dead to arrive
PROBE_TIMEOUT: Final = 1.0  # seconds for one service to say something once it has accepted
POLL: Final = 0.1  # seconds between looks at children and signals while nothing is printed
MAX_LINE: Final = 16 * 1024  # octets of one line of output; a longer one is cut in pieces
MAX_PENDING: Final = 1000  # lines not printed yet; then the children wait, as they would on a slow terminal


class ServiceError(Exception):
    """The services cannot go on. `str()` is for the user."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service listens, and by which setting. protocol: how it shows that it is there ("tcp": accepts)."""

    host: str
    port: int
    protocol: Literal["smtp", "http", "tcp"]
    setting: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Service:
    """A program to run. name: the prefix of its lines. env: what it gets besides our own environment."""

    name: str
    argv: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def check_free(services: Sequence[Service]) -> None:
    """Raises ServiceError, naming every endpoint that cannot be listened on and who wanted it."""
    faults = []
    for service in services:
        for endpoint in service.endpoints:
            family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
            with socket.socket(family) as probe:
                # As the services do; without it a port would seem taken for a minute after the last run.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((endpoint.host, endpoint.port))
                except OSError as error:
                    reason = (error.strerror or str(error)).lower()
                    faults.append(f"{endpoint}: {reason}; {service.name} wants it ({endpoint.setting})")
    if faults:
        raise ServiceError("\n".join([*faults, "see who has a port: ss -ltnp"]))


def answers(endpoint: Endpoint) -> bool:
    """Whether the service speaks: an SMTP greeting, a 200 for /healthz, or for "tcp" that it accepts."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=PROBE_TIMEOUT) as probe:
            if endpoint.protocol == "http":
                probe.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                return probe.recv(64).split(b" ")[1:2] == [b"200"]
            return endpoint.protocol == "tcp" or probe.recv(64).startswith(b"220")
    except OSError:
        return False


def readable(line: str) -> str:
    """A line of output, fit for a terminal. A JSON log line becomes `time level event key=value ...`."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "event" not in fields:
        return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)
    stamp = str(fields.pop("timestamp", ""))
    # "2026-11-22T17:12:03.123456Z": the date says nothing to somebody who watches.
    head = [stamp[11:19], str(fields.pop("level", "")), str(fields.pop("event"))]
    pairs = [f"{key}={_value(value)}" for key, value in fields.items() if value is not None]
    return " ".join(_plain(word) for word in [*filter(None, head), *pairs])


def _value(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and " " not in value and '"' not in value:
        return value
    return json.dumps(value)


def _plain(text: str) -> str:
    """Client text may hold terminal escapes even after JSON's own decoding."""
    return text if text.isprintable() else ascii(text)[1:-1]


class Supervisor:
    """Runs services as a context: entering starts all of them, leaving ends all of them.

    show(name, line) prints one line of a service; it is called from the thread that uses this object. Within
    the context SIGINT, SIGTERM and SIGHUP ask for the end, and so does a `show` that fails with OSError.
    """

    def __init__(self, services: Sequence[Service], show: Callable[[str, str], None]) -> None:
        self._services = services
        self._show = show
        self._children: list[tuple[Service, subprocess.Popen[bytes]]] = []
        self._readers: list[threading.Thread] = []
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue(MAX_PENDING)
        self._asked = 0  # how often the end was asked for
        self._mute = False
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._ask)
        try:
            for service in self._services:
                self._start(service)
        except BaseException:  # ^C, too, leaves none of them running
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._end_all()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def wait_ready(self) -> bool:
        """Until every endpoint answers. False when the end was asked for meanwhile.

        Raises ServiceError when a service ends, or does not answer within START_TIMEOUT.
        """
        waiting = [(service, endpoint) for service in self._services for endpoint in service.endpoints]
        deadline = time.monotonic() + START_TIMEOUT
        while waiting and not self._over:
            self._turn()
            waiting = [(service, endpoint) for service, endpoint in waiting if not answers(endpoint)]
            if waiting and time.monotonic() > deadline:
                service, endpoint = waiting[0]
                raise ServiceError(f"{service.name} does not answer on {endpoint} after {START_TIMEOUT:.0f} s")
        return not self._over

    def wait(self) -> None:
        """Until the end is asked for. Raises ServiceError when a service ends by itself."""
        while not self._over:
            self._turn()

    @property
    def _over(self) -> bool:
        return self._asked > 0 or self._mute

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1

    def _start(self, service: Service) -> None:
        try:
            child = subprocess.Popen(
                service.argv,
                env={**os.environ, **service.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches us alone, and we end the children in order.
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"cannot start {service.name} ({service.argv[0]}): {error.strerror}") from None
        self._children.append((service, child))
        reader = threading.Thread(target=self._read, args=(service.name, child), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _read(self, name: str, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None  # stdout=PIPE
        with child.stdout as out:
            while line := out.readline(MAX_LINE):
                self._lines.put((name, line.decode("utf-8", "backslashreplace").rstrip("\r\n")))

    def _turn(self) -> None:
        """Print what there is, wait a moment if there is nothing. Raises ServiceError when a service has ended."""
        self._print(POLL)
        for service, child in self._children:
            if child.poll() is not None:
                raise ServiceError(f"{service.name} ended {_status(child.returncode)}; ending the others")

    def _print(self, wait: float) -> None:
        """Print the lines that are there, up to MAX_PENDING; wait for the first at most `wait` seconds."""
        try:
            for _ in range(MAX_PENDING):
                name, line = self._lines.get(timeout=wait) if wait else self._lines.get_nowait()
                wait = 0
                if not self._mute:
                    self._show(name, readable(line))
        except queue.Empty:
            pass
        except OSError:  # nobody reads us any more (tools/run | head); go on emptying the children's pipes
            self._mute = True

    def _end_all(self) -> None:
        """Ask all, wait for STOP_GRACE or until asked again, then kill. Their last lines are printed."""
        asked = self._asked
        for _, child in self._children:
            child.terminate()  # does nothing to one that has ended
        deadline = time.monotonic() + STOP_GRACE
        while any(child.poll() is None for _, child in self._children):
            if time.monotonic() > deadline or self._asked > asked:
                break
            self._print(POLL)
        for _, child in self._children:
            try:
                os.killpg(child.pid, signal.SIGKILL)  # also workers that their arbiter left behind
            except ProcessLookupError:
                pass
            child.wait()
        # Last words are still on their way. Somebody who fled the group could keep a pipe open: not for ever.
        deadline = time.monotonic() + LAST_WORDS
        while any(reader.is_alive() for reader in self._readers) and time.monotonic() < deadline:
            self._print(POLL)
        self._print(0)


def _status(returncode: int) -> str:
    if returncode < 0:
        return f"by {signal.Signals(-returncode).name}"
    return f"with status {returncode}"
