"""The log as a port, and where it may go. drivers.journal writes it; tests keep the events in a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar


class Journal(Protocol):
    """Values are escaped where they are written; secrets are never passed here."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None: ...


Record = TypeVar("Record")
Told = TypeVar("Told", contravariant=True)
Row = tuple[tuple[object, ...], Mapping[str, object] | None]
"""Values of a line that always has the same fields, one for each name, in their order: a float, which must be finite,
is told to three digits. And fields that only this line has, behind the others.
"""


class Rows(Protocol[Told]):
    """Lines of one event, level info, that always have the same fields."""

    def add(self, record: Told) -> None:
        """A line about something that does not change any more: the line may be spelt later."""


class RowJournal(Journal, Protocol):
    """A journal for what is told of every message: the names of such lines are spelt once."""

    def rows(self, event: str, names: Sequence[str], row: Callable[[Record], Row]) -> Rows[Record]: ...


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
