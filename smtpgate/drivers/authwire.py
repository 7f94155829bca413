"""nginx's auth_http on the wire, as its client: AuthQuery -> request, response header -> AuthAnswer.

Pure: octets in, octets out. Owns names, order, escaping (reference/auth_http.md sections 3 and 4), what a
response may say (section 6), and every bound on it. A response is believed only where it is well formed: what
is doubtful about a header that decides is a WireError, never a grant. Refuses to know sockets, and what a
session does with the answer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthRefused, AuthWait

# Status line, headers and blank line. nginx reads 1024 octets; foreign services add cookies and policies
# (reference/security.md D9).
MAX_HEAD: Final = 16 * 1024
# A body is thrown away, and only read so that its connection can be used again. An error page is smaller.
MAX_BODY: Final = 64 * 1024
# Seconds of Auth-Wait, as in authsvc: the client may give up after 5 minutes (RFC 5321 section 4.5.3.2).
MAX_WAIT: Final = 240
# Seconds of Auth-Cache, before the operator's own bound: Dovecot's auth_cache_ttl, 1 hour.
MAX_LIFETIME: Final = 3600
# Octets of Auth-Status (reference/security.md D10): a reply line holds 512 (RFC 5321 section 4.5.3.1.5).
MAX_TEXT: Final = 400
# Octets of a user's name: RFC 5321 section 4.5.3.1, 64 of local part, "@", 255 of domain.
MAX_USER: Final = 320

DEFAULT_CODE: Final = "535 5.7.0"  # nginx's
DEFAULT_TEXT: Final = "authentication failed"
NO_HOST_NAME: Final = "[UNAVAILABLE]"
OWN_ROUTES: Final = b"*"
# How our own auth service tells us from a stock nginx: limits of the event `auth` are asked here, Auth-Pool is
# understood, and so is Auth-Cache. Others ignore it.
GATE: Final = b"smtpgate"


class WireError(Exception):
    """Not an answer of auth_http. The message is for the log: which part, and what was expected."""


# --- the request ---

# Section 4: these and no others, so that any auth_http server decodes what nginx would have sent.
_CREDENTIAL: Final = re.compile(rb"[\x00-\x20%]")
# nginx sends what the client typed in MAIL and RCPT raw, controls included, and a strict HTTP server answers
# 400: a client could so make its own session fail as if the service were down. They are shown as %XX instead;
# "%" itself stays, as in nginx, because addresses hold it ("a%b@c"): the lines are to be read, not decoded.
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
# LDH (RFC 952, RFC 1123) or nginx's two words. DNS is written by strangers (reference/security.md D5).
_CLIENT_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,255}|\[UNAVAILABLE\]|\[TEMPUNAVAIL\]")

# RFC 9110 sections 5.1 and 5.5.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
# These belong to whoever frames the request.
_FRAMING: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "expect", "upgrade"})


def static_header(name: str, value: str) -> tuple[str, bytes]:
    """A header that the operator adds (conf/proxy.yaml `auth_http.headers`).

    Raises ValueError, never showing the value: it may be a secret.
    """
    if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING:
        raise ValueError(f"auth_http header {name!r}; expected a header's name, and none of {sorted(_FRAMING)}")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"value of auth_http header {name!r}; expected printable Latin-1 on one line")
    return name, value.encode("latin-1")


def write_request(
    target: str,
    host: str,
    query: AuthQuery,
    static: Sequence[tuple[str, bytes]] = (),
    *,
    pass_client_cert: bool = False,
) -> bytes:
    """The whole request. target: path and query. host: without a port, as nginx sends it. static: see above.

    HTTP/1.1 where nginx says 1.0: so a connection is kept without a header that nginx does not send.
    """
    lines = [f"GET {target} HTTP/1.1".encode("ascii")]
    lines += [b"%b: %b" % (name.encode("ascii"), value) for name, value in _fields(host, query, pass_client_cert)]
    lines += [b"%b: %b" % (name.encode("ascii"), value) for name, value in static]
    return b"\r\n".join([*lines, b"", b""])


def _fields(host: str, query: AuthQuery, pass_client_cert: bool) -> Iterator[tuple[str, bytes]]:
    """Name and value in nginx's order (section 3), and one of ours behind them."""
    yield "Host", _text(host)
    yield "Auth-Method", _text(query.method)
    yield "Auth-User", _escape(_CREDENTIAL, query.user)
    yield "Auth-Pass", _escape(_CREDENTIAL, query.password)
    if query.salt is not None:
        yield "Auth-Salt", _text(query.salt)
    yield "Auth-Protocol", b"smtp"
    yield "Auth-Login-Attempt", b"%d" % query.attempt
    yield "Client-IP", _text(query.peer.host)
    yield "Client-Host", _text(query.client_host if _CLIENT_HOST.fullmatch(query.client_host) else NO_HOST_NAME)
    if query.proxied is not None:
        yield "Proxy-Protocol-Addr", _text(query.proxied.host)
        yield "Proxy-Protocol-Port", b"%d" % query.proxied.port
        yield "Proxy-Protocol-Server-Addr", _text(query.proxied.local_host)
        yield "Proxy-Protocol-Server-Port", b"%d" % query.proxied.local_port
    if query.method == "none":
        yield "Auth-SMTP-Helo", _text(query.helo or "")
        yield "Auth-SMTP-From", _escape(_CONTROL, query.mail_line or b"")
        yield "Auth-SMTP-To", _escape(_CONTROL, query.rcpt_line or b"")
    if query.tls is not None:
        yield from ((name, value) for name, value in _tls_fields(query, pass_client_cert) if value)
    yield "Auth-Gate", GATE


