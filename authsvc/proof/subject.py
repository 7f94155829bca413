"""The field of a certificate's subject that names the user, as nginx sends it in Auth-SSL-Subject.

Owns the reading of an RFC 2253 distinguished name such as `O=Acme\\, Inc,CN=client one`. Refuses to guess: a
name without that field, with two of it, or in a form that OpenSSL does not print (quoted, `#hex`) names nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# What a field is called in a distinguished name, in upper case: by OpenSSL, and by its number where it has no name
# for it (RFC 4519 sections 2.3, 2.31 and 2.39, RFC 2985 section 5.2.1).
FIELDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "CN": (b"CN", b"2.5.4.3"),
    "emailAddress": (b"EMAILADDRESS", b"1.2.840.113549.1.9.1"),
    "UID": (b"UID", b"0.9.2342.19200300.100.1.1"),
    "serialNumber": (b"SERIALNUMBER", b"2.5.4.5"),
}

# RFC 2253 section 3, without the quoted and the #hex form: what OpenSSL's XN_FLAG_RFC2253 prints.
_TYPE = rb"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)"
_VALUE = rb"""(?:[^,=+<>\#;\\"\x00-\x1f\x7f]|\\(?:[ ,=+<>\#;\\"]|[0-9A-Fa-f]{2}))"""
_PAIR = re.compile(rb"(%b)=((?:%b(?:%b|[\#=])*)?)(,|\+|\Z)" % (_TYPE, _VALUE, _VALUE))
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)")


class SubjectError(ValueError):
    """Not a distinguished name with exactly one such field. The message holds nothing of it."""


def read_subject(subject: bytes, field: str = "CN") -> str:
    """`O=Acme\\, Inc,CN=client one` -> `client one`. field: of FIELDS. Raises SubjectError."""
    names: list[bytes] = []
    at = 0
    while True:
        pair = _PAIR.match(subject, at)
        if pair is None:
            raise SubjectError(f"not an RFC 2253 name at octet {at}")
        if pair[1].upper() in FIELDS[field]:
            names.append(_ESCAPE.sub(_unescape, pair[2]))
        at = pair.end()
        if not pair[3]:
            break
    if len(names) != 1:
        raise SubjectError(f"{len(names)} of {field}; expected exactly one")
    try:
        return names[0].decode("utf-8")
    except UnicodeDecodeError:
        raise SubjectError(f"{field} is not UTF-8") from None


def _unescape(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode("ascii")) if len(escape[1]) == 2 else escape[1]
