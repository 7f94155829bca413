"""The log as a port, and where it may go. drivers.journal writes it; tests keep the events in a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Journal(Protocol):
    """Values are escaped where they are written; secrets are never passed here."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None: ...


class Rows(Protocol):
    """Lines of one event, level info, that always have the same fields."""

    def add(self, values: tuple[object, ...], more: Mapping[str, object] | None = None) -> None:
        """A line. values: one for each name, in their order; a float, which must be finite, is told to three digits.
        more: fields that only this line has, behind the others.
        """


class RowJournal(Journal, Protocol):
    """A journal for what is told of every message: the names of such lines are spelt once."""

    def rows(self, event: str, names: Sequence[str]) -> Rows: ...


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file; made where it is missing, opened again where it was renamed or removed."""

    path: str


@dataclass(frozen=True, slots=True)
class SyslogTarget:
    """transport "unix": address is a socket's path. "udp", "tcp": address is a host, and port counts. facility: in
    syslog's word, e.g. "mail".
    """

    transport: Literal["unix", "udp", "tcp"]
    address: str
    port: int = 0
    facility: str = "mail"


Target = FileTarget | SyslogTarget | None
"""Where the log goes; None is standard output."""
