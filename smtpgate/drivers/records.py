"""A session's records for several readers: the log, the metrics, the operator's view.

Owns that each of them is told, in order. What a reader makes of a record is its own matter; none of them raises.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpgate.session.observing import LiveSession, Records
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord


class AllRecords:
    """A `Records` that hands on what it is told."""

    def __init__(self, readers: Sequence[Records]) -> None:
        self._readers = tuple(readers)

    def opened(self, session: LiveSession) -> None:
        for reader in self._readers:
            reader.opened(session)

    def session(self, record: SessionRecord) -> None:
        for reader in self._readers:
            reader.session(record)

    def authentication(self, record: AuthRecord) -> None:
        for reader in self._readers:
            reader.authentication(record)

    def transaction(self, record: TransactionRecord) -> None:
        for reader in self._readers:
            reader.transaction(record)

    def denial(self, record: DenialRecord) -> None:
        for reader in self._readers:
            reader.denial(record)
