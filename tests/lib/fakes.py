"""Fakes of the session's ports: a manual clock, scripted streams, a policy and an authenticator by table.

They exist for faults and byte splits that a real peer cannot be made to produce; what a real peer can show is
tested with the real peer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from smtpgate.clock import Deadline
from smtpgate.drivers.accesslog import AccessLog
from smtpgate.journal import Row
from smtpgate.policy.model import ALLOWED, Decision, Event, Facts, Paid, Shape, Slot
from smtpgate.routing.model import BackendSettings, BackendTls, Failover
from smtpgate.session.link import BackendLink
from smtpgate.session.ports import (
    Attending,
    AuthAnswer,
    AuthGranted,
    AuthQuery,
    BackendRefused,
    DialFailed,
    Holds,
    PoolTarget,
    Ports,
    Seeker,
    Shaper,
    Target,
)
from smtpgate.session.streams import READ_SIZE, Peer, StreamLost, StreamTimeout, TlsInfo
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

    A piece may be an exception instance: it is raised in its turn. None: the client waits here until it is answered.
    All else is there from the beginning.
    """

    def __init__(self, pieces: Iterable[bytes | BaseException | None], peer: Peer = CLIENT) -> None:
        self.pieces = list(pieces)
        self.received = bytearray()
        self.writes = 0
        self._answered = 0  # writes that it has read
        self.peer = peer
        self.tls: TlsInfo | None = None
        self.closed = False
        self.limits: list[int] = []  # of each read
        self.attended: Callable[[], AbstractContextManager[None]] = nullcontext

    def abort_on_close(self) -> AbstractContextManager[None]:
        return self.attended()

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        self.limits.append(limit)
        if deadline.expired:
            raise StreamTimeout
        if not self.pieces:
            return b""
        if self.pieces[0] is None:
            if self.writes == self._answered:
                raise StreamTimeout
            del self.pieces[0]
        self._answered = self.writes
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        assert piece is not None, "it cannot wait twice"
        if len(piece) > limit:
            self.pieces.insert(0, piece[limit:])
        return piece[:limit]

    def readable(self) -> bool:
        return bool(self.pieces) and self.pieces[0] is not None

    def write(self, data: bytes, deadline: Deadline) -> None:
        self.writes += 1
        self.received += data

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        self.tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        return self.tls

    def start_client_tls(self, settings: BackendTls, server_name: str, deadline: Deadline) -> TlsInfo:
        raise AssertionError("we are never a TLS client towards a client")

    def close(self) -> None:
        self.closed = True


