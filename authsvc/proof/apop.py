"""APOP (RFC 1939 section 7): the MD5 of the greeting's timestamp with the password behind it.

Owns the check. It needs the password in clear, which is why it works for users of {PLAIN} alone, and only where the
operator allows that form.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

# What an unknown user's digest is compared with, for the same work.
_NOBODY: Final = bytes(8)


def verify(password: bytes | None, timestamp: bytes, digest: bytes) -> bool:
    """Whether `digest` answers `timestamp` for `password`; None, for nobody, gives False after the same work.

    timestamp: with its angle brackets, as in the greeting. digest: 32 hexadecimal digits in lower case.
    """
    secret = _NOBODY if password is None else password
    expected = hashlib.md5(timestamp + secret, usedforsecurity=False).hexdigest().encode("ascii")
    return hmac.compare_digest(expected, digest) and password is not None
