"""What one worker can tell of itself: the sessions that are open, the latest refusals, who is refused or held most.

`LiveRecords` reads the sessions' records. A session costs it a dict's insert and delete, a transaction an int or two;
nothing is put into words until a report is made. `WorkerReports` does that, of them and of the worker's other parts.
Refuses to know where a report goes (`livepublisher`).
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Final

from smtpgate.clock import Clock
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.live import (
    MAX_BACKENDS,
    MAX_DENIALS,
    MAX_HELD,
    MAX_SESSIONS,
    MAX_TEXT,
    RECENT,
    BackendView,
    Counts,
    DenialView,
    PolicyView,
    PoolView,
    Report,
    SessionView,
    SubjectView,
)
from smtpgate.routing import model
from smtpgate.routing.pool import PoolState
from smtpgate.session.observing import LiveSession
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord
from smtpgate.smtp import replies

# Subjects that are counted at once, and how many of them stay when there are more: those that were refused or held
# most. So a new subject costs a dict's insert, and one that is refused again and again is not pushed out by a crowd
# of others that are refused once each.
MAX_SUBJECTS: Final = 2000
KEPT_SUBJECTS: Final = 1000
# Seconds without a refusal after which a subject is no longer told of.
FORGET: Final = 3600.0
# Problems of a policies folder: the first ones say what to mend first.
MAX_PROBLEMS: Final = 20
# Sessions that are looked at before the others of this worker may go on: a view costs some 5 us.
A_LOOK: Final = 50


class _Subject:
    """How often one was refused and held. since, last: Unix seconds."""

    __slots__ = ("denied", "held", "last", "rule", "since")

    def __init__(self, rule: str, now: float) -> None:
        self.rule = rule
        self.since = self.last = now
        self.denied = self.held = 0


class LiveRecords:
    """A `session.observing.Records` that keeps what an operator is shown. All of it is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, LiveSession] = {}
        self._denials: deque[tuple[float, DenialRecord]] = deque(maxlen=MAX_DENIALS)
        self._subjects: dict[tuple[str, str], _Subject] = {}
        self._sessions = self._octets = 0
        self._logins = self._failed_logins = self._denied = self._held = 0
        self._outcomes = dict.fromkeys(("delivered", "refused", "unknown"), 0)
        self._transactions = 0

    # --- the port ---

    def opened(self, session: LiveSession) -> None:
        self._sessions += 1
        self._open[session.id] = session

    def session(self, record: SessionRecord) -> None:
        self._open.pop(record.who.session, None)

    def authentication(self, record: AuthRecord) -> None:
        if record.reply.code == replies.AUTH_OK.code:
            self._logins += 1
        else:
            self._failed_logins += 1

    def transaction(self, record: TransactionRecord) -> None:
        self._transactions += 1
        outcome = record.outcome
        if outcome in self._outcomes:
            self._outcomes[outcome] += 1
        if outcome == "delivered":
            self._octets += record.size

    def denial(self, record: DenialRecord) -> None:
        now = self._clock.now()
        self._denials.append((now, record))
        if not record.shadow:
            self._denied += 1
            self._subject(record.limit, record.subject, now, record.rule).denied += 1

    def held(self, limit: str, subject: str) -> None:
        """A session stands in line for a limit (`drivers.holds`)."""
        self._held += 1
        self._subject(limit, subject, self._clock.now(), "").held += 1

    def _subject(self, limit: str, subject: str, now: float, rule: str) -> _Subject:
        key = limit, subject
        found = self._subjects.get(key)
        if found is None:
            if len(self._subjects) >= MAX_SUBJECTS:
                self._subjects = dict(heapq.nlargest(KEPT_SUBJECTS, self._subjects.items(), key=_weight))
            found = self._subjects[key] = _Subject(rule, now)
        found.last = now
        if rule:
            found.rule = rule  # an edit moves lines
        return found

    # --- what it has come to ---

    @property
    def open_sessions(self) -> int:
        return len(self._open)

    @property
    def counts(self) -> Counts:
        known = sum(self._outcomes.values())
        return Counts(
            sessions=self._sessions,
            abandoned=self._transactions - known,
            denied=self._denied,
            held=self._held,
            logins=self._logins,
            failed_logins=self._failed_logins,
            octets=self._octets,
            **self._outcomes,
        )

    def sessions(self) -> tuple[SessionView, ...]:
        """The oldest, at most MAX_SESSIONS. Lets others go on meanwhile."""
        looked: list[SessionView] = []
        oldest = list(itertools.islice(self._open.values(), MAX_SESSIONS))
        for start in range(0, len(oldest), A_LOOK):
            if start:
                self._clock.sleep(0)
            looked += [_session(one.view()) for one in oldest[start : start + A_LOOK] if one.id in self._open]
        return tuple(looked)

    def denials(self) -> tuple[DenialView, ...]:
        """The latest first."""
        return tuple(_denial(time, record) for time, record in reversed(self._denials))

    def subjects(self) -> tuple[SubjectView, ...]:
        """Those that were refused or held most often, the first MAX_HELD."""
        oldest = self._clock.now() - FORGET
        for key in [key for key, one in self._subjects.items() if one.last < oldest]:
            del self._subjects[key]
        most = heapq.nlargest(MAX_HELD, self._subjects.items(), key=_weight)
        return tuple(
            SubjectView(limit, shown(subject), one.rule, one.denied, one.held, one.since)
            for (limit, subject), one in most
        )


