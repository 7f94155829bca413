"""`key`: a template such as "{net}|{login}" -> the subject of a bucket.

Owns the alphabet of subjects: whatever a client chose (a login, a domain) is encoded so that it can end
neither its part nor the key, cannot begin a Redis hash tag, and is never longer than MAX_PART. Two values share a
subject only if a match takes them for one: `Ann@Example.com` and `ann@example.com`. Addresses are written by us
from parsed numbers and keep their colons.

Refuses to know the store's prefix and the limit's name in front.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.fields import (
    ABSENT,
    CANONICAL,
    EMPTY,
    FIELDS,
    Kind,
    known_at,
)
from smtpgate.policy.match import ADDRESS_CACHE, parse_client
from smtpgate.policy.model import Event, Facts
from smtpgate.units import InvalidValue

# Octets of one encoded part (shared policy.md, "Subjects"). A longer one keeps its beginning, for the reader,
# and gets a digest, so that it stays itself.
MAX_PART: Final = 128
_DIGEST_OCTETS: Final = 16
_CUT: Final = MAX_PART - 1 - 2 * _DIGEST_OCTETS

# What stays as it is. All else has a meaning here, in Redis, in SCAN's patterns or in an operator's shell.
_SAFE = re.compile(r"[A-Za-z0-9@._+=/-]*")
_ENCODED: Final = tuple(chr(b) if _SAFE.fullmatch(chr(b)) else f"%{b:02X}" for b in range(256))

_TEMPLATE = re.compile(r"\{([^{}]*)\}|([A-Za-z0-9@._/|-]+)")
_PLACEHOLDERS: Final = ("net", "client", "login", "user", "listener", "sender_domain", "rcpt_domain")
# Before authentication the address alone is not the client's to choose (security.md F8), and a bucket without it is
# one that a stranger empties for everybody.
_BEFORE_AUTH: Final = frozenset({Event.CONNECT, Event.AUTH_FAIL})
_TRUSTED_BEFORE_AUTH: Final = frozenset({"net", "client"})

EXPECTED_KEY: Final = 'placeholders and plain text, e.g. "{net}", "{net}|{login}"'

Part = Callable[[Facts], str | None]


@dataclass(frozen=True, slots=True)
class Prefixes:
    """How many bits of an address make a `{net}`: by default an IPv4 host, an IPv6 link (RFC 4291)."""

    v4: int = 32
    v6: int = 64


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """The parts of a key, in order."""

    parts: tuple[Part, ...]

    def subject(self, facts: Facts) -> str | None:
        """The subject; None where a part is missing, as the user is in a session without a login."""
        written = []
        for part in self.parts:
            text = part(facts)
            if text is None:
                return None
            written.append(text)
        return "".join(written)


def encode(text: str) -> str:
    """A client's text as a part of a subject: safe ASCII, at most MAX_PART octets, one-to-one (see above)."""
    if len(text) <= MAX_PART and _SAFE.fullmatch(text):
        return text
    # surrogatepass: octets that were no UTF-8 arrive as lone surrogates, and they too must stay distinct.
    octets = text.encode("utf-8", "surrogatepass")
    encoded = "".join([_ENCODED[octet] for octet in octets])
    if len(encoded) <= MAX_PART:
        return encoded
    return f"{encoded[:_CUT]}~{hashlib.blake2b(octets, digest_size=_DIGEST_OCTETS).hexdigest()}"


@functools.lru_cache(maxsize=ADDRESS_CACHE)
def net_of(client: str, prefixes: Prefixes) -> str:
    """`192.0.2.1`, `192.0.2.0/24`, `2001:db8::/64`; a full-length prefix is not written. "unix:" stays."""
    parsed = parse_client(client)
    if parsed is None:
        return "unix:" if client.startswith("unix:") else encode(client)
    version, number = parsed
    if version == 4:
        v4 = ipaddress.IPv4Network((number, prefixes.v4), strict=False)
        return str(v4 if prefixes.v4 < 32 else v4.network_address)
    v6 = ipaddress.IPv6Network((number, prefixes.v6), strict=False)
    return str(v6 if prefixes.v6 < 128 else v6.network_address)


_WHOLE_ADDRESS: Final = Prefixes(32, 128)


def compile_key(template: str, event: Event, prefixes: Prefixes) -> KeyTemplate:
    """Raises InvalidValue: not a template, a placeholder unknown or not known at the event, an unsafe key."""
    parts: list[Part] = []
    names: set[str] = set()
    at = 0
    parted = True
    allowed = ("net", *(name for name in known_at(event) if name in _PLACEHOLDERS))
    while at < len(template):
        found = _TEMPLATE.match(template, at)
        if found is None:
            raise InvalidValue("is not a key", EXPECTED_KEY, value=template)
        at = found.end()
        name, literal = found.groups()
        if literal is not None:
            parts.append(_literal(literal))
            parted = parted or "|" in literal
            continue
        if not parted:
            # Any other text between two values may be part of a value: "a-b" and "c", "a" and "b-c".
            raise InvalidValue(f"has no | before {{{name}}}", 'e.g. "{net}|{login}"', value=template)
        parted = False
        if name not in allowed:
            expected = f"one of {' '.join(f'{{{a}}}' for a in allowed)}"
            unknown = "is not known at" if name in _PLACEHOLDERS else "is not a placeholder of a key at"
            raise InvalidValue(f"{{{name}}} {unknown} {event.value}", expected)
        parts.append(_part(name, prefixes))
        names.add(name)
    if not parts:
        raise InvalidValue("is not a key", EXPECTED_KEY, value=template)
    if event in _BEFORE_AUTH and not names & _TRUSTED_BEFORE_AUTH:
        message = f"names no address: at {event.value} one client could use up what others need"
        raise InvalidValue(message, 'e.g. "{net}", "{net}|{login}"', value=template)
    return KeyTemplate(tuple(parts))


def _literal(text: str) -> Part:
    return lambda facts: text


def _part(name: str, prefixes: Prefixes) -> Part:
    if name == "net":
        return lambda facts: net_of(facts.client, prefixes)
    if name == "client":
        return lambda facts: net_of(facts.client, _WHOLE_ADDRESS)
    read = FIELDS[name].read
    kind = FIELDS[name].kind

    def part(facts: Facts) -> str | None:
        value = read(facts)
        if not isinstance(value, str) or value == ABSENT:
            return None
        if kind is Kind.DOMAIN and value == EMPTY:
            return EMPTY
        return encode(CANONICAL[kind](value))

    return part
