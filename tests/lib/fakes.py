"""Fakes of the session's ports: a manual clock, scripted streams, a policy and an authenticator by table.

They exist for faults and byte splits that a real peer cannot be made to produce; what a real peer can show is
tested with the real peer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext

from smtpgate.clock import Deadline
from smtpgate.policy.model import ALLOWED, Decision, Event, Facts
from smtpgate.routing.model import BackendSettings, Failover
from smtpgate.session.link import BackendLink
from smtpgate.session.ports import (
    AuthAnswer,
    AuthGranted,
    AuthQuery,
    BackendRefused,
    DialFailed,
    Peer,
    PoolTarget,
    Ports,
    StreamLost,
    StreamTimeout,
    Target,
    TlsInfo,
)
from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply

CLIENT = Peer("192.0.2.7", 40000, "127.0.0.1", 25)


class ManualClock:
    """Time that passes only when told, or when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class FakeStream:
    """A client: its octets in the given pieces, then the end of the stream; what it gets is in `received`.

    A piece may be an exception instance: it is raised in its turn.
    """

    def __init__(self, pieces: Iterable[bytes | Exception], peer: Peer = CLIENT) -> None:
        self.pieces = list(pieces)
        self.received = bytearray()
        self.writes = 0
        self.peer = peer
        self.tls: TlsInfo | None = None
        self.closed = False
        self.attended: Callable[[], AbstractContextManager[None]] = nullcontext

    def abort_on_close(self) -> AbstractContextManager[None]:
        return self.attended()

    def read(self, deadline: Deadline) -> bytes:
        if deadline.expired:
            raise StreamTimeout
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def readable(self) -> bool:
        return bool(self.pieces)

    def write(self, data: bytes, deadline: Deadline) -> None:
        self.writes += 1
        self.received += data

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        self.tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        return self.tls

    def close(self) -> None:
        self.closed = True


class ScriptedBackend:
    """A backend that follows a script of (what it expects, what it then says); says `None` by hanging up.

    An expectation of b"" is "says so unasked". The octets received are compared in order; whatever comes beyond
    the script is kept in `unexpected`. piece: how many octets one read hands out.
    """

    def __init__(self, script: Iterable[tuple[bytes, bytes | None]], piece: int = 1 << 20) -> None:
        self.script = list(script)
        self.piece = piece
        self.received = bytearray()
        self.seen = 0
        self.outgoing = bytearray()
        self.hung_up = False
        self.closed = False
        self.peer = Peer("127.0.0.1", 50000, "127.0.0.1", 25)
        self.tls: TlsInfo | None = None
        self._advance()

    def _advance(self) -> None:
        while self.script and not self.hung_up:
            expected, says = self.script[0]
            if not self.received.startswith(expected, self.seen):
                return
            self.seen += len(expected)
            self.script.pop(0)
            if says is None:
                self.hung_up = True
            else:
                self.outgoing += says

    @property
    def unexpected(self) -> bytes:
        return bytes(self.received[self.seen :])

    def read(self, deadline: Deadline) -> bytes:
        if self.outgoing:
            data = bytes(self.outgoing[: self.piece])
            del self.outgoing[: self.piece]
            return data
        if self.hung_up:
            return b""
        raise StreamTimeout

    def readable(self) -> bool:
        return bool(self.outgoing) or self.hung_up

    def write(self, data: bytes, deadline: Deadline) -> None:
        if self.closed:
            raise StreamLost("closed by us")
        if self.hung_up and not self.outgoing:
            raise StreamLost("EPIPE: Broken pipe")
        self.received += data
        self._advance()

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        raise AssertionError("we are never a TLS server towards a backend")

    def close(self) -> None:
        self.closed = True


class FakeLease:
    def __init__(self, backend: str, stream: ScriptedBackend, clock: ManualClock) -> None:
        self.backend = backend
        self.stream = stream
        self.link = BackendLink(stream, clock)
        self.released = 0

    def release(self) -> None:
        self.released += 1
        self.link.close()


class FakeBackends:
    """Hands out scripted backends in order: name -> stream, or an exception text for a failed dial."""

    def __init__(
        self,
        clock: ManualClock,
        backends: Iterable[tuple[str, ScriptedBackend | str]] = (),
        settings: BackendSettings | None = None,
        failover: Failover | None = None,
    ) -> None:
        self.clock = clock
        self.backends = list(backends)
        self.settings = settings or BackendSettings()
        self.failover = failover or Failover()
        self.leases: list[FakeLease] = []
        self.asked: list[tuple[Target, frozenset[str]]] = []

    def plan(self, target: Target) -> tuple[BackendSettings, Failover]:
        return self.settings, self.failover

    def unavailable(self, target: Target) -> Reply:
        return replies.parse("451 4.4.1 no mail server available, try again later")

    def lease(self, target: Target, tried: Collection[str], deadline: Deadline) -> FakeLease:
        self.asked.append((target, frozenset(tried)))
        if not self.backends:
            raise BackendRefused("nobody left", self.unavailable(target))
        name, stream = self.backends.pop(0)
        if isinstance(stream, str):
            raise DialFailed(name, stream)
        lease = FakeLease(name, stream, self.clock)
        self.leases.append(lease)
        return lease


class FakePolicy:
    """Decides by a function; routes everything to one pool, or by a function."""

    def __init__(
        self,
        decide: Callable[[Event, Facts], Decision] | None = None,
        route: Callable[[Facts], PoolTarget | None] | None = None,
    ) -> None:
        self._decide = decide
        self._route = route
        self.events: list[tuple[Event, Facts]] = []

    def decide(self, event: Event, facts: Facts) -> Decision:
        self.events.append((event, facts))
        return self._decide(event, facts) if self._decide else ALLOWED

    def route(self, facts: Facts) -> PoolTarget | None:
        return self._route(facts) if self._route else PoolTarget("core", "default")


class FakeAuthenticator:
    """Answers in the given order; the last answer repeats. Keeps the queries."""

    def __init__(self, *answers: AuthAnswer) -> None:
        self.answers = list(answers) or [AuthGranted(pool="core")]
        self.queries: list[AuthQuery] = []

    def ask(self, query: AuthQuery) -> AuthAnswer:
        self.queries.append(query)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class ListJournal:
    """Keeps what was logged: (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))

    def of(self, event: str) -> list[dict[str, object]]:
        return [fields for _, name, fields in self.lines if name == event]


def ports(
    clock: ManualClock,
    backends: FakeBackends,
    *,
    policy: FakePolicy | None = None,
    authenticator: FakeAuthenticator | None = None,
    journal: ListJournal | None = None,
    draining: Callable[[], bool] = bool,
) -> Ports:
    return Ports(
        authenticator=authenticator,
        policy=policy or FakePolicy(),
        backends=backends,
        journal=journal or ListJournal(),
        clock=clock,
        token=lambda octets: "0123456789abcdef"[: 2 * octets].ljust(2 * octets, "0"),
        draining=draining,
    )
