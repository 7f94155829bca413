"""A session's records as lines of the log: one a transaction, one a session, one a login, one a denial.

Owns the names of their fields; what there is nothing to say of is left out. Refuses to know how a line is written
(`journal`).
"""

from __future__ import annotations

from smtpgate.journal import Journal
from smtpgate.session.ports import LiveSession
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord, Who


class AccessLog:
    """Records that are written down."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def opened(self, session: LiveSession) -> None:
        """A session has nothing to say before its end."""

    def session(self, record: SessionRecord) -> None:
        fields = _who(record.who)
        fields |= {
            "name": record.who.name,
            "helo": record.who.helo,
            "tls": record.who.tls,
            "transactions": record.transactions,
        }
        if record.impostures:
            fields["impostures"] = record.impostures
        fields["seconds"] = round(record.seconds, 3)
        fields["end"] = record.end
        self._journal.info("session", **fields)

    def authentication(self, record: AuthRecord) -> None:
        fields = _who(record.who)
        fields |= {
            "login": record.login,
            "method": record.method,
            "result": record.reply.code,
            "seconds": round(record.seconds, 3),
        }
        self._journal.info("auth", **fields)

    def denial(self, record: DenialRecord) -> None:
        fields = _who(record.who)
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
        reply, timings = record.reply, record.timings
        fields = _who(record.who)
        fields |= {
            "name": record.who.name,
            "helo": record.who.helo,
            "tls": record.who.tls,
            "transaction": record.transaction,
            "sender": record.sender,
            "rcpts": record.accepted,
            "recipients": list(record.recipients),
            "rcpts_refused": record.rejected,
            "size": record.size,
            "seconds": round(record.seconds, 3),
            "auth_seconds": round(timings.auth, 3),
            "policy_seconds": round(timings.policy, 3),
            "connect_seconds": round(timings.connect, 3),
            "data_seconds": round(timings.data, 3),
            "pool": record.pool,
            "route": record.route,
            "backend": record.backend,
            "replays": record.replays,
            "reply": None if reply is None else f"{reply.code} {reply.text}",
            "queue_id": record.queue_id,
            "outcome": record.outcome,
        }
        if record.denial is not None:
            fields |= _limit(record.denial)
        if record.forwarded:
            fields["xforward"] = record.forwarded
        self._journal.info("transaction", **fields)


def _who(who: Who) -> dict[str, object]:
    """The fields that every line of a session has; an empty `via` is left out."""
    fields: dict[str, object] = {
        "session": who.session,
        "client": who.client,
        "listener": who.listener,
        "user": who.user,
    }
    if who.via:
        fields["via"] = who.via
    return fields


def _limit(denial: DenialRecord) -> dict[str, object]:
    """Which limit ended a transaction; its own line tells the rest."""
    return {
        "limit": denial.limit,
        "subject": denial.subject,
        "balance": round(denial.balance, 3),
        "rule": denial.rule,
    }
