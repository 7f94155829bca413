"""Who is logged in at the console, in memory that the workers of one service share.

Owns the table: a login has a slot of an anonymous file that gunicorn's first process makes before it forks, and every
worker sees at once that it has ended. A cookie holds nothing but a slot's random name, so a login that was ended, by
hand or by time, cannot be brought back by an old cookie. Refuses to know passwords and cookies.

Times are monotonic seconds, which are the machine's and not a process's (clock_gettime(2)).
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from smtpgate.clock import Clock
from smtpgate.units import MAX_NAME

# Logins at a time on one node; one more ends the one that has rested longest.
SLOTS: Final = 64
TOKEN_OCTETS: Final = 16  # OWASP asks for 64 bits of chance at least
# The login's name, the stamp of its password, when it began and was last used, whose it is.
_SLOT = struct.Struct(f"={TOKEN_OCTETS}s16sdd{MAX_NAME}s")
_SEEN = struct.Struct("=d")
_SEEN_AT: Final = TOKEN_OCTETS + 16 + 8
_SIZE: Final = SLOTS * _SLOT.size
_NOBODY: Final = bytes(TOKEN_OCTETS)


class SittingsFile:
    """The file, and the key that cookies are signed with, both of this start. Made before the fork. Raises OSError
    where there is no memory for it.
    """

    def __init__(self) -> None:
        self.key = secrets.token_bytes(32)
        try:
            self.fd = os.memfd_create("smtpgate-console", os.MFD_CLOEXEC)
        except (AttributeError, OSError):  # not Linux, or forbidden
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, _SIZE)

    def close(self) -> None:
        os.close(self.fd)


class Sittings:
    """One worker's view of the table. lifetime, idle: seconds. operators: name -> stored password; a login ends with
    the password that it was made with.
    """

    def __init__(
        self, file: SittingsFile, operators: Mapping[str, str], clock: Clock, *, lifetime: float, idle: float
    ) -> None:
        self._fd = file.fd
        self._memory = mmap.mmap(file.fd, _SIZE)
        self._stamps = {name: _stamp(stored) for name, stored in operators.items()}
        self._clock = clock
        self._lifetime = lifetime
        self._idle = idle

    def open(self, operator: str) -> str:
        """Begin one. Gives its name, for the cookie."""
        now = self._clock.monotonic()
        token = secrets.token_bytes(TOKEN_OCTETS)
        with self._locked():
            free = min(range(SLOTS), key=lambda at: self._seen(at, now))
            _SLOT.pack_into(
                self._memory, free * _SLOT.size, token, self._stamps[operator], now, now, operator.encode("ascii")
            )
        return token.hex()

    def find(self, name: str, *, used: bool = True) -> str | None:
        """Whose it is, None where it has ended or never was. used: it counts as used now, and not as idle."""
        at = self._at(name)
        if at is None:
            return None
        now = self._clock.monotonic()
        if self._seen(at, now) == 0.0:
            return None
        operator = _SLOT.unpack_from(self._memory, at * _SLOT.size)[-1]
        if used:
            # Nothing but this one field: another worker may be ending the login at this moment.
            _SEEN.pack_into(self._memory, at * _SLOT.size + _SEEN_AT, now)
        return str(operator.rstrip(b"\0"), "ascii")

    def close(self, name: str) -> None:
        """End one."""
        with self._locked():
            at = self._at(name)
            if at is not None:
                self._memory[at * _SLOT.size : (at + 1) * _SLOT.size] = bytes(_SLOT.size)

    def _at(self, name: str) -> int | None:
        try:
            token = bytes.fromhex(name)
        except ValueError:
            return None
        if len(token) != TOKEN_OCTETS or token == _NOBODY:
            return None
        for at in range(SLOTS):
            start = at * _SLOT.size
            if secrets.compare_digest(self._memory[start : start + TOKEN_OCTETS], token):
                return at
        return None

    def _seen(self, at: int, now: float) -> float:
        """When a slot was last used; 0.0 where it is free, or its login over."""
        token, stamp, began, seen, operator = _SLOT.unpack_from(self._memory, at * _SLOT.size)
        known = self._stamps.get(str(operator.rstrip(b"\0"), "ascii", "replace"))
        over = token == _NOBODY or stamp != known or now - began >= self._lifetime or now - seen >= self._idle
        return 0.0 if over else float(seen)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Held for microseconds, and no other greenlet runs meanwhile.
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def _stamp(stored: str) -> bytes:
    return hashlib.blake2b(stored.encode("utf-8"), digest_size=16).digest()
