"""SASL exchanges of AUTH (RFC 4954), the server's side, as generators.

Owns what each mechanism asks and how an answer is taken apart. Refuses to know base64, reply codes, or
whether a password is right: `server` unwraps the lines, the auth service judges.

An exchange is called with the decoded initial response (None: none was given, b"": the client sent "=") and
the salt of this connection. It yields challenges, is sent the client's decoded answers, and returns
Credentials:

    exchange = MECHANISMS["LOGIN"](initial, salt)
    try:
        challenge = next(exchange)
        while True:
            challenge = exchange.send(ask_the_client(challenge))
    except StopIteration as finished:
        credentials = finished.value

SaslError ends it at any step. Its reason never holds anything that the client sent.

The two mechanisms that show a bearer token have one more step when it is refused: `ERROR_CHALLENGES` holds what
the server then says, and whatever the client answers to it, the error reply follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

MAX_USER: Final = 255
"""Octets of a user name: RFC 4616 section 2 obliges a server to accept as many. No mailbox is longer."""

MAX_PASSWORD: Final = 2048
"""Octets of a password. RFC 4616 asks for 255. Percent-encoded at worst this is 6144 octets, below the 8190 that
gunicorn (limit_request_field_size) and Apache take in one header field of auth_http."""

MAX_TOKEN: Final = 8000
"""Octets of a bearer token. Nothing in one is escaped, so that it fits the same 8190 octets, and nginx's
large_client_header_buffers of 8 KiB. In base64, with a user, it fits RFC 4954's line of 12288."""

USERNAME_PROMPT: Final = b"Username:"
"""On the wire "334 VXNlcm5hbWU6": nginx's text, and what LOGIN clients know."""

PASSWORD_PROMPT: Final = b"Password:"
"""On the wire "334 UGFzc3dvcmQ6"."""

ERROR_CHALLENGES: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        # RFC 7628 section 3.2.2. Its scope and openid-configuration are optional; the proxy knows neither.
        "oauthbearer": b'{"status":"invalid_token"}',
        # Google's, developers.google.com/gmail/imap/xoauth2-protocol. 400 is what makes K-9 Mail, now Thunderbird
        # for Android, fetch a new token and try again; at any other status it gives up.
        "xoauth2": b'{"status":"400","schemes":"bearer","scope":"mail"}',
    }
)
"""By auth_http method: the challenge that tells a client that its token was refused. It answers with a lone
%x01 (RFC 7628 section 3.2.3), with nothing (XOAUTH2) or with "*"; all mean the same."""

_CRAM_DIGEST = re.compile(rb"[0-9a-fA-F]{32}")  # HMAC-MD5 in hexadecimal, RFC 2195 section 2
_HEX = re.compile(r"[0-9a-fA-F]+")
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")  # RFC 6750 section 2.1
# gs2-header of RFC 5801 section 4 without channel binding, then kvsep (RFC 7628 section 3.1). "F," is for
# mechanisms that are no GS2, "p=" asks for a binding that bearer tokens do not have.
_GS2_HEADER = re.compile(rb"[ny],(?:a=((?:[^\0\x01,=]|=2C|=3D)+))?,\x01")
_KVPAIR = re.compile(rb"([A-Za-z]+)=([\t\n\r -~]*)\x01")
_XOAUTH2 = re.compile(rb"user=([^\x01]*)\x01auth=([^\x01]*)\x01\x01")
_SERVER_NAME = re.compile(r"[!-;=?A-~]+")  # printable ASCII without "<", ">" and "@": the salt is a msg-id


class SaslError(Exception):
    """The client's part of an exchange is unusable. `reason` is for the log and holds no client data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims, in the terms of auth_http (reference/auth_http.md section 1).

    method: "plain" (also for LOGIN), "cram-md5", "external", "xoauth2", "oauthbearer". user: for oauthbearer it
    may be empty: the token then says who it is. password: for cram-md5 the digest in lower case, for external
    empty, for the last two the token. salt: the challenge of cram-md5, else None.
    """

    method: str
    user: bytes
    password: bytes = field(repr=False)
    salt: str | None = None


Exchange = Generator[bytes, bytes, Credentials]
Mechanism = Callable[[bytes | None, str], Exchange]


def plain(initial: bytes | None, salt: str) -> Exchange:
    """PLAIN (RFC 4616): [authzid] NUL authcid NUL passwd.

    The authzid is dropped, as nginx does: a client always acts as the user whose password it knows.
    """
    message = initial if initial is not None else (yield b"")
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise SaslError(f"PLAIN response with {len(parts) - 1} NUL octets, expected 2")
    return _password_credentials(user=parts[1], password=parts[2])


def login(initial: bytes | None, salt: str) -> Exchange:
    """LOGIN (draft-murchison-sasl-login): asks for user and password; an initial response is the user."""
    user = initial if initial is not None else (yield USERNAME_PROMPT)
    _check_user(user)
    password = yield PASSWORD_PROMPT
    return _password_credentials(user=user, password=password)


