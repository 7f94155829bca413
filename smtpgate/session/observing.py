"""Who is told of sessions, as Protocols: the log, the metrics, what an operator is shown.

Owns what a session tells of itself, and when; `records` and `smtpgate.live` are the values. Refuses to know what
becomes of it: a session asks nothing of these ports, and no answer of theirs changes what it does.
"""

from __future__ import annotations

from typing import Protocol

from smtpgate.live import SessionView
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord


class LiveSession(Protocol):
    @property
    def id(self) -> str:
        """As its records have it (`Who.session`)."""

    def view(self) -> SessionView:
        """What it is doing now."""


class Records(Protocol):
    """Told of what has ended. Nothing here raises or waits: mail flows whatever becomes of its records."""

    def opened(self, session: LiveSession) -> None:
        """A session begins; session() tells its end."""

    def session(self, record: SessionRecord) -> None: ...

    def authentication(self, record: AuthRecord) -> None: ...

    def transaction(self, record: TransactionRecord) -> None: ...

    def denial(self, record: DenialRecord) -> None: ...
