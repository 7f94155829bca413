"""Look-ups that hold for a while: of users who were found, and, for a shorter time, of names that nobody has.

Owns both memories, their bounds, and that concurrent questions for one name are one look-up. The two are apart, so
that names which a stranger makes up push out no user. That a store gave no answer is never remembered. A clock that
is handed in tells the time; greenlets that ask for a name under way wait for whoever asked first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gevent.event import AsyncResult

from authsvc.users.model import StoreDownError, UpgradableStore, User
from authsvc.users.sources import Caching
from smtpgate.clock import Clock

# Each; some 10 MB of users at most, less of names. Dovecot's auth_cache_size is 10M by default in 2.4.
MAX_FOUND: Final = 10_000
MAX_UNKNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Kept:
    """user: None for a name that nobody has. until: monotonic."""

    user: User | None
    until: float


class _Memory:
    """The latest entries, at most `bound`; each holds `lifetime` seconds."""

    def __init__(self, clock: Clock, lifetime: float, bound: int) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._bound = bound
        self._entries: OrderedDict[str, _Kept] = OrderedDict()

    def get(self, login: str) -> _Kept | None:
        kept = self._entries.get(login)
        if kept is None or self._clock.monotonic() >= kept.until:
            self._entries.pop(login, None)
            return None
        self._entries.move_to_end(login)
        return kept

    def put(self, login: str, user: User | None) -> None:
        if self._lifetime <= 0:
            return
        self._entries[login] = _Kept(user, self._clock.monotonic() + self._lifetime)
        self._entries.move_to_end(login)
        if len(self._entries) > self._bound:
            self._entries.popitem(last=False)

    def drop(self, login: str) -> None:
        self._entries.pop(login, None)


class CachedUsers:
    """An UpgradableStore over a slower one. times: for how long an answer holds; 0 s keeps nothing."""

    def __init__(
        self,
        store: UpgradableStore,
        clock: Clock,
        times: Caching,
        *,
        max_found: int = MAX_FOUND,
        max_unknown: int = MAX_UNKNOWN,
    ) -> None:
        self._store = store
        self._found = _Memory(clock, times.found, max_found)
        self._unknown = _Memory(clock, times.unknown, max_unknown)
        # Look-ups under way. A look-up's own bounds end the wait for it.
        self._asked: dict[str, AsyncResult[User | None]] = {}

    def find(self, login: str) -> User | None:
        """See UserStore.find."""
        kept = self._found.get(login) or self._unknown.get(login)
        if kept is not None:
            return kept.user
        asked = self._asked.get(login)
        return self._ask(login) if asked is None else asked.get()

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade. What was known of the user is forgotten: it may be what was wrong."""
        try:
            return self._store.upgrade(before, after)
        finally:
            self._found.drop(before.name)

    def _ask(self, login: str) -> User | None:
        answer: AsyncResult[User | None] = AsyncResult()
        self._asked[login] = answer
        try:
            user = self._store.find(login)
        except StoreDownError as error:
            answer.set_exception(error)
            raise
        except BaseException:  # the asker was ended, or met a bug: the others are not to wait for ever
            answer.set_exception(StoreDownError("the look-up was given up"))
            raise
        finally:
            del self._asked[login]
        (self._unknown if user is None else self._found).put(login, user)
        answer.set(user)
        return user
