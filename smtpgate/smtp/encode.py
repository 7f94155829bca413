"""Commands towards a backend, written anew from parsed values.

Owns the spelling of every command that the proxy sends. Nothing that a client typed is passed on as it came:
an encoder takes values, checks each against the production that it fills, and raises ValueError, naming the
part, rather than let a CR, LF, NUL or stray separator out (reference/security.md B3, B4, D5). A ValueError
here means that a parser let something through; the values that come from the grammar cannot cause one.

A parameter goes out only if the backend offers its extension. What could not be delivered without one is
refused with ExtensionMissing. Refuses to know when a command may be sent; that is `client`.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from smtpgate.smtp.events import NULL_SENDER, Address, MailParams, RcptParams
from smtpgate.smtp.extensions import Extensions
from smtpgate.smtp.grammar import MAX_DOMAIN, NOTIFY

DATA: Final = b"DATA\r\n"
RSET: Final = b"RSET\r\n"
QUIT: Final = b"QUIT\r\n"
STARTTLS: Final = b"STARTTLS\r\n"

FINAL_DOT: Final = b".\r\n"
"""Ends a text whose last line has its CRLF, or an empty one (RFC 5321 section 4.1.1.4)."""

UNAVAILABLE: Final = "[UNAVAILABLE]"
"""The client has no verified host name (Postfix XCLIENT_README)."""

TEMPUNAVAIL: Final = "[TEMPUNAVAIL]"
"""Its host name could not be looked up now."""

XCLIENT_ATTRIBUTES: Final = ("ADDR", "LOGIN", "NAME", "PORT", "PROTO", "HELO", "DESTADDR", "DESTPORT")
"""What Postfix knows, nginx's three first and in its order (reference/nginx_mail.md section 6)."""

MAX_XCLIENT_LINE: Final = 512
"""Octets with CRLF: XCLIENT_README holds clients to RFC 5321 section 4.5.3.1.4 and tells them to split."""

_XCLIENT_ROOM: Final = MAX_XCLIENT_LINE - len("XCLIENT\r\n")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HELLO_NAME = re.compile(r"[!-~]{1,255}")
_ESMTP_VALUE = re.compile(r"[!-<>-~]+")  # esmtp-value, RFC 5321 section 4.1.2

# Not the grammar of a mailbox, only its frame: nothing that could end the path or the command in any reader's
# eyes. A quoted string may hold ">" and space, and is only let through whole.
_LOCAL_PART = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"|[^"\\<>@\x00-\x20\x7f]+')
_DOMAIN = re.compile(r'[^"\\<>@\x00-\x20\x7f]+')

# Let-dig and hyphen in dot-separated labels of at most 63 (RFC 1123 section 2.1), no dot at the end.
_HOST_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)

_PORT = re.compile(r"[0-9]{1,5}")

# xtext = *( xchar / hexchar ), RFC 3461 section 4: "!" to "~" but "+" and "=" stand for themselves.
_XTEXT = tuple(
    chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}" for octet in range(256)
)
_XTEXT_TEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")


