"""XCLIENT and XFORWARD from a client: what a relay in front of us says of the client behind it.

Owns their syntax (Postfix, XCLIENT_README and XFORWARD_README): attributes as xtext, each at most once, each checked
as what it names. Refuses to know who may say so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from smtpgate.smtp import grammar
from smtpgate.smtp.encode import TEMPUNAVAIL, UNAVAILABLE, unxtext
from smtpgate.smtp.events import Xclient, Xforward

XCLIENT_ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD_ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")
# XFORWARD_README: octets of a value before its encoding.
MAX_VALUE: Final = 255
_ABSENT: Final = frozenset((UNAVAILABLE.encode(), TEMPUNAVAIL.encode()))
_WORD = re.compile(rb"([A-Za-z]{1,16})=([!-<>-~]+)")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_TEXT = re.compile(r"[!-~]{1,255}")


class AttributeFault(ValueError):
    """The arguments are no attributes; the client gets 501."""


def parse_xclient(arguments: bytes) -> Xclient:
    """Raises AttributeFault."""
    given = _attributes(arguments, XCLIENT_ATTRIBUTES)
    values: dict[str, Any] = {name.lower(): _READERS[name](value) for name, value in given.items()}
    return Xclient(**values)


def parse_xforward(arguments: bytes) -> Xforward:
    """Raises AttributeFault."""
    given = _attributes(arguments, XFORWARD_ATTRIBUTES)
    return Xforward(MappingProxyType({name.lower(): str(_READERS[name](value)) for name, value in given.items()}))


def _attributes(arguments: bytes, known: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in arguments.split(b" "):
        if not word:
            continue
        match = _WORD.fullmatch(word)
        if match is None:
            raise AttributeFault("not name=value")
        name = match[1].upper().decode("ascii")
        if name not in known or name in given:
            raise AttributeFault("an attribute that is unknown, or there twice")
        try:
            octets = unxtext(match[2].decode("ascii"))
        except ValueError:
            raise AttributeFault("a value that is not xtext") from None
        if len(octets) > MAX_VALUE:
            raise AttributeFault("a value that is too long")
        given[name] = "" if octets.upper() in _ABSENT else octets.decode("utf-8", "surrogateescape")
    if not given:
        raise AttributeFault("no attributes")
    return given


def _checked(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value and pattern.fullmatch(value) is None:
            raise AttributeFault("a value that its attribute cannot have")
        return value

    return check


def _port(value: str) -> int:
    if value and (_PORT.fullmatch(value) is None or int(value) > 0xFFFF):
        raise AttributeFault("a port that is none")
    return int(value or 0)


def _address(value: str) -> str:
    """Postfix writes IPv6 addresses with a prefix (RFC 5321 section 4.1.3)."""
    if not value:
        return value
    six = value[:5] in ("IPV6:", "IPv6:", "ipv6:")
    try:
        address = ipaddress.ip_address(value[5:] if six else value)
    except ValueError:
        raise AttributeFault("an address that is none") from None
    if (address.version == 6) != six:
        raise AttributeFault("an address without the prefix of its family")
    return str(address)


def _proto(value: str) -> str:
    octets = value.encode("utf-8", "surrogateescape").upper()
    if octets not in (b"", b"SMTP", b"ESMTP"):
        raise AttributeFault("a protocol that is neither SMTP nor ESMTP")
    return octets.decode("ascii")


def _helo(value: str) -> str:
    if value and grammar.HELLO_NAME.fullmatch(value.encode("utf-8", "surrogateescape")) is None:
        raise AttributeFault("a HELO name that is none")
    return value


def _login(value: str) -> str:
    if any(character < " " or character == "\x7f" for character in value):
        raise AttributeFault("a login with control characters")
    return value


_READERS: Final[Mapping[str, Callable[[str], str | int]]] = MappingProxyType(
    {
        "NAME": _checked(_NAME),
        "ADDR": _address,
        "PORT": _port,
        "PROTO": _proto,
        "HELO": _helo,
        "LOGIN": _login,
        "DESTADDR": _address,
        "DESTPORT": _port,
        "IDENT": _checked(_TEXT),
        "SOURCE": _checked(_TEXT),
    }
)
