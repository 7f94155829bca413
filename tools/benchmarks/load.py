"""A load generator of our own, for what smtp-source cannot do: AUTH, TLS, big bodies, latencies, idle sessions.

Runs as a process of its own (`python -m tools.benchmarks.load JSON`), so that its CPU is told apart, and prints one
line of JSON. Clients are greenlets over plain sockets that send what they have to send and wait for the code that
they expect: anything else is an error, and the run is thrown away.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

READ: Final = 65536
TIMEOUT: Final = 60.0
OPENING: Final = 100  # idle sessions that are opened at a time
# Said by a generator whose idle sessions are open, and to it: go on.
READY: Final = "ready\n"


@dataclass(frozen=True, slots=True)
class Job:
    """messages: in all, over `clients` at once; per_session: on each connection. users: names, who take turns, with
    one password; empty is no AUTH. body: octets of a message, of lines with `dots` or without. resumed: with the
    ticket of an earlier TLS session. idle: sessions that are opened, greeted and left alone.
    """

    host: str
    port: int
    messages: int = 1000
    clients: int = 20
    per_session: int = 1
    users: tuple[str, ...] = ()
    password: str = ""
    body: int = 1000
    dots: bool = False
    tls: Literal["off", "starttls", "implicit"] = "off"
    resumed: bool = False
    idle: int = 0


@dataclass(slots=True)
class Outcome:
    """seconds: wall. cpu: of the generator. latencies: seconds a message, from connect (or MAIL) to its 250.
    commands: seconds of one NOOP each.
    """

    sent: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class UnexpectedError(Exception):
    """A reply with another code than the dialogue needs, or none."""


class Client:
    """One connection."""

    def __init__(self, job: Job, context: ssl.SSLContext | None, session: ssl.SSLSession | None) -> None:
        self._buffer = b""
        self._sock: socket.socket = socket.create_connection((job.host, job.port), timeout=TIMEOUT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if job.tls == "implicit":
            self._secure(context, session)
        self.expect(b"220")
        self.say(b"EHLO load.example.com\r\n", b"250")
        if job.tls == "starttls":
            self.say(b"STARTTLS\r\n", b"220")
            self._secure(context, session)
            self.say(b"EHLO load.example.com\r\n", b"250")

    def _secure(self, context: ssl.SSLContext | None, session: ssl.SSLSession | None) -> None:
        assert context is not None
        sock = context.wrap_socket(self._sock, session=session)
        if session is not None and not sock.session_reused:
            raise UnexpectedError("expected the TLS session to be resumed, got a new one")
        self._sock = sock

    @property
    def session(self) -> ssl.SSLSession | None:
        """What the next connection can resume."""
        return self._sock.session if isinstance(self._sock, ssl.SSLSocket) else None

    def say(self, octets: bytes, code: bytes) -> None:
        self._sock.sendall(octets)
        self.expect(code)

    def expect(self, code: bytes) -> None:
        """The next reply; all of its lines."""
        while True:
            while b"\r\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\r\n")
                if line[3:4] != b"-":
                    if line[:3] != code:
                        raise UnexpectedError(f"expected {code.decode()}, got {line.decode(errors='replace')}")
                    return
            data = self._sock.recv(READ)
            if not data:
                raise UnexpectedError(f"expected {code.decode()}, got the end of the connection")
            self._buffer += data

    def message(self, text: bytes) -> None:
        self.say(b"MAIL FROM:<load@example.com>\r\n", b"250")
        self.say(b"RCPT TO:<sink@example.com>\r\n", b"250")
        self.say(b"DATA\r\n", b"354")
        self.say(text, b"250")

    def close(self) -> None:
        self._sock.close()


def text_of(octets: int, *, dots: bool) -> bytes:
    """A message with its end: base64 as an attachment has it, or text with a dot every 60 characters."""
    line = (b"." + b"x" * 59 + b".\r\n") if dots else base64.b64encode(bytes(range(57))) + b"\r\n"
    if dots:
        line = b"." + line  # stuffed
    head = b"Subject: load\r\n\r\n"
    return head + line * max(1, (octets - len(head)) // len(line)) + b".\r\n"


def run(job: Job) -> Outcome:
    """All messages of the job. Errors end the client that met them."""
    from gevent.pool import Pool

    outcome = Outcome()
    text = text_of(job.body, dots=job.dots)
    users = _turns(job.users)
    numbers = iter(range(0, job.messages, job.per_session))
    context = _context() if job.tls != "off" else None
    first = _ticket(job, context) if job.resumed else None

    def client() -> None:
        for start in numbers:
            try:
                _session(job, outcome, context, first, text, min(job.per_session, job.messages - start), users)
            except (OSError, UnexpectedError) as error:
                outcome.errors.append(f"{type(error).__name__}: {error}")
                return

    began, cpu = time.monotonic(), time.process_time()
    pool = Pool(job.clients)
    for _ in range(job.clients):
        pool.spawn(client)
    pool.join()
    outcome.seconds, outcome.cpu = time.monotonic() - began, time.process_time() - cpu
    return outcome


def _session(
    job: Job,
    outcome: Outcome,
    context: ssl.SSLContext | None,
    ticket: ssl.SSLSession | None,
    text: bytes,
    messages: int,
    users: Iterator[str],
) -> None:
    began = time.monotonic()
    one = Client(job, context, ticket)
    try:
        if job.users:
            user = next(users)
            word = base64.b64encode(f"\0{user}\0{job.password}".encode())
            one.say(b"AUTH PLAIN " + word + b"\r\n", b"235")
        for _ in range(messages):
            one.message(text)
            outcome.sent += 1
            now = time.monotonic()
            outcome.latencies.append(now - began)
            one.say(b"NOOP\r\n", b"250")
            began = time.monotonic()
            outcome.commands.append(began - now)
        one.say(b"QUIT\r\n", b"221")
    finally:
        one.close()


def _turns(users: tuple[str, ...]) -> Iterator[str]:
    while users:
        yield from users


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _ticket(job: Job, context: ssl.SSLContext | None) -> ssl.SSLSession | None:
    one = Client(job, context, None)
    one.say(b"QUIT\r\n", b"221")  # TLS 1.3: the ticket comes behind the handshake
    ticket = one.session
    one.close()
    return ticket


def _idle(job: Job) -> list[Client]:
    """Sessions that said EHLO and nothing more. Raises what the first that failed has met."""
    from gevent.pool import Pool

    plain = Job(job.host, job.port)
    return list(Pool(OPENING).imap_unordered(lambda _: Client(plain, None, None), range(job.idle)))


def main() -> None:
    from gevent import monkey

    monkey.patch_all()
    settings = json.loads(sys.argv[1])
    job = Job(**{**settings, "users": tuple(settings.get("users", ()))})
    try:
        idle = _idle(job)
    except (OSError, UnexpectedError) as error:
        sys.exit(f"an idle session: {type(error).__name__}: {error}")
    if idle:
        print(READY, end="", flush=True)
        sys.stdin.readline()
    print(json.dumps(asdict(run(job))), flush=True)
    if idle:
        sys.stdin.read()  # whoever measures looks at the idle sessions until it ends


if __name__ == "__main__":
    main()
