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
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.addresses import V4_BITS, V6_BITS, WHOLE_ADDRESS, Prefixes, net_of
from smtpgate.policy.fields import ABSENT, CANONICAL, EMPTY, FIELDS, Kind
from smtpgate.policy.model import Event, Facts
from smtpgate.units import InvalidValue

# Octets of one encoded part (shared policy.md, "Subjects"). A longer one keeps its beginning, for the reader,
# and gets a digest, so that it stays itself.
MAX_PART: Final = 128
_DIGEST_OCTETS: Final = 16
_CUT: Final = MAX_PART - 1 - 2 * _DIGEST_OCTETS

# Compiled templates that are kept: thousands of limits have a few between them.
MAX_KEPT: Final = 256

# What stays as it is. All else has a meaning here, in Redis, in SCAN's patterns or in an operator's shell.
_SAFE = re.compile(r"[A-Za-z0-9@._+=/-]*")
_ENCODED: Final = tuple(chr(b) if _SAFE.fullmatch(chr(b)) else f"%{b:02X}" for b in range(256))

_TEMPLATE = re.compile(r"\{([^{}]*)\}|([A-Za-z0-9@._/|-]+)")
_PREFIX_NAME = re.compile(r"ip/([0-9]{1,3})(?:/([0-9]{1,3}))?")
# As ip_prefix takes them: a wider network is no client any more.
LEAST_V4_PREFIX: Final = 8
LEAST_V6_PREFIX: Final = 16
_IDS: Final = ("session", "transaction")
_ADDRESSES: Final = ("net", "client", "ip")
# What operators, or the auth service, name: their values are as many as these say, whatever clients do.
_OWN: Final = frozenset({"user", "user_domain", "plan", "listener"})
# In the order in which messages list them.
_PLACEHOLDERS: Final = (
    "login",
    "user",
    "user_domain",
    "plan",
    "listener",
    "sender_domain",
    "rcpt_domain",
)
_ID_EVENTS: Final = {
    "session": frozenset(Event) - {Event.AUTH_FAIL},
    "transaction": frozenset({Event.MAIL, Event.RCPT, Event.DATA, Event.EOD}),
}
_MAC: Final = "password_mac"
_MAC_EVENTS: Final = frozenset({Event.AUTH, Event.AUTH_FAIL})
# Before authentication the address alone is not the client's to choose (security.md F8), and a bucket without it is
# one that a stranger empties for everybody.
_BEFORE_AUTH: Final = frozenset({Event.CONNECT, Event.AUTH_FAIL})

EXPECTED_KEY: Final = 'placeholders and plain text, e.g. "{net}", "{net}|{login}"'

Part = Callable[[Facts], str | None]


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """The parts of a key, in order.

    text: as written. names: the placeholders in it. events: those at which all of them can be known.
    """

    parts: tuple[Part, ...]
    text: str = ""
    names: frozenset[str] = frozenset()
    events: frozenset[Event] = frozenset(Event)

    def subject(self, facts: Facts) -> str | None:
        """The subject; None where a part is missing, as the user is in a session without a login."""
        parts = self.parts
        if len(parts) == 1:
            return parts[0](facts)
        written = []
        for part in parts:
            text = part(facts)
            if text is None:
                return None
            written.append(text)
        return "".join(written)

    @property
    def unbounded(self) -> bool:
        """Whether clients can make up subjects: by an address, or by a name that nobody has verified."""
        return not self.names <= _OWN

    @property
    def outlives(self) -> bool:
        """Whether a subject comes back in a later session."""
        return not self.names & set(_IDS)


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


