"""The productions of RFC 5321, 4954 and 3461 that the server reads, as regular expressions over octets.

Each has its RFC name, its production in the comment above it, and is used with fullmatch. Deviations are
argued where they are. Octets from 0x80 on are let into addresses here, because RFC 6531 does; `command`
refuses them where SMTPUTF8 was not asked for. No pattern can match the same octets in two ways, so all of
them run in linear time. Refuses to know verbs and replies.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from typing import Final

from smtpgate.smtp.events import NULL_SENDER, Address

MAX_DOMAIN: Final = 255
"""Octets of a domain (RFC 5321 section 4.5.3.1.2, RFC 1035 section 2.3.4)."""

MAX_LABEL: Final = 63
"""Octets of one part of a domain (RFC 1035 section 2.3.4)."""

MAX_LOCAL_PART: Final = 512
"""Octets of a local part. RFC 5321 section 4.5.3.1.1 says that 64 must be taken and more may be: the return
addresses of mailing lists (VERP, SRS) pass 64 daily. Postfix has no limit but its line of 2048."""

MAX_ENVID: Final = 100
"""Octets (RFC 3461 section 4.4)."""

MAX_ORCPT: Final = 500
"""Octets (RFC 3461 section 4.2)."""

# Atom = 1*atext; Dot-string = Atom *("." Atom)
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_DOT_STRING = rb"%b(?:\.%b)*" % (_ATOM, _ATOM)
# Quoted-string = DQUOTE *QcontentSMTP DQUOTE; qtextSMTP = 32-33 / 35-91 / 93-126; quoted-pairSMTP = "\"
# 32-126
_QUOTED_STRING = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
# sub-domain = Let-dig [Ldh-str]. "_" is taken for a letter: host names with one exist and are delivered to.
_SUB_DOMAIN = rb"[A-Za-z0-9_\x80-\xff]+(?:-+[A-Za-z0-9_\x80-\xff]+)*"
# Domain = sub-domain *("." sub-domain)
_DOMAIN = rb"%b(?:\.%b)*" % (_SUB_DOMAIN, _SUB_DOMAIN)
# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal ) "]"; no other tag was ever registered.
_ADDRESS_LITERAL = rb"\[(?:(?i:IPv6:)[0-9A-Fa-f:.]+|[0-9.]+)\]"
# Path = "<" [ A-d-l ":" ] Mailbox ">"; A-d-l = At-domain *( "," At-domain ). The route is for us to ignore.
_MAILBOX = rb"(?P<local>%b|%b)@(?P<domain>%b|%b)" % (_DOT_STRING, _QUOTED_STRING, _DOMAIN, _ADDRESS_LITERAL)
_PATH = rb"<(?:@%b(?:,@%b)*:)?%b>" % (_DOMAIN, _DOMAIN, _MAILBOX)
# [ SP Mail-parameters ], taken apart by `command`
_PARAMETERS = rb"(?P<parameters>(?: .*)?)"

MAILBOX: Final = re.compile(_MAILBOX)

FROM: Final = re.compile(rb"(?i:FROM):.*")
TO: Final = re.compile(rb"(?i:TO):.*")

# "FROM:" Reverse-path [SP Mail-parameters]; Reverse-path = Path / "<>". A space after the colon is against
# RFC 5321 section 3.3, and sent by many.
REVERSE_PATH: Final = re.compile(rb"(?i:FROM): *(?:<>|%b)%b" % (_PATH, _PARAMETERS))
# "TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters]
FORWARD_PATH: Final = re.compile(rb"(?i:TO): *(?:<(?P<postmaster>(?i:postmaster))>|%b)%b" % (_PATH, _PARAMETERS))

# esmtp-keyword "=" esmtp-value = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-") [ "=" 1*(%d33-60 / %d62-126) ]
ESMTP_PARAMETER: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")

# Domain / address-literal of HELO and EHLO. What machines call themselves is rarely a domain; what matters is
# that the name holds together as one word in logs, in auth_http and towards the backend.
HELLO_NAME: Final = re.compile(rb"[!-~]{1,255}")

# size-value = 1*20DIGIT (RFC 1870 section 6)
SIZE_VALUE: Final = re.compile(r"[0-9]{1,20}")

# chunk-size = 1*DIGIT; end-marker = "LAST" (RFC 3030 section 2). 20 digits say more than any machine holds.
BDAT: Final = re.compile(rb"([0-9]{1,20})(?: +((?i:LAST)))?")

# sasl-mech = 1*20mech-char; mech-char = UPPER-ALPHA / DIGIT / HYPHEN / UNDERSCORE (RFC 4422 section 3.1)
SASL_MECH: Final = re.compile(rb"[A-Za-z0-9_-]{1,20}")

# notify-esmtp-value = "NEVER" / 1#notify-list-element (RFC 3461 section 4.1)
NOTIFY: Final = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}")

# original-recipient-address = addr-type ";" xtext; addr-type = atom (RFC 3461 section 4.2)
ORCPT: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+;(.+)")

# What an envelope id and an original recipient may spell: printable US-ASCII (RFC 3461 sections 4.2 and 4.4).
PRINTABLE: Final = re.compile(rb"[ -~]+")


class AddressError(ValueError):
    """Not a mailbox, or one that is too long."""


class NotUtf8Error(ValueError):
    """Octets from 0x80 on where only ASCII may be, or that are not UTF-8."""


def mailbox(match: re.Match[bytes], *, utf8: bool) -> Address:
    """The address that a match of REVERSE_PATH, FORWARD_PATH or MAILBOX holds; NULL_SENDER where it holds
    none.

    utf8: SMTPUTF8 is in force for this address. Raises AddressError, NotUtf8Error.
    """
    local, domain = match["local"], match["domain"]
    if local is None:
        return NULL_SENDER
    if len(local) > MAX_LOCAL_PART or len(domain) > MAX_DOMAIN:
        raise AddressError("address too long")
    if domain.startswith(b"["):
        _check_literal(domain[1:-1].decode("ascii"))
    elif len(domain) > MAX_LABEL and any(len(label) > MAX_LABEL for label in domain.split(b".")):
        raise AddressError("a part of the domain is too long")
    try:
        encoding = "utf-8" if utf8 else "ascii"
        return Address(local.decode(encoding), domain.decode(encoding))
    except UnicodeDecodeError as error:
        raise NotUtf8Error(str(error)) from None


def _check_literal(literal: str) -> None:
    try:
        if literal[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        raise AddressError("not an IP address") from None


def decode_base64(text: bytes) -> bytes | None:
    """What `text` encodes (RFC 4648 section 4); None where it is not base64.

    Only the one canonical spelling is taken: two spellings of a password would be two ways past a filter
    (reference/security.md D2). nginx is laxer: it does without padding and stops at the first "=".
    """
    try:
        decoded = binascii.a2b_base64(text)
    except binascii.Error:
        return None
    return decoded if binascii.b2a_base64(decoded, newline=False) == text else None
