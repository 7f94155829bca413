"""What the auth service knows of a user, and the port to wherever that is kept. Owns no storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class User:
    """name: canonical, what limits, routes, logs and backends see. password, cram_md5: stored forms
    (`passwords`, `crammd5`), None where that method is closed to the user. plan, pool: what limits can match,
    and the pool that wins over the routes. A user who is not enabled looks like one who does not exist.
    """

    name: str
    password: str | None = field(default=None, repr=False)
    cram_md5: str | None = field(default=None, repr=False)
    plan: str | None = None
    pool: str | None = None
    enabled: bool = True


class StoreDownError(Exception):
    """The store gave no answer: whether the user exists is not known. `str()` is for the log."""


class UserStore(Protocol):
    def find(self, login: str) -> User | None:
        """The user that a login names, None if there is none. Raises StoreDownError."""
