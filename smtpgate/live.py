"""What an operator is shown of a proxy that runs: its sessions, pools, limits and latest denials, as plain values.

Each worker makes a Report of itself every few seconds; the console and gatectl put the reports of all workers and
nodes together. Refuses to know where reports travel (`drivers.liveboard`) and how they are shown. Nothing here is
secret, and everything is bounded: a report has at most MAX_SESSIONS sessions, MAX_DENIALS denials and MAX_HELD
subjects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_SESSIONS: Final = 500  # of a worker, the oldest; `sessions` of the report counts them all
MAX_DENIALS: Final = 100  # of a worker, the latest
MAX_HELD: Final = 50  # subjects of a worker, those that were refused or held most often


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session now. since: Unix seconds at which it began. phase: "greeting", "idle", "auth", "mail", "data".

    transaction: the id of the one under way.
    """

    session: str
    listener: str
    client: str
    name: str
    user: str | None
    tls: str | None
    since: float
    phase: str
    transactions: int
    transaction: str | None = None
    backend: str | None = None


@dataclass(frozen=True, slots=True)
class DenialView:
    """One refusal by a limit. time: Unix seconds; rule: "file:line" of the limit; retry: seconds; balance: tokens."""

    time: float
    session: str
    client: str
    user: str | None
    at: str
    limit: str
    subject: str
    balance: float
    retry: float
    rule: str
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class SubjectView:
    """How often a limit has refused or held one subject since `since` (Unix seconds)."""

    limit: str
    subject: str
    rule: str
    denied: int
    held: int
    since: float


@dataclass(frozen=True, slots=True)
class BackendView:
    """One backend as one worker sees it. state: "up", "down", "ejected", "drain". connections: sessions that have it;
    idle: connections that are kept. by: who says that it is down, in the words of the log; reason: why.
    """

    name: str
    address: str
    state: str
    weight: int
    connections: int
    idle: int
    failures: int
    backup: bool = False
    by: str | None = None
    reason: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool. waiting: sessions in its queue."""

    name: str
    balance: str
    backends: tuple[BackendView, ...]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policies in force in one worker. version: the hash of their text; loaded: Unix seconds. problems: what is
    wrong with the folder as it is now; empty where it is what is in force.
    """

    version: str
    loaded: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the worker began. octets: of messages that were delivered."""

    sessions: int = 0
    delivered: int = 0
    refused: int = 0
    unknown: int = 0
    abandoned: int = 0
    denied: int = 0
    held: int = 0
    logins: int = 0
    failed_logins: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """One worker of one node. time and began: Unix seconds. store: the mode of the limits' store ("shared",
    "local"...). resident: octets of memory.
    """

    node: str
    pid: int
    version: str
    time: float
    began: float
    draining: bool
    store: str
    open_sessions: int
    resident: int
    counts: Counts
    sessions: tuple[SessionView, ...] = ()
    denials: tuple[DenialView, ...] = ()
    subjects: tuple[SubjectView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    policy: PolicyView | None = None