def _tls_fields(query: AuthQuery, pass_client_cert: bool) -> Iterator[tuple[str, bytes]]:
    assert query.tls is not None
    yield "Auth-SSL", b"on"
    yield "Auth-SSL-Protocol", _text(query.tls.protocol)
    yield "Auth-SSL-Cipher", _text(query.tls.cipher)
    certificate = query.tls.certificate
    if certificate is None:
        return
    yield "Auth-SSL-Verify", _text(certificate.verify)
    yield "Auth-SSL-Subject", _text(certificate.subject)
    yield "Auth-SSL-Issuer", _text(certificate.issuer)
    yield "Auth-SSL-Serial", _text(certificate.serial)
    yield "Auth-SSL-Fingerprint", _text(certificate.fingerprint)
    if pass_client_cert:
        yield "Auth-SSL-Cert", _escape(_CREDENTIAL, certificate.pem)


def _text(value: str) -> bytes:
    return _escape(_CONTROL, value.encode("utf-8", "surrogateescape"))


def _escape(unsafe: re.Pattern[bytes], value: bytes) -> bytes:
    return unsafe.sub(lambda match: b"%%%02X" % match[0][0], value)


# --- the response's header ---

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")
_DIGITS: Final = re.compile(rb"[0-9]+")

_OURS: Final = frozenset(
    b"auth-status auth-wait auth-server auth-port auth-user auth-pass auth-error-code auth-pool auth-plan"
    b" auth-cache".split()
)
_NOT_ALNUM: Final = re.compile(rb"[^a-z0-9]+")
_OURS_SQUASHED: Final = frozenset(_NOT_ALNUM.sub(b"", name) for name in _OURS)


@dataclass(frozen=True, slots=True)
class Head:
    """A response up to its blank line. status is 0 where there was no status line. fields: lower-case names."""

    version: bytes
    status: int
    fields: tuple[tuple[bytes, bytes], ...]

    def last(self, name: bytes) -> bytes:
        """The value of the last header of this name, b"" if there is none (section 6.1)."""
        return next((value for key, value in reversed(self.fields) if key == name), b"")


def head_end(data: bytes | bytearray, searched: int = 0) -> int | None:
    """Where the blank line ends, None while it has not come. searched: octets that were looked at before."""
    found = _BLANK_LINE.search(data, max(0, searched - 2))
    return found.end() if found else None


def read_head(data: bytes) -> Head:
    """The lines of a response up to and including the blank one. Raises WireError.

    As nginx: a first line that does not begin with "HTTP/" is a header already, lines end with CRLF or LF,
    and a line without a colon is a header with an empty value. Unlike nginx, whatever is wrong with a header
    that is none of ours is not our business.
    """
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if any(b"\r" in line for line in lines):
        raise WireError("a CR without LF in the header")
    version, status = b"", 0
    if lines[0].startswith(b"HTTP/"):
        if match := _STATUS_LINE.fullmatch(lines[0]):
            version, status = match[1], int(match[2])
        del lines[0]
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        if not line:
            continue
        if line[:1] in (b" ", b"\t"):
            if not fields or fields[-1][0] in _OURS:
                raise WireError("a folded header line; expected Name: value")
            continue
        name, _, value = line.partition(b":")
        fields.append((_name(name), value.strip(b" ")))
    return Head(version, status, tuple(fields))


def _name(raw: bytes) -> bytes:
    """The header's name in lower case. Raises WireError for one that only resembles ours ("Auth_Status").

    Ignored, it would turn a refusal into the missing status that means OK.
    """
    name = raw.lower()
    if name not in _OURS and _NOT_ALNUM.sub(b"", name) in _OURS_SQUASHED:
        raise WireError(f"header name {_shown(raw)}; expected letters and hyphens as in Auth-Status")
    return name


