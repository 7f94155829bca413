"""CRAM-MD5 (RFC 2195) checked against Dovecot's {CRAM-MD5} hash, so that no password is stored in clear.

Owns the stored form, interchangeable with `doveadm pw -s CRAM-MD5`: HMAC-MD5 (RFC 2104) is begun with the
password, and the states of its outer and its inner MD5 after their first block are kept, as 32 and 32
hexadecimal digits. Whoever steals them can answer challenges, but does not learn the password.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from authsvc.proof import md5state

PREFIX: Final = "{CRAM-MD5}"
EXPECTED: Final = f"{PREFIX} and 64 lower-case hexadecimal digits, as `tools/gatectl user hash` prints"

_STORED = re.compile(r"\{CRAM-MD5\}([0-9a-f]{64})")
# What an unknown user's digest is compared with: the work is the same, and no password leads to it.
_NOBODY: Final = bytes(2 * md5state.DIGEST)


def make(password: bytes) -> str:
    """The stored form of a password."""
    # RFC 2104 section 2.
    key = hashlib.md5(password, usedforsecurity=False).digest() if len(password) > md5state.BLOCK else password
    block = key.ljust(md5state.BLOCK, b"\0")
    outer = md5state.compress(md5state.INITIAL, bytes(octet ^ 0x5C for octet in block))
    inner = md5state.compress(md5state.INITIAL, bytes(octet ^ 0x36 for octet in block))
    return PREFIX + (md5state.dump(outer) + md5state.dump(inner)).hex()


def is_stored_form(text: str) -> bool:
    return _STORED.fullmatch(text) is not None


def verify(stored: str | None, challenge: bytes, digest: bytes) -> bool:
    """Whether `digest` answers `challenge` for the password behind `stored`.

    challenge: the text that the client was shown, with its angle brackets, before base64. digest: 32
    lower-case hexadecimal digits, as the client sent them. A `stored` that is None, or that `is_stored_form`
    refuses, gives False after the same work.
    """
    match = _STORED.fullmatch(stored) if stored is not None else None
    states = bytes.fromhex(match[1]) if match else _NOBODY
    outer, inner = md5state.load(states[: md5state.DIGEST]), md5state.load(states[md5state.DIGEST :])
    once = md5state.finish(inner, challenge, before=md5state.BLOCK)
    expected = md5state.finish(outer, once, before=md5state.BLOCK).hex().encode()
    return hmac.compare_digest(expected, digest) and match is not None
