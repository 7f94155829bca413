"""A session's records as lines of the log: one a transaction, one a session, one a login, one a denial.

Owns the names of their fields; what there is nothing to say of is left out. Refuses to know how a line is written
(`journal`).
"""

from __future__ import annotations

from typing import Final

from smtpgate.journal import Row, RowJournal
from smtpgate.session.observing import LiveSession
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord, Who

CLIENT: Final = ("session", "client", "listener", "user", "name", "helo", "tls")
SESSION: Final = (*CLIENT, "transactions", "seconds", "end")
TRANSACTION: Final = (
    *CLIENT,
    "transaction",
    "sender",
    "rcpts",
    "recipients",
    "rcpts_refused",
    "size",
    "seconds",
    "auth_seconds",
    "policy_seconds",
    "connect_seconds",
    "data_seconds",
    "pool",
    "route",
    "backend",
    "replays",
    "reply",
    "queue_id",
    "outcome",
)


class AccessLog:
    """Records that are written down."""

    def __init__(self, journal: RowJournal) -> None:
        self._journal = journal
        self._sessions = journal.rows("session", SESSION, _session)
        self._transactions = journal.rows("transaction", TRANSACTION, _transaction)

    def opened(self, session: LiveSession) -> None:
        """A session has nothing to say before its end."""

    def session(self, record: SessionRecord) -> None:
        self._sessions.add(record)

    def authentication(self, record: AuthRecord) -> None:
        fields = record.who.fields()
        fields |= {
            "login": record.login,
            "method": record.method,
            "result": record.reply.code,
            "seconds": round(record.seconds, 3),
        }
        self._journal.info("auth", **fields)

    def denial(self, record: DenialRecord) -> None:
        fields = record.who.fields()
        fields |= {
            "transaction": record.transaction,
            "at": record.at,
            "limit": record.limit,
            "subject": record.subject,
            "retry": round(record.retry, 3),
            "balance": round(record.balance, 3),
            "rule": record.rule,
        }
        if record.shadow:
            self._journal.info("would_deny", **fields)
        else:
            self._journal.warning("denied", **fields, held=round(record.held, 3))

    def transaction(self, record: TransactionRecord) -> None:
        self._transactions.add(record)


def _session(record: SessionRecord) -> Row:
    who = record.who
    more: dict[str, object] | None = None
    if who.via or record.impostures:
        more = _via(who)
        if record.impostures:
            more["impostures"] = record.impostures
    values = (
        who.session,
        who.client,
        who.listener,
        who.user,
        who.name,
        who.helo,
        who.tls,
        record.transactions,
        record.seconds,
        record.end,
    )
    return values, more


def _transaction(record: TransactionRecord) -> Row:
    who, reply, timings = record.who, record.reply, record.timings
    more: dict[str, object] | None = None
    if who.via or record.denial is not None or record.forwarded:
        more = _via(who)
        if record.denial is not None:
            more |= _limit(record.denial)
        if record.forwarded:
            more["xforward"] = record.forwarded
    values = (
        who.session,
        who.client,
        who.listener,
        who.user,
        who.name,
        who.helo,
        who.tls,
        record.transaction,
        record.sender,
        record.accepted,
        record.recipients,
        record.rejected,
        record.size,
        record.seconds,
        timings.auth,
        timings.policy,
        timings.connect,
        timings.data,
        record.pool,
        record.route,
        record.backend,
        record.replays,
        None if reply is None else f"{reply.code} {reply.text}",
        record.queue_id,
        record.outcome,
    )
    return values, more


def _via(who: Who) -> dict[str, object]:
    """Who has spoken for the client, where somebody has."""
    return {"via": who.via} if who.via else {}


def _limit(denial: DenialRecord) -> dict[str, object]:
    """Which limit ended a transaction; its own line tells the rest."""
    return {
        "limit": denial.limit,
        "subject": denial.subject,
        "balance": round(denial.balance, 3),
        "rule": denial.rule,
    }
