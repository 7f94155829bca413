"""Pools, backends and routes, as frozen values. Owns no behaviour."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

F = TypeVar("F", contravariant=True)


@dataclass(frozen=True, slots=True)
class BackendTls:
    """TLS towards a backend. starttls: where it is offered (opportunistic); required: STARTTLS or nobody; implicit:
    from the first octet. verify: check chain and name. server_name: for SNI and the check, None for the backend's
    host name. ca, cert, key: PEM files; ca None is the system's, key None is in the file of cert.
    """

    mode: Literal["off", "starttls", "required", "implicit"] = "off"
    verify: bool = True
    server_name: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class BackendAuth:
    """Who the proxy logs in as. replay: with the client's own credentials; else these, as AUTH PLAIN."""

    replay: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """How to speak to a backend (conf/proxy.yaml `backend:`; a pool may say otherwise).

    xclient: send XCLIENT if the backend advertises it (auto), always (on, as nginx), never (off). proxy_protocol: the
    header that opens each connection. auth: None is no AUTH. pass_error_message: show the backend's own words when
    its handshake fails (nginx's proxy_pass_error_message).
    """

    xclient: Literal["auto", "on", "off"] = "auto"
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    auth: BackendAuth | None = None
    pass_error_message: bool = False
    tls: BackendTls = BackendTls()

    @property
    def identity_renewable(self) -> bool:
        """A connection may serve another client: what it was told of the first one can be told anew, or it was told
        nothing.
        """
        return self.proxy_protocol == "off" and (self.auth is None or not self.auth.replay)


class State(enum.Enum):
    """What an operator wants of a backend: drain takes no new session, off ends the idle ones too."""

    ACTIVE = "active"
    DRAIN = "drain"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One mail server. max_conns: sessions at once from one worker process; None is unbounded. backup: asked only
    when no primary is healthy, or rather than refuse.
    """

    name: str
    host: str
    port: int
    weight: int = 1
    max_conns: int | None = None
    state: State = State.ACTIVE
    backup: bool = False


@dataclass(frozen=True, slots=True)
class BackendView:
    """A backend for logs, metrics and gatectl.

    reason: why it is not up, "" if it is; by: who has found or said so, in the words of the log. since: of the state,
    monotonic seconds. weight: now, with slow start. failures: of connects and of sessions in a row.
    """

    name: str
    state: Literal["up", "down", "open", "drain", "off", "backup"]
    reason: str
    since: float
    conns: int
    weight: float
    by: Literal["", "policy", "operator", "probe", "sessions"] = ""
    failures: int = 0


class Balance(enum.Enum):
    ROUND_ROBIN = "round_robin"
    LEAST_CONN = "least_conn"
    RANDOM2 = "random2"
    HASH = "hash"


HashKey = Literal["user", "client", "domain"]


@dataclass(frozen=True, slots=True)
class Failover:
    """attempts: further backends to try after the first. deadline: seconds in which one command finds a backend.

    until: the last moment at which a lost backend is replaced: connect (and its handshake), rcpt (until DATA),
    data_start (until the 354), buffered (until the final dot: `buffer` octets of the message are kept in memory, the
    rest in a temporary file).
    """

    attempts: int = 2
    deadline: float = 20.0
    until: Literal["connect", "rcpt", "data_start", "buffered"] = "data_start"
    buffer: int = 1 << 20


@dataclass(frozen=True, slots=True)
class HealthSpec:
    """Active probes. probe ehlo: banner, EHLO, QUIT. Seconds; rise and fall: equal results in a row."""

    probe: Literal["off", "connect", "ehlo"] = "ehlo"
    every: float = 5.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """Passive health. connect: connect failures in a row that eject a backend; session: failed sessions in a row,
    which count only when they come from `min_clients` client networks. open: seconds until one session may try again;
    max_open: part of a pool that may be ejected at once (one backend at least, 0 for none).
    """

    connect: int = 3
    session: int = 5
    min_clients: int = 2
    open: float = 30.0
    max_open: float = 0.5


@dataclass(frozen=True, slots=True)
class ReuseSpec:
    """Backend sessions kept for the next client. idle, age: seconds (0 idle: no reuse). messages: a connection.
    max_idle: kept at once, a backend and process.
    """

    idle: float = 20.0
    messages: int = 50
    max_idle: int = 20
    age: float = 300.0


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """Sessions that wait for a place while every backend is at max_conns. wait: seconds; max: at once, a process."""

    wait: float = 2.0
    max: int = 500


UNAVAILABLE: Final = "451 4.4.1 no mail server available, try again later"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as the operator wrote it. unavailable: the reply (code, enhanced code, text) when nobody is left, unless
    fallback names another pool. slow_start: seconds in which a backend that came back gets to its full weight.
    """

    name: str
    backends: tuple[BackendSpec, ...]
    balance: Balance = Balance.ROUND_ROBIN
    hash_key: HashKey = "client"
    settings: BackendSettings = BackendSettings()
    failover: Failover = Failover()
    health: HealthSpec = HealthSpec()
    breaker: BreakerSpec = BreakerSpec()
    slow_start: float = 0.0
    reuse: ReuseSpec = ReuseSpec()
    queue: QueueSpec = QueueSpec()
    unavailable: str = UNAVAILABLE
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class Route(Generic[F]):
    """`matches(facts)`: True, False, or None when it depends on a fact that is not known yet.

    source is "file:line" of the route.
    """

    name: str
    pool: str
    matches: Callable[[F], bool | None]
    source: str
