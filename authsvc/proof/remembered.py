"""Passwords that were right a short while ago, so that a busy user does not cost argon2id at each login.

Owns what is kept of one: a keyed BLAKE2b (RFC 7693 section 2.9) over user, stored forms and password, and when it
ends. The key is random, one for each process, and never written anywhere, so that what is kept cannot be guessed at
from outside; the stored forms in it make a changed password, or a changed list of them, forget by itself. A success
is kept for `lifetime` from the verification, not from its last use, so that memory never stands in for the store for
longer. Nothing is kept of a wrong password.

Refuses to know whether the user may log in: it is asked about a record that was looked up for this very login.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from authsvc.users.model import User
from smtpgate.clock import Clock

# Some 200 octets each in CPython, so 2 MB.
MAX_ENTRIES: Final = 10_000
KEY_OCTETS: Final = hashlib.blake2b.MAX_KEY_SIZE
# 2**128 to find a second password for an entry, and no way to try one without the key.
_TAG_OCTETS: Final = 32


class Remembered:
    """lifetime: seconds, 0 remembers nothing. key: KEY_OCTETS random octets. entries: the oldest goes first."""

    def __init__(self, clock: Clock, lifetime: float, key: bytes, *, entries: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._key = key
        self._entries = entries
        # Tag -> until when, monotonic. All live equally long: the order of insertion is that of their ends.
        self._tags: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, user: User, password: bytes) -> None:
        """`password` was just verified for this record."""
        if self._lifetime <= 0:
            return
        tag = self._tag(user, password)
        self._tags[tag] = self._clock.monotonic() + self._lifetime
        self._tags.move_to_end(tag)
        while len(self._tags) > self._entries:
            self._tags.popitem(last=False)

    def holds(self, user: User, password: bytes) -> bool:
        """Whether `password` was verified for this very record within `lifetime`. Takes microseconds."""
        now = self._clock.monotonic()
        while self._tags and next(iter(self._tags.values())) <= now:
            self._tags.popitem(last=False)
        return bool(self._tags) and self._tag(user, password) in self._tags

    def _tag(self, user: User, password: bytes) -> bytes:
        mac = hashlib.blake2b(key=self._key, digest_size=_TAG_OCTETS)
        parts = (user.name.encode("utf-8"), *(f.encode("utf-8", "surrogateescape") for f in user.passwords), password)
        # With lengths, so that no two lists of parts are the same octets.
        mac.update(len(parts).to_bytes(4, "big"))
        for part in parts:
            mac.update(len(part).to_bytes(4, "big"))
            mac.update(part)
        return mac.digest()
