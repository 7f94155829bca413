"""The proxy's metrics: which there are, and what the sessions' records add to them.

A transaction costs some 2 us here, a session 0.5, where they are counted some at a time: one by one, with the
processor's caches full of other things, it is twice as much. What changes without a record (pools, limits, policies,
the process) is asked once a second: `metricsgather`. Refuses to know how metrics are kept and told.

No label's value comes from a client: listeners, limits, pools and backends are the operator's names, the others are
words of this module.
"""

from __future__ import annotations

from typing import Final

from smtpgate.drivers.metricsvalues import Families
from smtpgate.session.observing import LiveSession
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord
from smtpgate.smtp import replies

# Seconds. Prometheus' own defaults, less the finest; a session lasts longer.
SHORT: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG: Final[tuple[float, ...]] = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
# Octets: 1 KiB to 64 MiB.
SIZES: Final = tuple(float(1 << power) for power in range(10, 27, 2))

OUTCOMES: Final = frozenset({"delivered", "refused", "unknown"})
ABANDONED: Final = "abandoned"
# The methods of auth_http (reference/auth_http.md section 3) and of our own listeners.
METHODS: Final = frozenset(
    {"plain", "login", "cram-md5", "apop", "external", "xoauth2", "oauthbearer", "none"},
)
OTHER_METHOD: Final = "other"

# What a session's end begins with, and what it is called here; the words are session.flow's.
_ENDS: Final = (
    ("client quit", "quit"),
    ("client closed the connection", "lost"),
    ("connection lost", "lost"),
    ("client timed out", "timeout"),
    ("closed with", "closed"),
    ("refused by", "limited"),
    ("client ", "rejected"),
    ("cut off", "cut"),
)
OTHER_END: Final = "other"

# Records that wait to be counted.
MAX_UNCOUNTED: Final = 16


class Metrics:
    """A `session.observing.Records` that counts. What was told is counted when gather() returns, at the latest."""

    def __init__(self, families: Families) -> None:
        self._open = 0
        self._uncounted: list[SessionRecord | TransactionRecord] = []
        self._open_now = families.gauge("smtpgate_sessions_open", "Sessions that are open now.", "sum")
        self._opened = families.counter("smtpgate_sessions_opened_total", "Sessions that have begun.")
        self._sessions = families.counter(
            "smtpgate_sessions_total", "Sessions that have ended, by how.", "listener", "end"
        )
        self._session_seconds = families.histogram(
            "smtpgate_session_duration_seconds", "From a session's greeting to its end.", LONG, "listener"
        )
        self._transactions = families.counter(
            "smtpgate_transactions_total",
            "Mail transactions that have ended, by what became of them and how far they came.",
            "listener",
            "outcome",
            "phase",
        )
        self._replays = families.counter(
            "smtpgate_transaction_replays_total", "Transactions that were said again to another backend."
        )
        self._recipients = families.counter(
            "smtpgate_recipients_total", "Recipients of transactions that have ended.", "listener", "result"
        )
        self._transaction_seconds = families.histogram(
            "smtpgate_transaction_duration_seconds", "From MAIL to the last reply.", LONG, "listener"
        )
        phase_seconds = families.histogram(
            "smtpgate_transaction_phase_duration_seconds",
            "Of each transaction with a recipient, the time that went by for auth_http, the limits, the search for a "
            "backend, the text.",
            SHORT,
            "phase",
        )
        self._auth, self._policy, self._connect, self._data = [
            phase_seconds.cell((phase,)) for phase in ("auth", "policy", "connect", "data")
        ]
        self._size = families.histogram(
            "smtpgate_message_size_bytes", "Of messages that were delivered.", SIZES, "listener"
        )
        self._logins = families.counter("smtpgate_auth_total", "Logins.", "listener", "method", "result")
        self._auth_seconds = families.histogram(
            "smtpgate_auth_duration_seconds", "Of a login: auth_http and its waits.", SHORT, "method"
        )
        self._held = families.counter("smtpgate_limit_held_total", "Sessions that had to stand in line.", "limit")
        self._denials = families.counter("smtpgate_denials_total", "Refusals by limits.", "listener", "event", "mode")

    def held(self, limit: str) -> None:
        """A session stands in line for a limit (`drivers.holds`)."""
        self._held.add((limit,))

    def gather(self) -> None:
        """What is told when somebody looks, and all that waits."""
        self._open_now.set(self._open)
        self._count()

    # --- the port ---

    def opened(self, session: LiveSession) -> None:
        self._open += 1
        self._opened.add()

    def session(self, record: SessionRecord) -> None:
        self._open -= 1
        self._later(record)

    def authentication(self, record: AuthRecord) -> None:
        method = record.method if record.method in METHODS else OTHER_METHOD
        self._logins.add((record.who.listener, method, _result(record.reply.code)))
        self._auth_seconds.observe((method,), record.seconds)

    def transaction(self, record: TransactionRecord) -> None:
        self._later(record)

    def denial(self, record: DenialRecord) -> None:
        mode = "shadow" if record.shadow else "enforced"
        self._denials.add((record.who.listener, record.at, mode))

    # --- counting ---

    def _later(self, record: SessionRecord | TransactionRecord) -> None:
        self._uncounted.append(record)
        if len(self._uncounted) >= MAX_UNCOUNTED:
            self._count()

    def _count(self) -> None:
        uncounted, self._uncounted = self._uncounted, []
        for record in uncounted:
            if isinstance(record, TransactionRecord):
                self._count_transaction(record)
            else:
                self._count_session(record)

    def _count_session(self, record: SessionRecord) -> None:
        listener = record.who.listener
        self._sessions.add((listener, end_of(record.end)))
        self._session_seconds.observe((listener,), record.seconds)

    def _count_transaction(self, record: TransactionRecord) -> None:
        listener = (record.who.listener,)
        outcome = record.outcome if record.outcome in OUTCOMES else ABANDONED
        self._transactions.add((*listener, outcome, phase_of(record)))
        self._transaction_seconds.observe(listener, record.seconds)
        if record.accepted:
            self._recipients.add((*listener, "accepted"), record.accepted)
            timings = record.timings
            self._auth.observe(timings.auth)
            self._policy.observe(timings.policy)
            self._connect.observe(timings.connect)
            self._data.observe(timings.data)
        if record.rejected:
            self._recipients.add((*listener, "rejected"), record.rejected)
        if record.replays:
            self._replays.add((), record.replays)
        if outcome == "delivered":
            self._size.observe(listener, record.size)


def end_of(words: str) -> str:
    """How a session ended, in one of few words."""
    for beginning, end in _ENDS:
        if words.startswith(beginning):
            return end
    return OTHER_END


def phase_of(record: TransactionRecord) -> str:
    """How far a transaction came: "mail" (no recipient was accepted), "rcpt", "data" (its text was sent)."""
    if record.reply is not None or record.timings.data > 0.0:
        return "data"
    return "rcpt" if record.accepted else "mail"


def _result(code: int) -> str:
    """Of a login: what its last reply means (RFC 4954 section 6)."""
    if code == replies.AUTH_OK.code:
        return "granted"
    return "deferred" if 400 <= code < 500 else "refused"