def body_length(head: Head) -> int | None:
    """Octets of body after which the connection may be used again; None if it must be closed.

    Only what needs no thought: HTTP/1.1, a plain Content-Length of at most MAX_BODY, no word of closing.
    """
    names = [name for name, _ in head.fields]
    if head.version != b"1" or head.status < 200 or b"transfer-encoding" in names:
        return None
    if b"close" in head.last(b"connection").lower():
        return None
    if head.status in (204, 304):
        return 0
    length = head.last(b"content-length")
    if names.count(b"content-length") != 1 or len(length) > len(str(MAX_BODY)) or not _DIGITS.fullmatch(length):
        return None
    return int(length) if int(length) <= MAX_BODY else None


# --- the answer ---

_CODE: Final = re.compile(rb"[45][0-9]{2}( [45]\.[0-9]{1,3}\.[0-9]{1,3})?")
_STATUS_TEXT: Final = re.compile(rb"[ -~]{1,%d}" % MAX_TEXT)
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_NAME: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def read_answer(head: Head) -> AuthAnswer:
    """What the response says (section 6). Raises WireError; never returns an AuthUnavailable.

    The status code counts for nothing. A failure's text wins over WAIT, and WAIT over an address, whatever
    the order of the headers. No Auth-Status, or an empty one, is OK: then an address or a pool must be there.
    """
    statuses = [value for name, value in head.fields if name == b"auth-status"]
    failures = [value for value in statuses if value not in (b"", b"OK", b"WAIT")]
    wait = _seconds(head.last(b"auth-wait"), MAX_WAIT)
    if failures:
        code, text = head.last(b"auth-error-code"), failures[-1]
        return AuthRefused(
            code=code.decode("ascii") if _CODE.fullmatch(code) else DEFAULT_CODE,
            text=text.decode("ascii") if _STATUS_TEXT.fullmatch(text) else DEFAULT_TEXT,
            wait=wait,
        )
    if b"WAIT" in statuses:
        # Without a wait nginx asks again at full speed, for ever (section 6.3).
        user, password = head.last(b"auth-user"), head.last(b"auth-pass")
        return AuthWait(wait=max(1.0, wait), user=user or None, password=password or None)
    return _granted(head)


def read_lifetime(head: Head) -> float:
    """Auth-Cache: for how many seconds this answer may be given again to the same credentials. 0: not at all."""
    return _seconds(head.last(b"auth-cache"), MAX_LIFETIME)


def _granted(head: Head) -> AuthGranted:
    """Where a pool is named nobody looks at the address: it is for a stock nginx."""
    pool = _known_name(head, b"auth-pool", wildcard=OWN_ROUTES)
    return AuthGranted(
        user=_user(head.last(b"auth-user")),
        password=head.last(b"auth-pass") or None,
        server=None if pool is not None else _server(head),
        pool=None if pool == OWN_ROUTES.decode() else pool,
        own_routes=pool == OWN_ROUTES.decode(),
        plan=_known_name(head, b"auth-plan"),
    )


def _seconds(value: bytes, most: int) -> float:
    """Digits only, anything else is 0, as nginx reads Auth-Wait."""
    if not _DIGITS.fullmatch(value):
        return 0.0
    # int() refuses thousands of digits; nine suffice to be beyond any bound.
    digits = value.lstrip(b"0")
    return float(min(int(digits or b"0"), most) if len(digits) < 9 else most)


def _user(value: bytes) -> str | None:
    if not value:
        return None
    try:
        user = value.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("Auth-User is not UTF-8") from None
    if len(value) > MAX_USER or not user.isprintable():
        raise WireError(f"Auth-User; expected at most {MAX_USER} printable octets")
    return user


def _known_name(head: Head, header: bytes, wildcard: bytes | None = None) -> str | None:
    value = head.last(header)
    if not value:
        return None
    if value != wildcard and not _NAME.fullmatch(value):
        raise WireError(f"{header.decode().title()} {_shown(value)}; expected 1 to 64 of A-Z a-z 0-9 . _ -")
    return value.decode("ascii")


def _server(head: Head) -> tuple[str, int]:
    """Auth-Server and Auth-Port: a literal address and a decimal port, as nginx wants them.

    A name is refused: who answers a name is for the service to say, not for whoever answers our DNS.
    """
    address, port = head.last(b"auth-server"), head.last(b"auth-port")
    if not address or not port:
        status = f"HTTP {head.status} " if head.status else ""
        raise WireError(f"{status}without Auth-Server and Auth-Port, or Auth-Pool")
    try:
        if b"%" in address:  # ipaddress would take anything as a zone
            raise ValueError
        host = str(ipaddress.ip_address(address.decode("ascii")))
    except ValueError:
        raise WireError(
            f"Auth-Server {_shown(address)}; expected an address such as 192.0.2.1 or 2001:db8::1"
        ) from None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise WireError(f"Auth-Port {_shown(port)}; expected 1 to 65535")
    return host, int(port)


def _shown(value: bytes) -> str:
    """A value for the log, short and escaped."""
    return repr(value[:64])[1:]