class WorkerReports:
    """Makes the reports of one worker. store: what its limits' store is doing.
    status: of the policies folder, None where there is none. sources: "file:line" of each limit by name, for
    subjects that were only ever held.
    """

    def __init__(
        self,
        *,
        node: str,
        server_name: str,
        version: str,
        records: LiveRecords,
        backends: PoolBackends,
        store: Callable[[], str],
        status: Callable[[], FolderStatus] | None,
        sources: Callable[[], Mapping[str, str]],
        clock: Clock,
    ) -> None:
        self._node = node
        self._server_name = server_name
        self._version = version
        self._records = records
        self._backends = backends
        self._store = store
        self._status = status
        self._sources = sources
        self._clock = clock
        self._began = clock.now()
        # (monotonic seconds, counts) of the reports of the last RECENT seconds.
        self._past: deque[tuple[float, Counts]] = deque([(clock.monotonic(), Counts())])
        self.draining = False

    def make(self) -> Report:
        """As of now. Lets others go on where there are many sessions."""
        records, status = self._records, self._status
        counts = records.counts
        recent, recent_seconds = self._recent(counts)
        return Report(
            node=self._node,
            pid=os.getpid(),
            version=self._version,
            time=self._clock.now(),
            began=self._began,
            draining=self.draining,
            store=self._store(),
            open_sessions=records.open_sessions,
            resident=resident(),
            counts=counts,
            sessions=records.sessions(),
            denials=records.denials(),
            subjects=self._sourced(records.subjects()),
            pools=tuple(self._pools()),
            policy=None if status is None else _policy(status()),
            server_name=self._server_name,
            recent=recent,
            recent_seconds=recent_seconds,
        )

    def _recent(self, counts: Counts) -> tuple[Counts, float]:
        """What has been counted in the last RECENT seconds, or since the worker began; and how many they are."""
        now = self._clock.monotonic()
        self._past.append((now, counts))
        while len(self._past) > 1 and now - self._past[0][0] > RECENT:
            self._past.popleft()
        since, before = self._past[0]
        each = {one.name: getattr(counts, one.name) - getattr(before, one.name) for one in fields(Counts)}
        return Counts(**each), now - since

    def _sourced(self, subjects: Sequence[SubjectView]) -> tuple[SubjectView, ...]:
        if all(one.rule for one in subjects):
            return tuple(subjects)
        sources = self._sources()
        return tuple(one if one.rule else replace(one, rule=sources.get(one.limit, "")) for one in subjects)

    def _pools(self) -> Iterable[PoolView]:
        """Whole pools, until there are MAX_BACKENDS."""
        monotonic = self._clock.monotonic()
        resting, waiting = self._backends.resting, self._backends.waiting
        left = MAX_BACKENDS
        for name, pool in self._backends.pools.items():
            views = pool.view(monotonic)
            left -= len(views)
            if left < 0:
                return
            backends = tuple(
                self._backend(pool, view, resting.get((name, view.name), 0), monotonic) for view in views
            )
            yield PoolView(name, pool.spec.balance.value, backends, waiting[name])

    def _backend(self, pool: PoolState, view: model.BackendView, idle: int, monotonic: float) -> BackendView:
        spec = next((one for one in pool.spec.backends if one.name == view.name), None)
        return BackendView(
            name=view.name,
            address="" if spec is None else f"{spec.host}:{spec.port}",
            state=_STATES.get(view.state, view.state),
            weight=0 if spec is None else spec.weight,
            connections=view.conns,
            idle=idle,
            failures=view.failures,
            backup=spec is not None and spec.backup,
            by=view.by or None,
            reason=shown(view.reason) or None,
            since=self._clock.now() - (monotonic - view.since),
        )


# What `live` calls the states of routing.model.BackendView, where that is another word.
_STATES: Final = {"open": "ejected", "backup": "up"}


def shown(text: str) -> str:
    """A text of a client's: no longer than MAX_TEXT, and fit for JSON, whatever octets it came from."""
    text = text[:MAX_TEXT]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def resident() -> int:
    """Octets of memory that this process has now; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _weight(item: tuple[object, _Subject]) -> int:
    _, subject = item
    return subject.denied + subject.held


def _session(view: SessionView) -> SessionView:
    user = None if view.user is None else shown(view.user)
    return replace(view, name=shown(view.name), user=user)


def _denial(time: float, record: DenialRecord) -> DenialView:
    who = record.who
    return DenialView(
        time=time,
        session=who.session,
        client=who.client,
        user=None if who.user is None else shown(who.user),
        at=record.at,
        limit=record.limit,
        subject=shown(record.subject),
        balance=record.balance,
        retry=record.retry,
        rule=record.rule,
        shadow=record.shadow,
    )


def _policy(status: FolderStatus) -> PolicyView:
    return PolicyView(status.version, status.loaded, tuple(shown(str(one)) for one in status.problems[:MAX_PROBLEMS]))