class ScriptedBackend:
    """A backend that follows a script of (what it expects, what it then says); says `None` by hanging up.

    An expectation of b"" is "says so unasked". The octets received are compared in order; whatever comes beyond
    the script is kept in `unexpected`. piece: how many octets one read hands out. handshakes: what TLS was asked for,
    by settings and name; no_tls: why it fails. writes: how many there were.
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
        self.handshakes: list[tuple[BackendTls, str]] = []
        self.no_tls: Exception | None = None
        self.writes = 0
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

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        if self.outgoing:
            data = bytes(self.outgoing[: self.piece])
            del self.outgoing[: self.piece]
            return data
        if self.hung_up:
            return b""
        raise StreamTimeout

    def readable(self) -> bool:
        return bool(self.outgoing) or self.hung_up

    def abort_on_close(self) -> AbstractContextManager[None]:
        raise AssertionError("nobody waits for somebody else in a backend's name")

    def write(self, data: bytes, deadline: Deadline) -> None:
        if self.closed:
            raise StreamLost("closed by us")
        if self.hung_up and not self.outgoing:
            raise StreamLost("EPIPE: Broken pipe")
        self.writes += 1
        self.received += data
        self._advance()

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        raise AssertionError("we are never a TLS server towards a backend")

    def start_client_tls(self, settings: BackendTls, server_name: str, deadline: Deadline) -> TlsInfo:
        self.handshakes.append((settings, server_name))
        if self.no_tls is not None:
            raise self.no_tls
        self.tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        return self.tls

    def close(self) -> None:
        self.closed = True


class FakeLease:
    """keeping: the next that is leased is this connection, with all that it was told."""

    def __init__(self, backend: str, link: BackendLink, backends: FakeBackends, *, greeted: bool = False) -> None:
        self.backend = backend
        self.host = f"{backend}.test"
        self.settings = backends.settings
        self.link = link
        self.greeted = greeted
        self.released = 0
        self.faults: list[str] = []
        self.taken = 0
        self._backends = backends

    def release(self) -> None:
        self.released += 1
        self.link.close()

    def keep(self) -> None:
        if self._backends.keeping:
            self.released += 1
            self._backends.kept.append((self.backend, self.link))
        else:
            self.link.quit()
            self.release()

    def failed(self, *, reason: str) -> None:
        assert not self.released, "told too late"
        self.faults.append(reason)

    def served(self) -> None:
        self.taken += 1


class FakeBackends:
    """Hands out scripted backends in order: name -> stream, or an exception text for a failed dial. keeping: a link
    that may be kept is, and is handed out before any other.
    """

    def __init__(
        self,
        clock: ManualClock,
        backends: Iterable[tuple[str, ScriptedBackend | str]] = (),
        settings: BackendSettings | None = None,
        failover: Failover | None = None,
        *,
        keeping: bool = False,
    ) -> None:
        self.clock = clock
        self.keeping = keeping
        self.gone = False  # the pools were edited away
        self.queued = 0.0  # seconds in the pool's queue
        self.kept: list[tuple[str, BackendLink]] = []
        self.backends = list(backends)
        self.settings = settings or BackendSettings()
        self.failover = failover or Failover()
        self.leases: list[FakeLease] = []
        self.asked: list[tuple[Target, frozenset[str]]] = []
        self.seekers: list[Seeker] = []

    def check(self, target: Target) -> None:
        if self.gone:
            raise BackendRefused("unknown pool", replies.INTERNAL_ERROR)

    def plan(self, target: Target) -> Failover:
        self.check(target)
        return self.failover

    def unavailable(self, target: Target) -> Reply:
        return replies.parse("451 4.4.1 no mail server available, try again later")

    def lease(
        self, target: Target, seeker: Seeker, tried: Collection[str], deadline: Deadline, attending: Attending
    ) -> FakeLease:
        self.asked.append((target, frozenset(tried)))
        self.seekers.append(seeker)
        if self.queued:
            with attending():
                self.clock.time += self.queued
        if self.kept:
            name, link = self.kept.pop(0)
            lease = FakeLease(name, link, self, greeted=True)
            self.leases.append(lease)
            return lease
        if not self.backends:
            raise BackendRefused("nobody left", self.unavailable(target))
        name, stream = self.backends.pop(0)
        if isinstance(stream, str):
            raise DialFailed(name, stream)
        lease = FakeLease(name, BackendLink(stream, self.clock), self)
        self.leases.append(lease)
        return lease


class FakeSpool:
    """Keeps all in memory. full: octets that fit."""

    def __init__(self, full: int) -> None:
        self.pieces: list[bytes] = []
        self.full = full
        self.closed = False

    def write(self, data: bytes) -> None:
        if sum(map(len, self.pieces)) + len(data) > self.full:
            raise OSError(28, "No space left on device")
        self.pieces.append(data)

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces

    def close(self) -> None:
        self.closed = True


class FakeSpools:
    """Makes spools, and keeps them. full: octets that fit into each."""

    def __init__(self, full: int = 1 << 30) -> None:
        self.full = full
        self.made: list[tuple[int, FakeSpool]] = []

    def __call__(self, memory: int) -> FakeSpool:
        spool = FakeSpool(self.full)
        self.made.append((memory, spool))
        return spool


class FakePolicy:
    """Decides by a function; routes everything to one pool, or by a function.

    asked: how each question was asked, (turn, hold). refunds: what was given back, and whether the fault was ours.
    """

    def __init__(
        self,
        decide: Callable[[Event, Facts], Decision] | None = None,
        route: Callable[[Facts], PoolTarget | None] | None = None,
    ) -> None:
        self._decide = decide
        self._route = route
        self.mixed_recipients: Literal["defer", "first"] = "defer"
        self.events: list[tuple[Event, Facts]] = []
        self.asked: list[tuple[bool, float | None]] = []
        self.refunds: list[tuple[tuple[Paid, ...], bool]] = []
        self.released: list[Slot] = []
        self.held: list[tuple[str, float]] = []

    def decide(self, event: Event, facts: Facts, *, turn: bool = False, hold: float | None = None) -> Decision:
        self.events.append((event, facts))
        self.asked.append((turn, hold))
        return self._decide(event, facts) if self._decide else ALLOWED

    def asks(self, event: Event) -> bool:
        return True

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None:
        self.refunds.append((tuple(paid), ours))

    def release(self, slots: Sequence[Slot]) -> None:
        self.released += slots

    def held_for(self, limit: str, seconds: float) -> None:
        self.held.append((limit, seconds))

    def route(self, facts: Facts) -> PoolTarget | None:
        return self._route(facts) if self._route else PoolTarget("core", "default")


class FakePlace:
    """A place in a line of which others stand in front for `ahead` seconds."""

    def __init__(self, holds: FakeHolds, key: str) -> None:
        self._holds = holds
        self.key = key
        self.left = 0

    @property
    def first(self) -> bool:
        return self._holds.ahead <= 0.0

    def rest(self, seconds: float | None) -> bool:
        assert seconds is not None, "a session is held for a bounded time"
        wait = seconds if self.first else min(seconds, self._holds.ahead)
        self._holds.rests.append(wait)
        self._holds.clock.time += wait
        self._holds.ahead -= wait
        return not self._holds.draining

    def leave(self) -> None:
        self.left += 1


class FakeHolds:
    """Lets everybody stand in line, or nobody. rests: how long each wait was."""

    def __init__(self, clock: ManualClock, *, full: bool = False, ahead: float = 0.0) -> None:
        self.clock = clock
        self.full = full
        self.ahead = ahead
        self.draining = False
        self.rests: list[float] = []
        self.places: list[FakePlace] = []
        self.patient: list[bool] = []

    def join(self, key: str, *, patient: bool) -> FakePlace | None:
        if self.full:
            return None
        self.patient.append(patient)
        self.places.append(FakePlace(self, key))
        return self.places[-1]

    def drain(self) -> None:
        self.draining = True


class FakeLane:
    """Lets `piece` octets be read at a time, and takes `seconds` for each."""

    def __init__(self, clock: ManualClock, piece: int, owed: int, seconds: float) -> None:
        self.piece = piece
        self._clock = clock
        self._owed = owed
        self._seconds = seconds
        self.paid: list[int] = []
        self.closed = 0

    def owe(self, octets: int) -> None:
        self._owed += octets

    def settle(self) -> bool:
        owed, self._owed = self._owed, 0
        if owed:
            self.paid.append(owed)
            self._clock.time += self._seconds
        return owed > 0

    def close(self) -> None:
        self.closed += 1


class FakeShaper:
    def __init__(self, clock: ManualClock, piece: int = 10, seconds: float = 1.0) -> None:
        self._clock = clock
        self._piece = piece
        self._seconds = seconds
        self.opened: list[tuple[Shape, ...]] = []
        self.lanes: list[FakeLane] = []

    def open(self, shapes: Sequence[Shape], owed: int) -> FakeLane:
        self.opened.append(tuple(shapes))
        self.lanes.append(FakeLane(self._clock, self._piece, owed, self._seconds))
        return self.lanes[-1]


class FakeAuthenticator:
    """Answers in the given order; the last answer repeats. Keeps the queries."""

    def __init__(self, *answers: AuthAnswer) -> None:
        self.answers = list(answers) or [AuthGranted(pool="core")]
        self.queries: list[AuthQuery] = []

    def ask(self, query: AuthQuery) -> AuthAnswer:
        self.queries.append(query)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class ListRows:
    """Lines of a ListJournal whose fields are always the same."""

    def __init__(self, journal: ListJournal, event: str, names: Sequence[str], row: Callable[[Any], Row]) -> None:
        self._journal = journal
        self._event = event
        self._names = names
        self._row = row

    def add(self, record: Any) -> None:
        values, more = self._row(record)
        fields = dict(zip(self._names, map(_as_json, values), strict=True))
        self._journal.info(self._event, **fields, **(more or {}))


def _as_json(value: object) -> object:
    """What is read from a line that has been written with it."""
    if isinstance(value, float):
        return round(value, 3)
    return list(value) if isinstance(value, tuple) else value


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

    def rows(self, event: str, names: Sequence[str], row: Callable[[Any], Row]) -> ListRows:
        return ListRows(self, event, names, row)

    def of(self, event: str) -> list[dict[str, object]]:
        return [fields for _, name, fields in self.lines if name == event]


def ports(
    clock: ManualClock,
    backends: FakeBackends,
    *,
    policy: FakePolicy | None = None,
    holds: Holds | None = None,
    shaper: Shaper | None = None,
    authenticator: FakeAuthenticator | None = None,
    journal: ListJournal | None = None,
    draining: Callable[[], bool] = bool,
    spool: FakeSpools | None = None,
) -> Ports:
    journal = journal or ListJournal()
    return Ports(
        authenticator=authenticator,
        policy=policy or FakePolicy(),
        holds=FakeHolds(clock) if holds is None else holds,  # lines that nobody stands in are false
        shaper=shaper or FakeShaper(clock),
        backends=backends,
        records=AccessLog(journal),
        journal=journal,
        clock=clock,
        token=lambda octets: "0123456789abcdef"[: 2 * octets].ljust(2 * octets, "0"),
        draining=draining,
        spool=spool or FakeSpools(),
    )
