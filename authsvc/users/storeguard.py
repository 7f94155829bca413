"""One user store of another machine: what is done when it gives no answer.

Owns the breaker, the store's name in messages, and the log line at each end of an outage. While the breaker is open
nobody waits for the store: a login that needs it is deferred at once, and one probe at a time finds out whether it
is back. A record that makes no user is no outage: whoever owns that one account would else close all others.
"""

from __future__ import annotations

from typing import Final, Protocol

from authsvc.users.model import StoreDownError, UpgradableStore, User
from authsvc.users.userrecord import RecordError
from smtpgate.clock import Clock
from smtpgate.drivers.redisstore import Breaker
from smtpgate.journal import Journal

# Faults, and the seconds within which they open the breaker. A look-up has several seconds before it is a fault, so
# that the 5 within 2 s of the limits' store would never be reached.
ERRORS: Final = 3
WITHIN: Final = 10.0
# Seconds until the next probe: a store that is back is in use again within them.
OPEN_FOR: Final = 2.0


class RemoteStore(UpgradableStore, Protocol):
    def ping(self) -> None:
        """Ask for something that is always there. Raises StoreDownError."""


class GuardedUsers:
    """An UpgradableStore over one that can be away. name: for messages and the log, without secrets."""

    def __init__(self, store: RemoteStore, name: str, clock: Clock, journal: Journal) -> None:
        self._store = store
        self._name = name
        self._journal = journal
        self._breaker = Breaker(clock, errors=ERRORS, within=WITHIN, open_for=OPEN_FOR)

    def find(self, login: str) -> User | None:
        """See UserStore.find."""
        self._admit()
        try:
            user = self._store.find(login)
        except StoreDownError as error:
            raise self._failed(error) from None
        self._succeeded()
        return user

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade."""
        self._admit()
        try:
            done = self._store.upgrade(before, after)
        except StoreDownError as error:
            raise self._failed(error) from None
        self._succeeded()
        return done

    def reachable(self) -> bool:
        """Whether the store answers now, whatever the breaker says. Waits for it as long as a look-up may."""
        try:
            self._store.ping()
        except StoreDownError:
            return False
        return True

    def _admit(self) -> None:
        if not self._breaker.admit():
            raise StoreDownError(f"{self._name}: not asked, it gave no answer of late")

    def _failed(self, error: StoreDownError) -> StoreDownError:
        if isinstance(error, RecordError):
            self._succeeded()
            return RecordError(f"{self._name}: {error}")
        if self._breaker.failed():
            self._journal.error("user_store_down", store=self._name, reason=str(error))
        return StoreDownError(f"{self._name}: {error}")

    def _succeeded(self) -> None:
        if self._breaker.succeeded():
            self._journal.info("user_store_up", store=self._name)
