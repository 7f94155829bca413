"""The fields that `match` and `key` may name: what each is, at which events it can be known, how it is read.

Owns one table, `FIELDS`, and the canonical forms in which values are compared and counted. Refuses to know
patterns (match) and templates (keys).

A field is read as text, as a truth value, as a number (time, size), or as None. None is "not known yet". ABSENT is
"known to be missing": facts arrive in the order of a session, so once MAIL was seen a session without a user has
none, and will have none. The empty names of SMTP (the null reverse-path, a login without a domain) are a value of
their own, EMPTY.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from smtpgate.policy.model import Event, Facts
from smtpgate.units import MAX_HOSTNAME

ABSENT: Final = ""
EMPTY: Final = "<>"


# auth_http's methods, as facts carry them. AUTH LOGIN is asked as plain; without a login it is none.
METHODS: Final = ("plain", "apop", "cram-md5", "external", "xoauth2", "oauthbearer", "none")


class Kind(enum.Enum):
    """How the patterns of a field are read."""

    NAME = "name"
    METHOD = "method"
    ADDRESS = "address"
    DOMAIN = "domain"
    CLIENT = "client"
    NET = "net"  # as CLIENT, and no narrower than `ip_prefix`
    TIME = "time"
    SIZE = "size"
    SWITCH = "switch"

    # As of model.Event: a look-up by kind must not run Python.
    __hash__ = object.__hash__


Value = str | bool | float | None


@dataclass(frozen=True, slots=True)
class Field:
    """`events`: where it can be known; naming it at another event is an operator's error."""

    name: str
    kind: Kind
    events: frozenset[Event]
    read: Callable[[Facts], Value]


# --- canonical forms ----------------------------------------------------------------------------------------


def canonical_domain(domain: str) -> str:
    """Lower-case A-labels (RFC 5890 section 2.3.2.1); what IDNA cannot encode is only put in lower case.

    By IDNA 2003, which Python has: its `straße.example` is `strasse.example`.
    """
    # A domain's A-labels are longer than itself: nothing that is too long as it stands becomes one. A login of 4 KiB
    # would take 12 ms, each time.
    if domain.isascii() or len(domain) > MAX_HOSTNAME:
        return domain.lower()
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return domain.lower()


def canonical_address(address: str) -> str:
    """The local part in lower case too, as mail systems compare it (RFC 5321 section 2.4 lets them)."""
    if address.isascii():
        return address.lower()
    local, at, domain = address.rpartition("@")
    return f"{local.lower()}{at}{canonical_domain(domain)}"


# For comparing and counting: two values that only differ before are one.
CANONICAL: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.NAME: str.lower,
    Kind.METHOD: str.lower,
    Kind.ADDRESS: canonical_address,
    Kind.DOMAIN: canonical_domain,
    Kind.CLIENT: str,
    Kind.NET: str,
    Kind.TIME: float,
    Kind.SIZE: float,
}


def domain_of(address: str) -> str:
    """The domain of `local@domain` as typed, EMPTY where there is none."""
    return address.rpartition("@")[2] if "@" in address else EMPTY


# --- readers ------------------------------------------------------------------------------------------------


def _since_auth(facts: Facts, value: str | None) -> str | None:
    """A fact of the login: whoever has a user, or came to MAIL without one, will not get it any more."""
    if value is None and (facts.user is not None or facts.sender is not None):
        return ABSENT
    return value


def _login(facts: Facts) -> Value:
    return _since_auth(facts, facts.login)


def _method(facts: Facts) -> Value:
    return _since_auth(facts, facts.method)


def _plan(facts: Facts) -> Value:
    return _since_auth(facts, facts.plan)


def _user(facts: Facts) -> Value:
    return _since_auth(facts, facts.user)


def _user_domain(facts: Facts) -> Value:
    return _since_auth(facts, None if facts.user is None else domain_of(facts.user))


def _auth(facts: Facts) -> Value:
    if facts.user is not None:
        return True
    return None if facts.sender is None else False


def _helo(facts: Facts) -> Value:
    return ABSENT if facts.helo is None and facts.sender is not None else facts.helo


def _sender(facts: Facts) -> Value:
    return EMPTY if facts.sender == "" else facts.sender


def _sender_domain(facts: Facts) -> Value:
    return None if facts.sender is None else facts.sender_domain or EMPTY


def _size(facts: Facts) -> Value:
    """What MAIL announced, and at the end of the message what it really had."""
    size = facts.size if facts.octets is None else facts.octets
    return ABSENT if size is None and facts.sender is not None else size


def _rcpt(facts: Facts) -> Value:
    return facts.rcpt


def _rcpt_domain(facts: Facts) -> Value:
    return None if facts.rcpt is None else facts.rcpt_domain or EMPTY


def _client(facts: Facts) -> Value:
    return facts.client


def _listener(facts: Facts) -> Value:
    return facts.listener


def _tls(facts: Facts) -> Value:
    return facts.tls


def _time(facts: Facts) -> Value:
    return facts.time


def _protocol(facts: Facts) -> Value:
    return facts.protocol or "smtp"


def _known_user(facts: Facts) -> Value:
    return facts.known_user


def _known_net(facts: Facts) -> Value:
    return facts.known_net


# --- the table ----------------------------------------------------------------------------------------------

_ANY = frozenset(Event)
# The auth service is the one who sees a failed login, and auth_http does not tell it the listener.
_LISTENER = _ANY - {Event.AUTH_FAIL}
_LOGIN = _ANY - {Event.CONNECT}
_USER = _LOGIN - {Event.AUTH_FAIL}
_PROOF = frozenset({Event.AUTH, Event.AUTH_FAIL})
_MAIL = frozenset({Event.MAIL, Event.RCPT, Event.DATA, Event.EOD})
# A message may have many recipients: of data and its end no single one is known.
_RCPT = frozenset({Event.RCPT})

FIELDS: Final = {
    field.name: field
    for field in (
        Field("client", Kind.CLIENT, _ANY, _client),
        Field("ip", Kind.CLIENT, _ANY, _client),
        Field("net", Kind.NET, _ANY, _client),
        Field("listener", Kind.NAME, _LISTENER, _listener),
        Field("tls", Kind.SWITCH, _ANY, _tls),
        Field("time", Kind.TIME, _ANY, _time),
        Field("protocol", Kind.NAME, _PROOF, _protocol),
        Field("login", Kind.ADDRESS, _LOGIN, _login),
        Field("method", Kind.METHOD, _LOGIN, _method),
        Field("known_user", Kind.SWITCH, _PROOF, _known_user),
        Field("known_net", Kind.SWITCH, _PROOF, _known_net),
        Field("auth", Kind.SWITCH, _USER, _auth),
        Field("user", Kind.ADDRESS, _USER, _user),
        Field("user_domain", Kind.DOMAIN, _USER, _user_domain),
        Field("plan", Kind.NAME, _USER, _plan),
        Field("helo", Kind.DOMAIN, _MAIL, _helo),
        Field("sender", Kind.ADDRESS, _MAIL, _sender),
        Field("sender_domain", Kind.DOMAIN, _MAIL, _sender_domain),
        Field("size", Kind.SIZE, _MAIL, _size),
        Field("rcpt", Kind.ADDRESS, _RCPT, _rcpt),
        Field("rcpt_domain", Kind.DOMAIN, _RCPT, _rcpt_domain),
    )
}


def known_at(event: Event) -> tuple[str, ...]:
    """The names of the fields that can be known at an event, in the table's order."""
    return tuple(name for name, field in FIELDS.items() if event in field.events)
