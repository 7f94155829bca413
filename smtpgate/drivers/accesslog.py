"""A session's records as lines of the log: one a transaction, one a session, one a login, one a denial.

Owns the names of their fields; what there is nothing to say of is left out. Refuses to know how a line is written
(`journal`).
"""

from __future__ import annotations

from smtpgate.journal import Journal
from smtpgate.session.ports import LiveSession
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord


class AccessLog:
    """Records that are written down."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def opened(self, session: LiveSession) -> None:
        """A session has nothing to say before its end."""

    def session(self, record: SessionRecord) -> None:
        self._journal.info(
            "session",
            **record.who.fields(),
            name=record.who.name,
            helo=record.who.helo,
            tls=record.who.tls,
            transactions=record.transactions,
            **({"impostures": record.impostures} if record.impostures else {}),
            seconds=round(record.seconds, 3),
            end=record.end,
        )

    def authentication(self, record: AuthRecord) -> None:
        self._journal.info(
            "auth",
            **record.who.fields(),
            login=record.login,
            method=record.method,
            result=record.reply.code,
            seconds=round(record.seconds, 3),
        )

    def denial(self, record: DenialRecord) -> None:
        write = self._journal.info if record.shadow else self._journal.warning
        write(
            "would_deny" if record.shadow else "denied",
            **record.who.fields(),
            transaction=record.transaction,
            at=record.at,
            limit=record.limit,
            subject=record.subject,
            retry=round(record.retry, 3),
            balance=round(record.balance, 3),
            rule=record.rule,
            **({} if record.shadow else {"held": round(record.held, 3)}),
        )

    def transaction(self, record: TransactionRecord) -> None:
        reply = record.reply
        self._journal.info(
            "transaction",
            **record.who.fields(),
            name=record.who.name,
            helo=record.who.helo,
            tls=record.who.tls,
            transaction=record.transaction,
            sender=record.sender,
            rcpts=record.accepted,
            recipients=list(record.recipients),
            rcpts_refused=record.rejected,
            size=record.size,
            seconds=round(record.seconds, 3),
            auth_seconds=round(record.timings.auth, 3),
            policy_seconds=round(record.timings.policy, 3),
            connect_seconds=round(record.timings.connect, 3),
            data_seconds=round(record.timings.data, 3),
            pool=record.pool,
            route=record.route,
            backend=record.backend,
            replays=record.replays,
            reply=f"{reply.code} {reply.text}" if reply else None,
            queue_id=record.queue_id,
            outcome=record.outcome,
            **({} if record.denial is None else _limit(record.denial)),
            **({"xforward": record.forwarded} if record.forwarded else {}),
        )


def _limit(denial: DenialRecord) -> dict[str, object]:
    """Which limit ended a transaction; its own line tells the rest."""
    return {
        "limit": denial.limit,
        "subject": denial.subject,
        "balance": round(denial.balance, 3),
        "rule": denial.rule,
    }
