"""Which ways to log in the service offers, and their settings: frozen values, and the keys of conf/authsvc.yaml.

Owns the keys `argon2id`, `remember`, `plain_passwords`, `external`, `ports`, `auth_pass` and `oauth`, their defaults
and bounds.
Refuses to know how a login is proven (`service`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import argon2
from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, model_validator

from authsvc.answer.contract import MAX_PASS, is_sendable_password
from authsvc.fields import duration_field, folder_of, is_loopback, secret_file_field, text_field
from authsvc.proof.passwords import PROFILE
from authsvc.proof.schemes import MAX_ARGON2_KIB, MAX_ARGON2_WORK
from smtpgate.units import InvalidValue, SizeField, StrictModel

# Seconds. Dovecot's auth_cache_ttl, the like of it, is 1 h; a password that leaked and was changed in a store that
# caches nothing is forgotten at once in any case.
MAX_REMEMBER: Final = 3600.0
DEFAULT_REMEMBER: Final = 300.0
# RFC 8314 section 7: nginx talks to backends in clear, so these are the ports without implicit TLS.
DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"pop3": 110, "imap": 143})
MAX_AUDIENCES: Final = 16
# Threads of one computation. RFC 9106 section 4 recommends 4; libargon2 takes 2**24.
MAX_LANES: Final = 64

# RFC 7518 section 3.1 and RFC 9864, without HMAC, which an issuer cannot share with everybody, and without "none".
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class OAuth:
    """issuer, audiences: what `iss` must be, and one of what `aud` must be. keys: a JWKS file, or its URL.
    user_claim: the claim that names the user.
    """

    issuer: str
    audiences: tuple[str, ...]
    keys: Path | str
    user_claim: str = "email"
    algorithms: tuple[str, ...] = ("RS256", "ES256")


@dataclass(frozen=True, slots=True)
class AuthPass:
    """What nginx logs in to a backend with where the client showed no password. secret: one for all users, for a
    backend that trusts whoever has it; None for the user's own {PLAIN}. protocols: for which.
    """

    secret: str | None = field(default=None, repr=False)
    protocols: frozenset[str] = frozenset({"pop3", "imap"})


@dataclass(frozen=True, slots=True)
class Methods:
    """remember: seconds for which a right password is remembered, 0 for none. plain_passwords: whether {PLAIN} is a
    stored form that proves anything; apop needs it. external: the field of a certificate's subject that names the
    user. ports: of the backends, for the protocols that are not SMTP. argon2id: what new stored forms cost, and a
    refusal.
    """

    argon2id: argon2.Parameters = field(default_factory=lambda: PROFILE)
    remember: float = DEFAULT_REMEMBER
    plain_passwords: bool = False
    external: str = "CN"
    ports: Mapping[str, int] = field(default_factory=lambda: DEFAULT_PORTS)
    auth_pass: AuthPass | None = None
    oauth: OAuth | None = None


# --- the keys as pydantic reads them ------------------------------------------------------------------------

_EXPECTED_PASS: Final = f"1 to {MAX_PASS} octets without controls, no space at its ends"
_PASS = re.compile(rf"[^\x00-\x1f\x7f]{{1,{MAX_PASS}}}")
_URI = re.compile(r"[!-~]{1,512}")
_CLAIM = re.compile(r"[!-~]{1,128}")
_MAX_URL: Final = 1000
_EXPECTED_KEYS: Final = "a JWKS file, e.g. jwks.json, or its URL, e.g. https://login.example.com/jwks"

_Issuer = text_field(_URI, "is not an issuer", "the text of iss, e.g. https://login.example.com/")
_Audience = text_field(_URI, "is not an audience", "the text of aud, e.g. mail.example.com")
_Claim = text_field(_CLAIM, "is not a claim's name", "e.g. email, preferred_username, sub")
_Secret = text_field(_PASS, "is not a password that can be sent", _EXPECTED_PASS)
_SecretFile = secret_file_field(_PASS, "holds no password that can be sent", _EXPECTED_PASS)
_Port = Annotated[int, Field(ge=1, le=65535)]


def _keys(value: Any, info: ValidationInfo) -> Path | str:
    if not isinstance(value, str) or not value or "\0" in value or len(value) > _MAX_URL:
        raise InvalidValue("names no keys", _EXPECTED_KEYS, value=value)
    if "://" in value:
        return _url(value)
    path = folder_of(info) / value
    if not path.is_file():
        raise InvalidValue("is not a file that is there", _EXPECTED_KEYS, value=value)
    return path


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or not _URI.fullmatch(value) or parts.scheme not in ("http", "https") or parts.username is not None:
        raise InvalidValue("is not a URL of keys", _EXPECTED_KEYS, value=value)
    if parts.scheme == "http" and not is_loopback(host):
        raise InvalidValue(
            "lets everyone on the way choose the keys", "https, or http to a loopback address", value=value
        )
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _OAuth(StrictModel):
    issuer: Annotated[str, _Issuer, Field(description="the text of iss, e.g. https://login.example.com/")]
    audience: Annotated[
        list[Annotated[str, _Audience]],
        BeforeValidator(_as_list),
        Field(min_length=1, max_length=MAX_AUDIENCES, description="the text of aud, or a list of them"),
    ]
    keys: Annotated[Path | str, PlainValidator(_keys), Field(description=_EXPECTED_KEYS)]
    user_claim: Annotated[str, _Claim] = "email"
    algorithms: Annotated[list[Algorithm], Field(min_length=1, default_factory=lambda: ["RS256", "ES256"])]

    def oauth(self) -> OAuth:
        return OAuth(self.issuer, tuple(self.audience), self.keys, self.user_claim, tuple(self.algorithms))


class _Argon2id(StrictModel):
    memory: SizeField = PROFILE.memory_cost * 1024
    passes: Annotated[int, Field(ge=1, le=MAX_ARGON2_WORK)] = PROFILE.time_cost
    lanes: Annotated[int, Field(ge=1, le=MAX_LANES)] = PROFILE.parallelism

    @model_validator(mode="after")
    def _can_be_paid(self) -> _Argon2id:
        most = min(MAX_ARGON2_KIB, MAX_ARGON2_WORK // self.passes)
        # RFC 9106 section 3.1: 8 blocks of 1 KiB a lane.
        if not 8 * self.lanes <= self.memory // 1024 <= most:
            raise InvalidValue(
                "is too little or too much for a login",
                f"{8 * self.lanes}KiB to {most}KiB with these passes and lanes",
                path=("memory",),
            )
        return self

    def parameters(self) -> argon2.Parameters:
        return replace(PROFILE, memory_cost=self.memory // 1024, time_cost=self.passes, parallelism=self.lanes)


class _External(StrictModel):
    field: Literal["CN", "emailAddress", "UID", "serialNumber"] = "CN"


class _Ports(StrictModel):
    pop3: _Port = DEFAULT_PORTS["pop3"]
    imap: _Port = DEFAULT_PORTS["imap"]


class _AuthPass(StrictModel):
    secret: Annotated[str | None, _Secret] = None
    secret_file: Annotated[str | None, _SecretFile] = None
    stored: bool = False
    protocols: Annotated[
        list[Literal["smtp", "pop3", "imap"]], Field(min_length=1, default_factory=lambda: ["pop3", "imap"])
    ]

    @model_validator(mode="after")
    def _has_one_source(self) -> _AuthPass:
        given = [self.secret is not None, self.secret_file is not None, self.stored].count(True)
        if given != 1:
            raise InvalidValue(
                "has no password" if given == 0 else "has more than one", "secret, secret_file or stored"
            )
        secret = self.secret or self.secret_file
        if secret is not None and not is_sendable_password(secret):
            raise InvalidValue("is not a password that can be sent", _EXPECTED_PASS)
        return self

    def auth_pass(self) -> AuthPass:
        return AuthPass(self.secret or self.secret_file, frozenset(self.protocols))


class MethodKeys(StrictModel):
    """A part of conf/authsvc.yaml, for the model of all of it to begin with."""

    argon2id: _Argon2id = _Argon2id()
    remember: Annotated[float, duration_field(MAX_REMEMBER)] = DEFAULT_REMEMBER
    plain_passwords: bool = False
    external: _External = _External()
    ports: _Ports = _Ports()
    auth_pass: _AuthPass | None = None
    oauth: _OAuth | None = None

    @model_validator(mode="after")
    def _stored_needs_plain(self) -> MethodKeys:
        if self.auth_pass is not None and self.auth_pass.stored and not self.plain_passwords:
            raise InvalidValue("has nothing to send", "plain_passwords: true beside it", path=("auth_pass", "stored"))
        return self

    def methods(self) -> Methods:
        return Methods(
            argon2id=self.argon2id.parameters(),
            remember=self.remember,
            plain_passwords=self.plain_passwords,
            external=self.external.field,
            ports=MappingProxyType({"pop3": self.ports.pop3, "imap": self.ports.imap}),
            auth_pass=None if self.auth_pass is None else self.auth_pass.auth_pass(),
            oauth=None if self.oauth is None else self.oauth.oauth(),
        )
