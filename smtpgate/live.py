"""What an operator is shown of a proxy that runs: its sessions, pools, limits and latest denials, as plain values.

Each worker makes a Report of itself every few seconds; the console and gatectl put the reports of all workers and
nodes together. Refuses to know where reports travel (`drivers.liveboard`) and how they are shown. Nothing here is
secret, and everything is bounded: a report has at most MAX_SESSIONS sessions, MAX_DENIALS denials and MAX_HELD
subjects, and each text in it at most MAX_TEXT characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_SESSIONS: Final = 500  # of a worker, the oldest; `sessions` of the report counts them all
MAX_DENIALS: Final = 100  # of a worker, the latest
MAX_HELD: Final = 50  # subjects of a worker, those that were refused or held most often
MAX_BACKENDS: Final = 2000  # of a worker, in all its pools together
MAX_TEXT: Final = 320  # characters of a text of a client's: the longest address, RFC 5321 section 4.5.3.1

# Seconds that a report's `recent` tells of.
RECENT: Final = 60.0
# Seconds between two reports of a worker.
INTERVAL: Final = 2.0
# A worker that has said nothing for so long is stale: five reports in a row are missing.
STALE: Final = 5 * INTERVAL
# Seconds for which a stale worker is still told of; one that ends as it should takes its report away itself.
KEEP: Final = 600.0
# Read by anybody who looks: gunicorn's workers of a large cluster.
MAX_REPORTS: Final = 1000
# Of an operator, in force at once.
MAX_ORDERS: Final = 1000


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
    """One backend as one worker sees it. state: "up", "down", "ejected", "drain", "off". connections: sessions that
    have it; idle: connections that are kept. failures: in a row. by: who has found or said so ("probe", "sessions",
    "policy", "operator", in the words of the log), None of one that is up; reason: why.
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
    """What has happened in some time. octets: of messages that were delivered."""

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
    """One worker of one node. node: the machine's host name; server_name: what the proxy calls itself there. time and
    began: Unix seconds by the node's own clock. store: the mode of the limits' store: "shared", "local" while it is
    away, "memory" where it never was any. resident: octets of memory. counts: since the worker began; recent: in the
    last recent_seconds, which are RECENT at most.
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
    server_name: str = ""
    recent: Counts = Counts()
    recent_seconds: float = 0.0

    @property
    def worker(self) -> str:
        """Which process this is: no two workers of all nodes share it, nor one with whoever had its pid before."""
        return f"{self.node}/{self.pid}-{self.began:.3f}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A report as it was found. age: seconds since it was published, by the clock of where it is kept."""

    report: Report
    age: float


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's: no new sessions for this backend, in any worker of any node. by: who says so; time: Unix
    seconds.
    """

    pool: str
    backend: str
    by: str
    time: float

    def concerns(self, pool: str, backend: str) -> bool:
        return (self.pool, self.backend) == (pool, backend)


def missing(sightings: Iterable[Sighting]) -> list[Sighting]:
    """The stale ones that nobody has replaced: no worker of the same proxy has begun since their last report.

    gunicorn replaces a worker that was killed, and then nothing is wrong any more.
    """
    seen = list(sightings)
    begun: dict[tuple[str, str], float] = {}
    for one in seen:
        if one.age <= STALE:
            proxy = one.report.node, one.report.server_name
            begun[proxy] = max(begun.get(proxy, 0.0), one.report.began)
    return [
        one
        for one in seen
        if one.age > STALE and begun.get((one.report.node, one.report.server_name), 0.0) < one.report.time
    ]
