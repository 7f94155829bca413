"""What a session needs from the world, as Protocols and frozen values. Drivers implement them; tests fake them.

Owns the words in which a session and its drivers speak; refuses to know how any of it is done. Who only looks on is
met in `observing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from smtpgate.clock import Clock, Deadline
from smtpgate.journal import Journal
from smtpgate.policy.model import Decision, Event, Facts, Paid, Shape, Slot
from smtpgate.routing.model import BackendSettings, Failover
from smtpgate.session.observing import Records
from smtpgate.session.streams import Peer, TlsInfo
from smtpgate.smtp.replies import Reply

if TYPE_CHECKING:
    from smtpgate.session.link import BackendLink


# --- authentication --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuthQuery:
    """One question to auth_http (reference/auth_http.md section 3). method: plain cram-md5 external none, and,
    beyond nginx, xoauth2 oauthbearer.

    user and password are bytes as decoded from the wire; for cram-md5 password is the digest, for the last two
    the bearer token, and for oauthbearer user may be empty. salt: "<...>" for cram-md5. attempt counts from 1.
    mail_line and rcpt_line are the commands as typed (method none). proxied: what a PROXY header said, None where
    none with addresses was read.
    """

    method: str
    attempt: int
    peer: Peer
    client_host: str
    user: bytes = b""
    password: bytes = field(default=b"", repr=False)
    salt: str | None = None
    tls: TlsInfo | None = None
    helo: str | None = None
    mail_line: bytes | None = None
    rcpt_line: bytes | None = None
    proxied: Peer | None = None


@dataclass(frozen=True, slots=True)
class AuthGranted:
    """user and password replace what the client gave, where not None.

    The way, in this order: pool (Auth-Pool), own_routes (Auth-Pool "*": the route depends on the envelope, so the
    proxy's own routes decide), server (Auth-Server and Auth-Port).
    """

    user: str | None = None
    password: bytes | None = field(default=None, repr=False)
    server: tuple[str, int] | None = None
    pool: str | None = None
    own_routes: bool = False
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class AuthRefused:
    """code is Auth-Error-Code ("535 5.7.0", "550"), validated; text is Auth-Status, printable ASCII.

    wait: seconds to pause before the reply; 0 closes the connection after it (auth_http.md section 6.3). keep_out:
    seconds for which nobody from the client's address is to have a session.
    """

    code: str
    text: str
    wait: float
    keep_out: float = 0.0


@dataclass(frozen=True, slots=True)
class AuthWait:
    """Auth-Status WAIT: ask again after `wait` seconds (at least 1), with these credentials where not None."""

    wait: float
    user: bytes | None = None
    password: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AuthUnavailable:
    """No usable answer. `reason` is for the log."""

    reason: str


AuthAnswer = AuthGranted | AuthRefused | AuthWait | AuthUnavailable


class Authenticator(Protocol):
    def ask(self, query: AuthQuery) -> AuthAnswer:
        """One answer to one question; every fault of the service is an AuthUnavailable.

        Raises nothing of its own. What is thrown into its waits (Stream.abort_on_close) comes out.
        """


# --- policy and routes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """Go to a pool by name. route: the name of the route that chose it, None if auth_http did."""

    pool: str
    route: str | None = None


@dataclass(frozen=True, slots=True)
class AddressTarget:
    """Go to this address and to no other (an answer's Auth-Server without Auth-Pool)."""

    host: str
    port: int


Target = PoolTarget | AddressTarget


class Policy(Protocol):
    """Nothing here raises: a store that is down is the engine's matter."""

    @property
    def mixed_recipients(self) -> Literal["defer", "first"]:
        """What becomes of a recipient whose route is not that of its transaction's first one."""

    def asks(self, event: Event) -> bool:
        """Whether any limit is about this event: without one, nothing need be gathered for it."""

    def decide(self, event: Event, facts: Facts, *, turn: bool = False, hold: float | None = None) -> Decision:
        """Charge the limits of an event.

        A denial with hold > 0 is not the last word: the session waits and asks again. turn: it is the first in its
        line; who else comes finds a bucket short that others are held for. hold: seconds for which it is willing to
        wait, 0.0 for the last word; None is as long as the limit offers.
        """

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None:
        """Give back what was paid: all of it if the fault was ours, else what its limit gives back."""

    def release(self, slots: Sequence[Slot]) -> None:
        """Places that decisions took are free again."""

    def held_for(self, limit: str, seconds: float) -> None:
        """A session was held for this limit."""

    def route(self, facts: Facts) -> PoolTarget | None:
        """The first matching route; None where no routes are configured."""


class Place(Protocol):
    """A place in the line of one bucket; whoever has it must leave() it."""

    @property
    def key(self) -> str:
        """ "<limit>:<subject>"."""

    @property
    def first(self) -> bool:
        """Nobody of this process stands in front."""

    def rest(self, seconds: float | None) -> bool:
        """Let `seconds` pass, or fewer where the turn comes meanwhile. False: the process drains, wait no longer."""

    def leave(self) -> None:
        """The next one's turn. Never raises; may be called twice."""


class Holds(Protocol):
    def join(self, key: str, *, patient: bool) -> Place | None:
        """The last place in the line of a bucket; None where too many are held. patient: a drain does not end it."""

    def drain(self) -> None:
        """The process is to end."""


class Lane(Protocol):
    """How fast one message may be read: it is read in pieces, and each is paid for before the next one is read."""

    @property
    def piece(self) -> int:
        """Octets to read next, at most."""

    def owe(self, octets: int) -> None:
        """So many have been read."""

    def settle(self) -> bool:
        """Wait until what was read is paid for. Whether there was anything to pay."""

    def close(self) -> None:
        """The message has ended. Never raises; may be called twice."""


class Shaper(Protocol):
    def open(self, shapes: Sequence[Shape], owed: int) -> Lane:
        """A message begins that these limits shape; `owed` octets of it have been read already."""


# --- backends --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """What a backend may learn of the client.

    addr: textual address or "unix:". name: its verified host name or "[UNAVAILABLE]". helo: the argument of its
    HELO or EHLO, None if it sent none; extended: it said EHLO. login: the canonical user name. method: auth_http's
    name of how it proved that, "none" if it did not. password: for `smtp_auth` only. peer and tls: its connection
    to us, where it may be told of.
    """

    addr: str
    name: str
    helo: str | None
    extended: bool
    login: str | None
    method: str = "none"
    password: bytes | None = field(default=None, repr=False)
    peer: Peer | None = None
    tls: TlsInfo | None = None


class BackendRefused(Exception):
    """No backend may be asked now: all are full, tried already, or the target is unknown or forbidden.

    `str()` is for the log; `reply` is what the client gets.
    """

    def __init__(self, reason: str, reply: Reply) -> None:
        super().__init__(reason)
        self.reply = reply


class DialFailed(Exception):
    """One backend could not be connected to; another may be tried."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend}: {reason}")
        self.backend = backend


@dataclass(frozen=True, slots=True)
class Seeker:
    """Who looks for a backend. client: textual address; user: canonical name; domain: of the first recipient.

    peer and tls: the client's connection to us, for a PROXY header; None says nothing of it.
    """

    client: str
    user: str | None
    domain: str
    peer: Peer | None = None
    tls: TlsInfo | None = None


class Lease(Protocol):
    """The right to speak to one backend, counted in its pool until given back.

    host: the name or address that was dialled, which TLS checks where its settings name no other. settings: how to
    speak to it (a pool's fallback has its own). greeted: its link has finished a handshake with an earlier client,
    whose identity it may still have.
    """

    backend: str
    host: str
    settings: BackendSettings
    link: BackendLink
    greeted: bool

    def release(self) -> None:
        """Close the connection and give the slot back. Never raises; may be called twice."""

    def keep(self) -> None:
        """Give the slot back, and the connection to whoever needs it next, if that is allowed; else say QUIT
        (`BackendLink.quit`) and release().

        Only for a link that rests between transactions (`BackendLink.resting`). Never raises.
        """

    def failed(self, *, reason: str) -> None:
        """The backend failed its session after it was connected: the breaker counts it. Call before release."""

    def served(self) -> None:
        """A message was taken: the breaker forgets."""


class Attending(Protocol):
    def __call__(self) -> AbstractContextManager[None]:
        """A context for waits on somebody else, with nothing left unsent; it ends, with StreamLost, when the client
        has gone (Stream.abort_on_close).
        """


class Backends(Protocol):
    def check(self, target: Target) -> None:
        """Raises BackendRefused for what nobody may be sent to now: an unknown pool, a forbidden address."""

    def plan(self, target: Target) -> Failover:
        """How hard to try. Raises BackendRefused (an unknown pool)."""

    def unavailable(self, target: Target) -> Reply:
        """What the client is told when nobody could be reached."""

    def lease(
        self, target: Target, seeker: Seeker, tried: Collection[str], deadline: Deadline, attending: Attending
    ) -> Lease:
        """Choose a backend that is not in `tried`; take a link that was kept, or connect (with PROXY header and
        implicit TLS, where the settings say so). May wait in the pool's queue, within attending(), out of which may
        come what is thrown into the wait. Raises BackendRefused, DialFailed.
        """


class Names(Protocol):
    def name_of(self, host: str) -> str:
        """The confirmed name of an address, or one of nginx's words for its absence (auth_http.md section 5).

        Raises nothing of its own. What is thrown into its waits (Stream.abort_on_close) comes out.
        """


class Spool(Protocol):
    """A message that is kept until it is committed (`failover.until: buffered`)."""

    def write(self, data: bytes) -> None:
        """Append. Raises OSError where the temporary file cannot grow."""

    def chunks(self) -> Iterator[bytes]:
        """All of it from the beginning."""

    def close(self) -> None:
        """Forget it. May be called twice."""


# --- the rest ---------------------------------------------------------------------------------------------------


class Token(Protocol):
    def __call__(self, octets: int) -> str:
        """Random hex text, 2 characters an octet: session ids, CRAM-MD5 salts."""


class MakeSpool(Protocol):
    def __call__(self, memory: int) -> Spool:
        """An empty spool that keeps `memory` octets in memory, and the rest in a temporary file."""


class Draining(Protocol):
    def __call__(self) -> bool:
        """True once the process has been told to end: sessions finish their transaction and say 421."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All that a session is handed. names: None asks nobody for the names of clients. stressed: whether the process
    has hardly a place left for another session. banned: told of an address that gets no session for so
    many seconds, and with which words.
    """

    authenticator: Authenticator | None
    policy: Policy
    holds: Holds
    shaper: Shaper
    backends: Backends
    records: Records
    journal: Journal
    clock: Clock
    token: Token
    draining: Draining
    spool: MakeSpool
    names: Names | None = None
    stressed: Callable[[], bool] = bool
    banned: Callable[[str, float, Reply], None] = lambda address, seconds, words: None
