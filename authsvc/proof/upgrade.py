"""Old stored forms of passwords made new after a login, behind its back.

Owns the bound on how many such jobs wait, and their log lines. The one moment at which a service knows a password is
the login; what is stored in an old scheme becomes argon2id then (`passwords.Passwords.upgraded`). The store compares
with the record that was logged in to, so that an edit that happened meanwhile is never undone. Jobs have a bulkhead
of their own, one at a time, so that they never take a login's place. One that finds no room is let go: the next
login brings another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import gevent

from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.passwords import Passwords
from authsvc.users.model import NotWritableError, StoreDownError, UpgradableStore, User
from smtpgate.journal import Journal

# Jobs at once, done or waiting; each holds a password in memory.
MAX_PENDING: Final = 4
# Jobs share one turn of the bulkhead.
_NETWORK: Final = "upgrade"


class Upgrader:
    """Replaces outdated forms in a store. One for each process. bulkhead: with room for MAX_PENDING jobs."""

    def __init__(self, store: UpgradableStore, passwords: Passwords, bulkhead: Bulkhead, journal: Journal) -> None:
        self._store = store
        self._passwords = passwords
        self._bulkhead = bulkhead
        self._journal = journal
        self._pending: set[str] = set()

    def consider(self, user: User, password: bytes) -> None:
        """`password` was just verified for this record. Returns at once, whatever there is to do."""
        if user.name in self._pending or len(self._pending) >= MAX_PENDING:
            return
        if self._passwords.outdated(user.passwords):
            self._pending.add(user.name)
            gevent.spawn(self._upgrade, user, password)

    def _upgrade(self, user: User, password: bytes) -> None:
        try:
            with self._bulkhead.attempt(_NETWORK):
                forms = self._bulkhead.run(self._passwords.upgraded, user.passwords, password)
            if forms is None:
                return
            if self._store.upgrade(user, replace(user, passwords=forms)):
                self._journal.info("password_upgraded", user=user.name)
            else:
                self._journal.info("password_not_upgraded", user=user.name, reason="the store did not take it")
        except (StoreDownError, NotWritableError) as error:
            self._journal.warning("password_not_upgraded", user=user.name, reason=str(error))
        finally:
            self._pending.discard(user.name)
