"""The shape of conf/proxy.yaml: keys, types, bounds, defaults.

Owns what one key may say, and that what this version cannot do is refused instead of ignored. What keys mean
together is `build`'s. Looks whether the files that are named are there and can be used; keeps nothing of them.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, model_validator

from smtpgate.policy.storeuri import StoreField
from smtpgate.routing.schema import Switch
from smtpgate.units import (
    EXPECTED_DURATION,
    MAX_WORKERS,
    CidrField,
    DurationField,
    EndpointField,
    HostnameField,
    InvalidValue,
    NameField,
    OneOrMany,
    StrictModel,
    format_duration,
    parse_duration,
    parse_endpoint,
)

MAX_LISTENERS: Final = 64
MAX_ERRORS: Final = 1000
MIN_LINE: Final = 512  # RFC 5321 section 4.5.3.1.4
MAX_LINE: Final = 65536
MAX_CAPABILITY: Final = 506  # RFC 5321 section 4.5.3.1.5: a reply line has 512 octets, "250-" and CRLF are six
MAX_URLS: Final = 8  # each has its part of auth_http's timeout
MAX_CACHE: Final = 3600.0  # Dovecot's auth_cache_ttl; for so long a changed password does not matter
MAX_HEADER: Final = 4096  # a quarter of what nginx and gunicorn take for all headers

NOT_SUPPORTED: Final = "is not supported by this version"
_MECHANISMS: Final = ("plain", "login", "cram-md5", "xoauth2", "oauthbearer", "none")
_LATER_MECHANISMS: Final = ("external",)  # with client certificates
# The proxy writes these lines itself, when they are true.
_OWN_CAPABILITIES: Final = frozenset({"AUTH", "STARTTLS"})
# Offering these makes clients send what the proxy refuses.
_NO_CAPABILITIES: Final = frozenset(
    {
        "ATRN",
        "BINARYMIME",
        "BURL",
        "DELIVERBY",
        "ETRN",
        "FUTURERELEASE",
        "MT-PRIORITY",
        "REQUIRETLS",
        "XCLIENT",
        "XFORWARD",
    }
)
# RFC 9110 sections 5.1 and 5.5, ASCII only; the names are those that frame the request or that auth_http owns.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HEADER_VALUE = re.compile(rf"[ -~]{{0,{MAX_HEADER}}}")
_OWN_HEADER = re.compile(
    r"host|connection|content-length|transfer-encoding|expect|upgrade|(?:auth|client)-.*", re.IGNORECASE
)
# RFC 5321 section 4.1.1.1, ehlo-line.
_CAPABILITY = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)((?: [!-~]+)*)")
_SIZE_PARAMETER = re.compile(r"(?: [0-9]{1,20})?")  # RFC 1870 section 4
_VISIBLE = re.compile(r"[!-~]+")


# --- values -------------------------------------------------------------------------------------------------


def _only(supported: object, expected: str) -> PlainValidator:
    """Takes nothing but `supported`: a key of the documented file that this version cannot act on."""

    def take(value: Any) -> Any:
        if type(value) is not type(supported) or value != supported:
            raise InvalidValue(NOT_SUPPORTED, expected, value=value)
        return value

    return PlainValidator(take)


def _zero(value: Any) -> float:
    if parse_duration(value) != 0:
        raise InvalidValue(NOT_SUPPORTED, "0s", value=value)
    return 0.0


def _timeout(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise InvalidValue("leaves no time", EXPECTED_DURATION, value=value)
    return seconds


def _url(value: Any) -> str:
    expected = "e.g. http://127.0.0.1:18080/auth, https://auth.example.com/, unix:/run/auth.sock:/auth"
    fault = InvalidValue("is not the URL of an auth_http service", expected)
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise fault
    try:
        if value.startswith("unix:"):
            path, _, uri = value.removeprefix("unix:").partition(":")
            parse_endpoint(f"unix:{path}")
            good = uri == "" or uri.startswith("/")
        else:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            good = good and "@" not in parts.netloc and "#" not in value
    except ValueError:
        raise fault from None
    if not good:
        raise fault
    return value


def _cache(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds > MAX_CACHE:
        raise InvalidValue("is too long", f"at most {format_duration(MAX_CACHE)}", value=value)
    return seconds


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidValue("is not a mapping", "e.g. {X-Auth-Key: secret}")
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidValue("is not a header's name", "e.g. X-Auth-Key", path=(name,))
        if _OWN_HEADER.fullmatch(name):
            raise InvalidValue("is a header that the proxy sends itself", "e.g. X-Auth-Key", path=(name,))
        if not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text):
            expected = f"at most {MAX_HEADER} printable ASCII characters, in quotes if they look like a number"
            raise InvalidValue("is not a header's value", expected, path=(name,))
    return value


def _mechanism(value: Any) -> str:
    choices = ", ".join(_MECHANISMS)
    if value in _LATER_MECHANISMS:
        raise InvalidValue(NOT_SUPPORTED, choices, value=value)
    if value not in _MECHANISMS:
        raise InvalidValue("is not a mechanism", choices, value=value)
    return str(value)


def _capability(value: Any) -> str:
    match = _CAPABILITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or len(match[0]) > MAX_CAPABILITY:
        raise InvalidValue("is not a line of EHLO's reply", 'e.g. "SIZE 10485760", 8BITMIME', value=value)
    keyword = match[1].upper()
    if keyword in _OWN_CAPABILITIES:
        raise InvalidValue("is announced by the proxy itself", "no such line", value=value)
    if keyword in _NO_CAPABILITIES:
        raise InvalidValue(NOT_SUPPORTED, "no such line", value=value)
    if keyword == "SIZE" and not _SIZE_PARAMETER.fullmatch(match[2]):
        raise InvalidValue("has no number of octets", "e.g. SIZE 10485760", value=value)
    return match[0]


def _distinct(values: list[str]) -> list[str]:
    """A mechanism, or a capability's keyword, may be there once."""
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if first.setdefault(value.partition(" ")[0].upper(), index) != index:
            raise InvalidValue("is listed twice", value=value, path=(index,))
    return values