@functools.lru_cache(MAX_KEPT)
def compile_key(template: str, event: Event, prefixes: Prefixes, *, distinct: bool = False) -> KeyTemplate:
    """distinct: the template tells events of one subject apart, and may name what is no subject.

    Raises InvalidValue: not a template, a placeholder unknown or not known at the event, an unsafe key.
    """
    parts: list[Part] = []
    names: list[str] = []
    at = 0
    parted = True
    allowed = _allowed(event, distinct=distinct)
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
        if name not in allowed and not name.startswith("ip/"):
            expected = f"one of {' '.join(f'{{{a}}}' for a in allowed)}"
            known = name in _PLACEHOLDERS or name in _IDS or (distinct and name == _MAC)
            unknown = "is not known at" if known else "is not a placeholder of a key at"
            raise InvalidValue(f"{{{name}}} {unknown} {event.value}", expected)
        parts.append(_part(name, prefixes))
        names.append(name)
    if not parts:
        raise InvalidValue("is not a key", EXPECTED_KEY, value=template)
    if event in _BEFORE_AUTH and not distinct and not any(map(_is_address, names)):
        message = f"names no address: at {event.value} one client could use up what others need"
        raise InvalidValue(message, 'e.g. "{net}", "{net}|{login}"', value=template)
    events = frozenset(Event).intersection(*map(_events_of, names))
    return KeyTemplate(tuple(parts), template, frozenset(names), events)


def _allowed(event: Event, *, distinct: bool) -> tuple[str, ...]:
    names = ("net", "client", "ip", "ip/NN", *_PLACEHOLDERS, *_IDS, *([_MAC] if distinct else []))
    return tuple(name for name in names if event in _events_of(name))


def _is_address(name: str) -> bool:
    return name in _ADDRESSES or name.startswith("ip/")


def _events_of(name: str) -> frozenset[Event]:
    if name in _ID_EVENTS:
        return _ID_EVENTS[name]
    if name == _MAC:
        return _MAC_EVENTS
    return frozenset(Event) if _is_address(name) else FIELDS[name].events


def _literal(text: str) -> Part:
    return lambda facts: text


def _part(name: str, prefixes: Prefixes) -> Part:
    if name == "net":
        return _network(prefixes)
    if name in ("client", "ip"):
        return _network(WHOLE_ADDRESS)
    if name.startswith("ip/"):
        return _network(_prefixes_of(name))
    if name == "session":
        return lambda facts: facts.session
    if name == "transaction":
        return lambda facts: facts.transaction
    if name == _MAC:
        return lambda facts: None if facts.password_mac is None else encode(facts.password_mac)
    read, canonical = FIELDS[name].read, CANONICAL[FIELDS[name].kind]
    named_empty = FIELDS[name].kind is Kind.DOMAIN

    def part(facts: Facts) -> str | None:
        value = read(facts)
        if not isinstance(value, str) or value == ABSENT:
            return None
        if named_empty and value == EMPTY:
            return EMPTY
        return encode(canonical(value))

    return part


def _network(prefixes: Prefixes) -> Part:
    def part(facts: Facts) -> str:
        return net_of(facts.client, prefixes) or encode(facts.client)

    return part


def _prefixes_of(name: str) -> Prefixes:
    """`ip/48`: of every address, an IPv4 one under more than 32 bits is whole. `ip/24/48`: of IPv4, of IPv6."""
    found = _PREFIX_NAME.fullmatch(name)
    if found is None:
        raise InvalidValue(f"{{{name}}} is not a prefix of an address", "e.g. {ip/24}, {ip/24/48}")
    v4 = int(found[1])
    v6 = v4 if found[2] is None else int(found[2])
    if found[2] is None:
        v4 = min(v4, V4_BITS)
    if not LEAST_V4_PREFIX <= v4 <= V4_BITS or not LEAST_V6_PREFIX <= v6 <= V6_BITS:
        expected = f"IPv4 from /{LEAST_V4_PREFIX} to /{V4_BITS}, IPv6 from /{LEAST_V6_PREFIX} to /{V6_BITS}"
        raise InvalidValue(f"{{{name}}} is too wide or too narrow", expected)
    return Prefixes(v4, v6)
