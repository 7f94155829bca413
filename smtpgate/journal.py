"""The log as a port: events with fields. drivers.journal writes them; tests keep them in a list."""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """Values are escaped where they are written; secrets are never passed here."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None: ...