def cram_md5(initial: bytes | None, salt: str) -> Exchange:
    """CRAM-MD5 (RFC 2195): the challenge is the salt, the answer is user SP digest.

    Split at the last space: the digest cannot hold one, a user name can. nginx splits at the first and so
    refuses such users; for all others the two agree.
    """
    if initial is not None:
        raise SaslError("CRAM-MD5 with an initial response, which RFC 2195 does not know")
    response = yield salt.encode("ascii")
    user, space, digest = response.rpartition(b" ")
    if not space or _CRAM_DIGEST.fullmatch(digest) is None:
        raise SaslError("CRAM-MD5 response is not a user name, a space and 32 hexadecimal digits")
    _check_user(user)
    return Credentials("cram-md5", user, digest.lower(), salt)


def external(initial: bytes | None, salt: str) -> Exchange:
    """EXTERNAL (RFC 4422 appendix A): an authzid, empty for "the one that my certificate names".

    The challenge of the two-step form is nginx's; RFC 4422 leaves it empty, and clients do not look at it.
    """
    user = initial if initial is not None else (yield USERNAME_PROMPT)
    if user:
        _check_user(user)
    return Credentials("external", user, b"")


def xoauth2(initial: bytes | None, salt: str) -> Exchange:
    """XOAUTH2 (Google): "user=" user %x01 "auth=Bearer " token %x01 %x01."""
    match = _XOAUTH2.fullmatch(initial if initial is not None else (yield b""))
    if match is None:
        raise SaslError("XOAUTH2 response is not user=USER^Aauth=Bearer TOKEN^A^A")
    _check_user(match[1])
    return Credentials("xoauth2", match[1], _token(match[2]))


def oauthbearer(initial: bytes | None, salt: str) -> Exchange:
    """OAUTHBEARER (RFC 7628 section 3.1): gs2-header kvsep *kvpair kvsep, with the token in the pair "auth".

    The pairs host and port tell what the client thinks it is connected to; like unknown ones they are not looked
    at, a proxy has many names.
    """
    message = initial if initial is not None else (yield b"")
    header = _GS2_HEADER.match(message)
    if header is None:
        raise SaslError("OAUTHBEARER response does not begin with n,a=USER,^A")
    user = (header[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"=")
    if user:
        _check_user(user)
    at, tokens = header.end(), []
    while pair := _KVPAIR.match(message, at):
        at = pair.end()
        if pair[1].lower() == b"auth":
            tokens.append(pair[2])
    if message[at:] != b"\x01":
        raise SaslError("OAUTHBEARER response is not KEY=VALUE^A pairs with ^A behind them")
    if len(tokens) != 1:
        raise SaslError(f"OAUTHBEARER response with {len(tokens)} auth pairs, expected 1")
    return Credentials("oauthbearer", user, _token(tokens[0]))


MECHANISMS: Final[Mapping[str, Mechanism]] = MappingProxyType(
    {
        "PLAIN": plain,
        "LOGIN": login,
        "CRAM-MD5": cram_md5,
        "EXTERNAL": external,
        "XOAUTH2": xoauth2,
        "OAUTHBEARER": oauthbearer,
    }
)
"""By the name that AUTH takes, upper case, in the order in which EHLO names them: nginx's, then the tokens."""

TOKEN_MECHANISMS: Final = frozenset({"XOAUTH2", "OAUTHBEARER"})
"""Whoever overhears one of these has the token: RFC 7628 section 3 and RFC 6750 section 5.3 demand TLS."""

TLS_MECHANISMS: Final = TOKEN_MECHANISMS | {"EXTERNAL"}
"""Not to be offered where TLS can be had and is not up: EXTERNAL is about a certificate that TLS has shown."""


def cram_salt(token: str, now: float, server_name: str) -> str:
    """nginx's CRAM-MD5 challenge `<RANDOM.UNIXTIME@SERVER_NAME>`, decimal (auth_http.md section 3).

    token: random hexadecimal text (nginx draws 31 bits; 16 octets are better); now: Unix seconds. Raises
    ValueError where the result would not be a msg-id of RFC 2195.
    """
    if _HEX.fullmatch(token) is None:
        raise ValueError("salt token is not hexadecimal text")
    if _SERVER_NAME.fullmatch(server_name) is None:
        raise ValueError(f"server name {server_name!r} cannot stand in a salt, expected a host name")
    return f"<{int(token, 16)}.{int(now)}@{server_name}>"


def _password_credentials(*, user: bytes, password: bytes) -> Credentials:
    _check_user(user)
    if not password:
        raise SaslError("empty password")
    if b"\0" in password:
        raise SaslError("NUL octet in the password")
    if len(password) > MAX_PASSWORD:
        raise SaslError(f"password of {len(password)} octets, at most {MAX_PASSWORD} are taken")
    return Credentials("plain", user, password)


def _token(value: bytes) -> bytes:
    """The token of `Bearer TOKEN`."""
    match = _BEARER.fullmatch(value)
    if match is None:
        raise SaslError("auth is not Bearer and a token of RFC 6750")
    if len(match[1]) > MAX_TOKEN:
        raise SaslError(f"token of {len(match[1])} octets, at most {MAX_TOKEN} are taken")
    return match[1]


def _check_user(user: bytes) -> None:
    if not user:
        raise SaslError("empty user name")
    if b"\0" in user:
        raise SaslError("NUL octet in the user name")
    if len(user) > MAX_USER:
        raise SaslError(f"user name of {len(user)} octets, at most {MAX_USER} are taken")