class ExtensionMissing(Exception):
    """The transaction needs an extension that this backend does not offer. `name` is its EHLO keyword."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the backend does not offer {name}")
        self.name = name


def helo(name: str) -> bytes:
    """HELO. `name`: printable ASCII without spaces, at most 255. Raises ValueError."""
    return _hello("HELO", name)


def ehlo(name: str) -> bytes:
    """EHLO, as `helo`."""
    return _hello("EHLO", name)


def mail(sender: Address, params: MailParams, ext: Extensions) -> bytes:
    """MAIL FROM with the parameters that the backend offers, in the order SIZE BODY SMTPUTF8 RET ENVID AUTH.

    AUTH= is always "<>": the client's own claim is not ours to vouch for (RFC 4954 section 5). BODY=8BITMIME
    is left out where it is not offered, as relays have always done; the octets pass unchanged.
    Raises ExtensionMissing("SMTPUTF8"), ValueError.
    """
    if params.smtputf8 and not ext.smtputf8:
        raise ExtensionMissing("SMTPUTF8")
    path = "" if sender == NULL_SENDER else _path("MAIL path", sender)
    if not path.isascii() and not params.smtputf8:
        raise ValueError("MAIL path: not ASCII, and SMTPUTF8 was not given")
    words = [f"MAIL FROM:<{path}>"]
    if params.size is not None and ext.size is not None:
        words.append(f"SIZE={_number('SIZE', params.size)}")
    if params.body is not None and ext.eightbitmime:
        words.append(f"BODY={_one_of('BODY', params.body, '7BIT', '8BITMIME')}")
    if params.smtputf8:
        words.append("SMTPUTF8")
    if params.ret is not None and ext.dsn:
        words.append(f"RET={_one_of('RET', params.ret, 'FULL', 'HDRS')}")
    if params.envid is not None and ext.dsn:
        words.append(f"ENVID={_value('ENVID', params.envid)}")
    if params.auth is not None and ext.has("AUTH"):
        words.append("AUTH=<>")
    return _command("MAIL", " ".join(words))


def rcpt(recipient: Address, params: RcptParams, ext: Extensions) -> bytes:
    """RCPT TO, with NOTIFY and ORCPT if the backend offers DSN.

    Raises ExtensionMissing("SMTPUTF8") for an address that is not ASCII, ValueError.
    """
    path = _path("RCPT path", recipient)
    if not path.isascii() and not ext.smtputf8:
        raise ExtensionMissing("SMTPUTF8")
    words = [f"RCPT TO:<{path}>"]
    if params.notify is not None and ext.dsn:
        notify = params.notify
        if not NOTIFY.fullmatch(notify):
            raise ValueError("NOTIFY: expected NEVER, or a list of SUCCESS, FAILURE and DELAY")
        words.append(f"NOTIFY={notify}")
    if params.orcpt is not None and ext.dsn:
        words.append(f"ORCPT={_value('ORCPT', params.orcpt)}")
    return _command("RCPT", " ".join(words))


def auth_plain(user: bytes, password: bytes) -> bytes:
    """AUTH PLAIN with its initial response (RFC 4616), authzid empty as nginx does. Raises ValueError."""
    for what, value in (("AUTH user", user), ("AUTH password", password)):
        if not value or b"\0" in value:
            raise ValueError(f"{what}: empty or with a NUL octet")
    return b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password) + b"\r\n"


def bdat(size: int, last: bool) -> bytes:
    """BDAT (RFC 3030 section 2). Exactly `size` octets must follow on the wire. Raises ValueError."""
    return b"BDAT %d%b\r\n" % (_number("BDAT size", size), b" LAST" if last else b"")


def xclient(attributes: Mapping[str, str]) -> list[bytes]:
    """XCLIENT commands (Postfix XCLIENT_README, reference/nginx_mail.md section 6), to be sent one by one.

    `attributes`: raw values of any of XCLIENT_ATTRIBUTES; they go out in that order, in one command as a rule.
    What passes 512 octets takes several, ADDR and LOGIN together in the last: Postfix forgets a LOGIN that an
    XCLIENT does not name, and asks again who may say XCLIENT once it has another ADDR.
    Any but PROTO may be UNAVAILABLE, which takes back what was said of it before. ADDR is an address or "unix:",
    DESTADDR an address; "IPV6:" is put before an IPv6 address, an IPv4-mapped one is sent as IPv4.
    LOGIN is sent as xtext of its UTF-8 octets (surrogateescape gives back octets that are not UTF-8).
    NAME that is not a host name becomes [UNAVAILABLE] (CVE-2026-28753), and so does a HELO that fits no line.
    Raises ValueError for an unknown attribute, an ADDR that is no address, a PORT or PROTO that is none, an empty
    LOGIN or one that does not fit a line: a shortened login would be somebody else's.
    """
    if unknown := attributes.keys() - set(XCLIENT_ATTRIBUTES):
        raise ValueError(f"XCLIENT attributes {sorted(unknown)}: expected some of {', '.join(XCLIENT_ATTRIBUTES)}")
    words = {
        name: f" {name}={_XCLIENT_ENCODERS[name](attributes[name])}"
        for name in XCLIENT_ATTRIBUTES
        if name in attributes
    }
    if sum(map(len, words.values())) <= _XCLIENT_ROOM:
        lines = ["".join(words.values())] if words else []
    else:
        who = words.pop("ADDR", "") + words.pop("LOGIN", "")
        if len(who) > _XCLIENT_ROOM:
            raise ValueError(
                f"XCLIENT ADDR and LOGIN: {len(who)} octets as xtext, at most {_XCLIENT_ROOM} fit a line"
            )
        lines = [""]
        for word in words.values():
            if len(lines[-1] + word) > _XCLIENT_ROOM:
                lines.append("")
            lines[-1] += word
        lines += [who] if who else []
    return [_command("XCLIENT", f"XCLIENT{line}") for line in lines if line]


def xtext(data: bytes) -> str:
    """RFC 3461 section 4: octets outside "!" to "~", and "+" and "=", become "+XX", upper case."""
    return "".join(map(_XTEXT.__getitem__, data))


def unxtext(text: str) -> bytes:
    """The octets that `text` stands for. Raises ValueError where it is not xtext."""
    if _XTEXT_TEXT.fullmatch(text) is None:
        raise ValueError('not xtext: expected "!" to "~" without "=", and "+" only before two upper-case hex digits')
    return _HEXCHAR.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode("ascii"))


def _xclient_addr(addr: str) -> str:
    return addr if addr in ("unix:", UNAVAILABLE) else _xclient_address("ADDR", addr, ', or "unix:"')


def _xclient_destaddr(addr: str) -> str:
    return addr if addr == UNAVAILABLE else _xclient_address("DESTADDR", addr, "")


def _xclient_address(attribute: str, addr: str, otherwise: str) -> str:
    try:
        # A zone ("fe80::1%eth0") means nothing on another machine.
        parsed = ipaddress.ip_address(addr.partition("%")[0])
    except ValueError:
        raise ValueError(f"XCLIENT {attribute}: expected an IPv4 or IPv6 address{otherwise}") from None
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else f"IPV6:{parsed}"


def _xclient_login(login: str) -> str:
    if not login:
        raise ValueError("XCLIENT LOGIN: empty; leave it out where nobody logged in")
    return xtext(login.encode("utf-8", "surrogateescape"))


def _xclient_name(name: str) -> str:
    if name == TEMPUNAVAIL or (len(name) <= MAX_DOMAIN and _HOST_NAME.fullmatch(name)):
        return name
    return UNAVAILABLE


def _xclient_port(port: str) -> str:
    if port != UNAVAILABLE and not (_PORT.fullmatch(port) and int(port) <= 65535):
        raise ValueError("XCLIENT PORT: expected a number from 0 to 65535")
    return port


def _xclient_proto(proto: str) -> str:
    return _one_of("XCLIENT PROTO", proto, "SMTP", "ESMTP")


def _xclient_helo(name: str) -> str:
    encoded = xtext(name.encode("utf-8", "surrogateescape"))
    return encoded if 0 < len(encoded) <= _XCLIENT_ROOM - len(" HELO=") else UNAVAILABLE


_XCLIENT_ENCODERS: Final = {
    "ADDR": _xclient_addr,
    "LOGIN": _xclient_login,
    "NAME": _xclient_name,
    "PORT": _xclient_port,
    "PROTO": _xclient_proto,
    "HELO": _xclient_helo,
    "DESTADDR": _xclient_destaddr,
    "DESTPORT": _xclient_port,
}


def _hello(verb: str, name: str) -> bytes:
    if _HELLO_NAME.fullmatch(name) is None:
        raise ValueError(f"{verb} name: expected 1 to {MAX_DOMAIN} printable ASCII characters without spaces")
    return _command(verb, f"{verb} {name}")


def _path(what: str, address: Address) -> str:
    if _LOCAL_PART.fullmatch(address.local) is None:
        raise ValueError(f"{what}: local part is neither a quoted string nor free of separators")
    if address.domain and _DOMAIN.fullmatch(address.domain) is None:
        raise ValueError(f"{what}: domain is not free of separators")
    return str(address)


def _number(what: str, value: int) -> int:
    if value < 0:
        raise ValueError(f"{what}: {value}, expected 0 or more")
    return value


def _one_of(what: str, value: str, *expected: str) -> str:
    if value not in expected:
        raise ValueError(f"{what}: expected {' or '.join(expected)}")
    return value


def _value(what: str, value: str) -> str:
    if _ESMTP_VALUE.fullmatch(value) is None:
        raise ValueError(f'{what}: expected printable ASCII characters without space and "="')
    return value


def _command(what: str, line: str) -> bytes:
    """The last gate: whatever the encoders above did, no control character leaves in a command."""
    if control := _CONTROL.search(line):
        raise ValueError(f"{what}: control character {control[0]!r}")
    return line.encode("utf-8") + b"\r\n"