def _file(value: Any, info: ValidationInfo) -> Path:
    path = _below_folder(value, info)
    if not path.is_file():
        raise InvalidValue(f"is not a file ({path})", "a PEM file", value=value)
    return path


def _directory(value: Any, info: ValidationInfo) -> Path:
    path = _below_folder(value, info)
    if not path.is_dir():
        raise InvalidValue(f"is not a folder ({path})", "a folder of *.yaml files", value=value)
    return path


def _below_folder(value: Any, info: ValidationInfo) -> Path:
    """A relative path is relative to the file that names it, whatever the working directory."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidValue("is not a path", "e.g. ../policies/", value=value)
    folder: Path = info.context["folder"] if info.context else Path()
    return folder / value


TimeoutField = Annotated[float, PlainValidator(_timeout)]
NotYetDelay = Annotated[float, PlainValidator(_zero)]
NotYetList = Annotated[list[str], _only([], "[]")]
NotYetOff = Annotated[str, _only("off", "off")]
MechanismField = Annotated[str, PlainValidator(_mechanism)]
CapabilityField = Annotated[str, PlainValidator(_capability)]
FileField = Annotated[Path, PlainValidator(_file)]
UrlField = Annotated[str, PlainValidator(_url)]


# --- the file as pydantic reads it --------------------------------------------------------------------------


class AuthHttpKeys(StrictModel):
    """`auth_http`."""

    url: Annotated[
        OneOrMany[UrlField],
        Field(min_length=1, max_length=MAX_URLS, description="e.g. http://127.0.0.1:18080/auth"),
    ]
    ca: FileField | None = None
    timeout: TimeoutField = 10.0
    headers: Annotated[dict[str, str], PlainValidator(_headers)] = Field(default_factory=dict)
    cache: Annotated[float, PlainValidator(_cache)] = 0.0
    pass_client_cert: Annotated[bool, _only(False, "false")] = False
    envelope: Literal["first", "every", "never"] = "first"

    @model_validator(mode="after")
    def _fits(self) -> AuthHttpKeys:
        if len(set(self.url)) < len(self.url):
            raise InvalidValue("is listed twice", "each server once", path=("url",))
        if self.ca is None:
            return self
        if not any(url.startswith("https:") for url in self.url):
            raise InvalidValue("is for https, and no url is", "an https:// url, or no ca", path=("ca",))
        try:
            # Only a look, as at certificates below.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self.ca)
        except ssl.SSLError:
            raise InvalidValue("holds no certificate", "a PEM file of certificates", path=("ca",)) from None
        except OSError as error:
            raise InvalidValue(f"cannot be read: {error.strerror}", "a readable file", path=("ca",)) from None
        return self


class BackendKeys(StrictModel):
    """`backend`: where no pool says otherwise."""

    xclient: Literal["auto", "on", "off"] = "auto"
    proxy_protocol: NotYetOff = "off"
    smtp_auth: Switch = False
    pass_error_message: Switch = False
    tls: NotYetOff = "off"
    allow: list[CidrField] = Field(default_factory=list)


class CertificateKeys(StrictModel):
    """One of `certificate`."""

    cert: Annotated[FileField, Field(description="a PEM file with the certificate chain")]
    key: Annotated[FileField, Field(description="a PEM file with the key")]

    @model_validator(mode="after")
    def _fits(self) -> CertificateKeys:
        # Only a look, so that --check and a reload find it, and not a worker. Without a terminal's passphrase.
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password=lambda: "")
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            reason = "they do not belong together" if mismatch else "one is not PEM, or the key has a passphrase"
            raise InvalidValue(f"cert and key cannot be used: {reason}", "a PEM chain and its key") from None
        except OSError as error:
            raise InvalidValue(f"cert or key cannot be read: {error.strerror}", "readable files") from None
        return self


class ListenerKeys(StrictModel):
    """One of `listeners`."""

    name: Annotated[NameField, Field(description="a name, e.g. submission")]
    bind: Annotated[OneOrMany[EndpointField], Field(min_length=1, description="e.g. 127.0.0.1:20025")]
    auth: Annotated[list[MechanismField], Field(min_length=1), AfterValidator(_distinct)] = Field(
        default_factory=lambda: ["plain", "login", "cram-md5"]
    )
    capabilities: Annotated[list[CapabilityField], AfterValidator(_distinct)] = Field(
        default_factory=lambda: ["SIZE 10485760", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN"]
    )
    tls: Literal["off", "starttls", "required", "implicit"] = "off"
    certificate: list[CertificateKeys] = Field(default_factory=list)
    client_certificate: NotYetOff = "off"
    proxy_protocol: NotYetList = Field(default_factory=list)
    greeting_delay: NotYetDelay = 0.0
    timeout: TimeoutField = 60.0
    idle_timeout: TimeoutField = 300.0
    bare_newline: Annotated[str, _only("reject", "reject")] = "reject"
    helo_required: Switch = False
    max_errors: Annotated[int, Field(ge=1, le=MAX_ERRORS)] = 5
    max_line: Annotated[int, Field(ge=MIN_LINE, le=MAX_LINE)] = 4096
    resolver: NotYetList = Field(default_factory=list)


class MetricsKeys(StrictModel):
    """`metrics`. Kept for the server of metrics; nothing listens there yet."""

    bind: Annotated[EndpointField, Field(description="e.g. 127.0.0.1:9125")]


class LogKeys(StrictModel):
    """`log`."""

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ProxyKeys(StrictModel):
    """The whole file. `auth_http`, `policies` and `metrics` are None only where they are left out."""

    server_name: Annotated[HostnameField, Field(description="the proxy's name, e.g. mail.example.com")]
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    store: StoreField = "memory://"
    policies: Annotated[Path | None, PlainValidator(_directory)] = None
    auth_http: AuthHttpKeys | None = None
    backend: BackendKeys = BackendKeys()
    listeners: Annotated[
        list[ListenerKeys],
        Field(min_length=1, max_length=MAX_LISTENERS, description="e.g. [{name: mx, bind: 127.0.0.1:20025}]"),
    ]
    metrics: MetricsKeys | None = None
    log: LogKeys = LogKeys()
    graceful_timeout: DurationField = 30.0
