"""What the auth service knows of a user, and the ports to wherever that is kept. Owns no storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class User:
    """name: canonical, what limits, routes, logs and backends see. passwords: stored forms (`schemes`), any of
    which may prove the user; none closes every method that asks for a password. plan, pool: what limits can
    match, and the pool that wins over the routes. A user who is not enabled looks like one who does not exist.
    """

    name: str
    passwords: tuple[str, ...] = field(default=(), repr=False)
    plan: str | None = None
    pool: str | None = None
    enabled: bool = True


class StoreDownError(Exception):
    """The store gave no answer: whether the user exists is not known. `str()` is for the log."""


class NotWritableError(Exception):
    """The store cannot keep this change. `str()` says why and what would do, for an operator."""


class UserStore(Protocol):
    def find(self, login: str) -> User | None:
        """The user that a login names, None if there is none. Raises StoreDownError."""


class UpgradableStore(UserStore, Protocol):
    """A store that takes a stronger form of a password after a login, while commands may change the same user."""

    def upgrade(self, before: User, after: User) -> bool:
        """Put `after` in the place of `before`, in one step; False if `before` is no longer what the store
        holds, or if the store takes no changes. Raises StoreDownError.
        """


class WritableStore(UserStore, Protocol):
    """A store that commands change."""

    def put(self, user: User) -> None:
        """Add a user, or replace the one of that name. Raises StoreDownError, NotWritableError."""

    def remove(self, name: str) -> bool:
        """Whether there was such a user. Raises StoreDownError, NotWritableError."""

    def names(self) -> Iterator[str]:
        """The names of all users. Raises StoreDownError, NotWritableError."""
