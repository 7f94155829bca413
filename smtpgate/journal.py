"""The log as a port, and where it may go. drivers.journal writes it; tests keep the events in a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


class Journal(Protocol):
    """Values are escaped where they are written; secrets are never passed here."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None: ...


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
