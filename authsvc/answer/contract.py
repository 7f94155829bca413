"""nginx's auth_http on the wire: request headers -> AuthRequest, Answer -> response headers.

Owns names, escaping, and the bounds that keep every response block below nginx's 1024 octets
(reference/auth_http.md sections 3, 4 and 6). Refuses to know users, limits, routes and Flask: what comes in
is a mapping of names to latin-1 text as WSGI gives it, what goes out is a list of such pairs.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

# nginx reads status line, headers and blank line into one buffer of this size, and drops the session silently
# when they do not fit (section 6.1).
MAX_BLOCK: Final = 1024
# What the HTTP server adds: status line, Server, Date, Connection, Content-Length, blank line. 117 octets
# with gunicorn; the rest is room for another server.
SERVER_OVERHEAD: Final = 256
# RFC 5321 section 4.5.3.1: 64 octets of local part, "@", 255 of domain.
MAX_USER: Final = 320
# RFC 5321 section 4.5.3.1.5 allows 512 for a whole reply line; a client's window shows less.
MAX_TEXT: Final = 200
# smtpgate.units.MAX_NAME: names of pools and plans.
MAX_NAME: Final = 64
# A password that nginx logs in to a backend with. More would not leave SERVER_OVERHEAD its room.
MAX_PASS: Final = 128
# The challenge of cram-md5 and apop: RFC 1939 section 7 and RFC 2195 section 2 want an RFC 822 msg-id, which nginx
# makes of two numbers and its server_name. It is hashed with pure Python here.
MAX_SALT: Final = 512
# nginx keeps memory for each attempt until the session ends, so its documentation asks for an answer that
# closes the session after 10 to 20 of them (section 6.3).
MAX_ATTEMPTS: Final = 10
# Longer pauses outlive the client's patience: RFC 5321 section 4.5.3.2 lets it give up after 5 minutes.
MAX_WAIT: Final = 240

# Seconds of Auth-Cache, as in our proxy: Dovecot's auth_cache_ttl, 1 hour.
MAX_CACHE: Final = 3600

# Auth-Pool: the route depends on the envelope, the proxy's own routes decide.
OWN_ROUTES: Final = "*"
# Auth-Gate of our own proxy; a stock nginx has no such header.
GATE: Final = "smtpgate"

_DIGITS = re.compile(r"[0-9]{1,9}")
_CODE = re.compile(r"[45][0-9]{2} [45]\.[0-9]{1,3}\.[0-9]{1,3}")
_NAME = re.compile(rf"\*|[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
_UNPRINTABLE = re.compile(r"[^ -~]")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class RequestError(ValueError):
    """Not a request of auth_http. The message says which header and what was expected, never its value."""


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """One question of nginx or of our proxy.

    user, password: octets as the client sent them, both empty for method none. salt: the challenge with its
    angle brackets (cram-md5, apop). attempt: from 1, within one client connection. client: a textual address, or
    "unix:". mail_line, rcpt_line: the commands as typed (none). verify, subject: the client certificate, as
    nginx judged it. gate: our own proxy asks, which has limits of its own and knows when a session ends.
    """

    method: str
    client: str
    user: bytes = b""
    password: bytes = field(default=b"", repr=False)
    salt: bytes = b""
    protocol: str = "smtp"
    attempt: int = 1
    client_host: str = ""
    helo: str | None = None
    mail_line: bytes = b""
    rcpt_line: bytes = b""
    tls: bool = False
    verify: str = ""
    subject: bytes = b""
    gate: bool = False

    @property
    def login(self) -> str | None:
        """The name that was typed; None where no user can be called so."""
        try:
            text = self.user.decode("utf-8")  # RFC 4616 section 2; Latin-1 spells nobody
        except UnicodeDecodeError:
            return None
        return text if is_user_name(text) else None

    @property
    def login_text(self) -> str:
        """What was typed, whatever it was, as text of at most MAX_USER characters: for limits and the log.

        Nothing typed is "<>": an empty fact would count as none, and escape the limits keyed on it.
        """
        return self.user[:MAX_USER].decode("utf-8", "backslashreplace")[:MAX_USER] or "<>"


def is_user_name(text: str) -> bool:
    """Whether a user can be called so: 1 to MAX_USER octets of UTF-8, printable, no space at either end.

    The bound and the alphabet are what Auth-User, XCLIENT LOGIN and a log line can all carry.
    """
    return text.isprintable() and text == text.strip(" ") and 0 < len(text.encode("utf-8")) <= MAX_USER


class Headers(Protocol):
    """HTTP headers by name without regard to case, values as WSGI gives them (octets read as latin-1)."""

    def get(self, name: str, default: str, /) -> str: ...


def is_sendable_password(text: str) -> bool:
    """Whether Auth-Pass can carry it as it is: nginx undoes no escaping, and cuts spaces at the ends."""
    octets = text.encode("utf-8", "surrogateescape")
    return 0 < len(octets) <= MAX_PASS and not _CONTROL.search(octets) and octets == octets.strip(b" ")


def read_request(headers: Headers) -> AuthRequest:
    """The request behind HTTP headers. Raises RequestError."""

    def octets(name: str) -> bytes:
        return headers.get(name, "").encode("latin-1")

    method = headers.get("Auth-Method", "")
    if not method:
        raise RequestError("no Auth-Method; expected plain, apop, cram-md5, external, xoauth2, oauthbearer or none")
    salt = octets("Auth-Salt")
    if len(salt) > MAX_SALT:
        raise RequestError(f"Auth-Salt has {len(salt)} octets; expected at most {MAX_SALT}")
    return AuthRequest(
        method=method,
        client=_client(headers.get("Client-IP", "")),
        user=unquote_to_bytes(octets("Auth-User")),
        password=unquote_to_bytes(octets("Auth-Pass")),
        salt=salt,
        protocol=headers.get("Auth-Protocol", "smtp"),
        attempt=_attempt(headers.get("Auth-Login-Attempt", "1")),
        client_host=headers.get("Client-Host", ""),
        helo=headers.get("Auth-SMTP-Helo", "") or None,
        mail_line=octets("Auth-SMTP-From"),
        rcpt_line=octets("Auth-SMTP-To"),
        tls=headers.get("Auth-SSL", "") == "on",
        verify=headers.get("Auth-SSL-Verify", ""),
        subject=octets("Auth-SSL-Subject"),
        gate=headers.get("Auth-Gate", "") == GATE,
    )


def _client(text: str) -> str:
    if text == "unix:":
        return text
    try:
        if "%" in text:  # ipaddress takes anything as a scope id
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise RequestError("Client-IP is not an address; expected e.g. 192.0.2.1, 2001:db8::1 or unix:") from None
    # What a listener on [::] calls a client of IPv4 (RFC 4291 section 2.5.5.2).
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _attempt(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise RequestError("Auth-Login-Attempt is not a number; expected decimal digits")
    return int(text)


# --- answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Granted:
    """The client may go on. user: its canonical name, None for method none.

    server: a literal address and a port, for a stock nginx. pool: a pool's name or OWN_ROUTES, for our proxy.
    At least one of the two leads somewhere. plan: a name that limits can match. password: what nginx logs in to the
    backend with, None for what the client gave. cache: seconds for which our proxy may take the same credentials for
    proven; not beside a password, for which the block would have no room.
    """

    user: str | None = None
    server: tuple[str, int] | None = None
    pool: str | None = None
    plan: str | None = None
    password: str | None = field(default=None, repr=False)
    cache: int = 0

    def __post_init__(self) -> None:
        if self.user is not None and not is_user_name(self.user):
            raise ValueError(f"user {self.user!r} cannot be sent in a header")
        for name in (self.pool, self.plan):
            if name is not None and not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name of a pool or plan")
        if self.password is not None and not is_sendable_password(self.password):
            raise ValueError("the password cannot be sent in a header")
        if self.cache and self.password is not None:
            raise ValueError("a grant with a password cannot be kept")


@dataclass(frozen=True, slots=True)
class Refused:
    """The client may not. code: "535 5.7.8", basic and enhanced. text: what follows it in the reply.

    wait: seconds that nginx pauses before the reply, above 0 if the client may try again; 0 closes.
    """

    code: str
    text: str
    wait: int = 0

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise ValueError(f"{self.code!r} is not a reply code; expected e.g. 535 5.7.8")


@dataclass(frozen=True, slots=True)
class Wait:
    """Neither yet: nginx asks again after `wait` seconds, and the client hears nothing meanwhile (section 6.3)."""

    wait: int

    def __post_init__(self) -> None:
        if self.wait < 1:
            # nginx would ask at full speed, and for ever: it does not clear the flag.
            raise ValueError("WAIT needs an Auth-Wait of at least 1")


Answer = Granted | Refused | Wait


def write_answer(answer: Answer) -> list[tuple[str, str]]:
    """The response headers, values as WSGI takes them (octets read as latin-1), at most MAX_BLOCK in all.

    By the bounds of the parts: the longest grant is 765 octets, the longest refusal 266, both with what
    SERVER_OVERHEAD stands for still to come.
    """
    if isinstance(answer, Wait):
        return [("Auth-Status", "WAIT"), ("Auth-Wait", str(min(answer.wait, MAX_WAIT)))]
    if isinstance(answer, Refused):
        headers = [("Auth-Status", _status(answer.text)), ("Auth-Error-Code", answer.code)]
        if answer.wait > 0:
            headers.append(("Auth-Wait", str(min(answer.wait, MAX_WAIT))))
        return headers
    headers = [("Auth-Status", "OK")]
    if answer.server is not None:
        host, port = answer.server
        headers += [("Auth-Server", str(ipaddress.ip_address(host))), ("Auth-Port", str(port))]
    if answer.user is not None:
        # nginx takes this as it is, without undoing any escaping (section 6.4).
        headers.append(("Auth-User", answer.user.encode("utf-8").decode("latin-1")))
    if answer.password is not None:
        headers.append(("Auth-Pass", answer.password.encode("utf-8", "surrogateescape").decode("latin-1")))
    if answer.pool is not None:
        headers.append(("Auth-Pool", answer.pool))
    if answer.plan is not None:
        headers.append(("Auth-Plan", answer.plan))
    if answer.cache > 0:
        headers.append(("Auth-Cache", str(min(answer.cache, MAX_CACHE))))
    return headers


def _status(text: str) -> str:
    """A failure's text that nginx takes for one: `OK`, `WAIT` and nothing mean something else to it."""
    clean = _UNPRINTABLE.sub("?", text)[:MAX_TEXT].strip(" ")
    return "Refused" if clean in ("", "OK", "WAIT") else clean
