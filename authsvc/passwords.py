"""Stored passwords and their verification: argon2id (RFC 9106), through argon2-cffi.

Owns the stored form `{ARGON2ID}$argon2id$…`, the cost of new hashes, and the same work for a user who does
not exist. Refuses to know where the work runs (`bulkhead`) and where hashes are kept (`users`).
"""

from __future__ import annotations

import secrets
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

PREFIX: Final = "{ARGON2ID}"
EXPECTED: Final = f"{PREFIX} and an argon2id hash, as `tools/gatectl user hash` prints"

# RFC 9106 section 4, second recommended option: 3 passes, 64 MiB, 4 lanes. The first takes 2 GiB a login.
PROFILE: Final = argon2.profiles.RFC_9106_LOW_MEMORY


def is_stored_form(text: str) -> bool:
    if not text.startswith(PREFIX):
        return False
    try:
        parameters = argon2.extract_parameters(text.removeprefix(PREFIX))
    except InvalidHashError:
        return False
    return parameters.type is argon2.Type.ID


class Passwords:
    """Makes and checks stored passwords.

    parameters: the cost of new hashes, and of the stand-in that an unknown user's password is compared with.
    A store whose hashes cost something else tells known users from unknown ones by time.
    """

    def __init__(self, parameters: argon2.Parameters = PROFILE) -> None:
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._stand_in = self.make(secrets.token_bytes(16))

    def make(self, password: bytes) -> str:
        """The stored form of a password, with a random salt. Takes as long as `verify`."""
        return PREFIX + self._hasher.hash(password)

    def verify(self, stored: str | None, password: bytes) -> bool:
        """Whether `password` is the one behind `stored`; 50 to 200 ms of CPU and 64 MiB with PROFILE.

        stored None: False after the same work. A form that `is_stored_form` refuses: False.
        """
        candidate = self._stand_in if stored is None else stored
        try:
            self._hasher.verify(candidate.removeprefix(PREFIX), password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None
