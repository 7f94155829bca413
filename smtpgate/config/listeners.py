"""`listeners:` of conf/proxy.yaml: where clients connect, how they are met, and whom to believe what about them.

Owns the keys of one listener, and turns them into a ListenerConfig. What listeners mean together, and with the rest
of the file, is `build`'s.
"""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, PlainValidator, Tag, model_validator

from smtpgate.config.authhttp import AuthHttpKeys
from smtpgate.config.backend import BackendKeys
from smtpgate.config.model import (
    CertificateConfig,
    ClientCertificateConfig,
    ListenerConfig,
    TlsOptionsConfig,
)
from smtpgate.config.paths import FileField
from smtpgate.config.pem import check_authorities, check_pair, check_revocations
from smtpgate.config.values import TimeoutField, duration_up_to, timeout_up_to
from smtpgate.routing.schema import Switch
from smtpgate.smtp.capabilities import MINIMUM
from smtpgate.smtp.server import ServerSettings
from smtpgate.units import (
    EndpointField,
    HostnameField,
    HostPort,
    InvalidValue,
    NameField,
    OneOrMany,
    PeerField,
    StrictModel,
    parse_hostport,
    parse_size,
)

MAX_ERRORS: Final = 1000
MAX_ERROR_DELAY: Final = 60.0  # a client waits 5 minutes for a reply (RFC 5321 section 4.5.3.2)
MAX_JUNK: Final = 100_000
MIN_RECIPIENTS: Final = 100  # RFC 5321 section 4.5.3.1.8
MAX_RECIPIENTS: Final = 100_000
MAX_DATA_RATE: Final = 1 << 20  # octets a second: above that a slow line is shut out, not a drip
MAX_CONNECTIONS: Final = 1_000_000
MIN_LINE: Final = 512  # RFC 5321 section 4.5.3.1.4
MAX_LINE: Final = 65536
MAX_CAPABILITY: Final = 506  # RFC 5321 section 4.5.3.1.5: a reply line has 512 octets, "250-" and CRLF are six
# A client waits 5 minutes for its greeting (RFC 5321 section 4.5.3.2.1). These and a handshake of 30 s stay below.
MAX_GREETING_DELAY: Final = 120.0
MAX_RESOLVER_TIMEOUT: Final = 60.0  # each of two look-ups
MAX_RESOLVERS: Final = 8
DNS_PORT: Final = 53

_MECHANISMS: Final = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer", "none")
_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
# The proxy writes these lines itself, when they are true.
_OWN_CAPABILITIES: Final = frozenset({"AUTH", "STARTTLS", "XCLIENT", "XFORWARD"})
# Offering these makes clients send what the proxy refuses.
_NO_CAPABILITIES: Final = frozenset(
    {"ATRN", "BINARYMIME", "BURL", "DELIVERBY", "ETRN", "FUTURERELEASE", "MT-PRIORITY", "REQUIRETLS"}
)
# RFC 5321 section 4.1.1.1, ehlo-line.
_CAPABILITY = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)((?: [!-~]+)*)")
_SIZE_PARAMETER = re.compile(r"(?: [0-9]{1,20})?")  # RFC 1870 section 4


# --- values -------------------------------------------------------------------------------------------------


def _mechanism(value: Any) -> str:
    if value not in _MECHANISMS:
        raise InvalidValue("is not a mechanism", ", ".join(_MECHANISMS), value=value)
    return str(value)


def _capability(value: Any) -> str:
    match = _CAPABILITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or len(match[0]) > MAX_CAPABILITY:
        raise InvalidValue("is not a line of EHLO's reply", 'e.g. "SIZE 10485760", 8BITMIME', value=value)
    keyword = match[1].upper()
    if keyword == "AUTO":
        raise InvalidValue("stands in no list", "capabilities: auto", value=value)
    if keyword in _OWN_CAPABILITIES:
        raise InvalidValue("is announced by the proxy itself", "no such line", value=value)
    if keyword in _NO_CAPABILITIES:
        raise InvalidValue("is not supported by this version", "no such line", value=value)
    if keyword == "SIZE" and not _SIZE_PARAMETER.fullmatch(match[2]):
        raise InvalidValue("has no number of octets", "e.g. SIZE 10485760", value=value)
    return match[0]


def _lines_or_auto(value: Any) -> str:
    return "auto" if value == "auto" else "lines"


def _distinct(values: list[str]) -> list[str]:
    """A mechanism, or a capability's keyword, may be there once."""
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if first.setdefault(value.partition(" ")[0].upper(), index) != index:
            raise InvalidValue("is listed twice", value=value, path=(index,))
    return values


def _line(value: Any) -> int:
    octets = parse_size(value)
    if octets < MIN_LINE:
        raise InvalidValue("is too small", f"at least {MIN_LINE}", value=value)
    if octets > MAX_LINE:
        raise InvalidValue("is too big", f"at most {MAX_LINE}", value=value)
    return octets


def _name_server(value: Any) -> HostPort:
    """`192.0.2.1`, `2001:db8::1`, or with a port, `[2001:db8::1]:5353`. Names are what it is there to tell."""
    try:
        if isinstance(value, str):  # ip_address(53) is 0.0.0.53
            return HostPort(str(ip_address(value)), DNS_PORT)
    except ValueError:
        pass
    try:
        found = parse_hostport(value)
        return HostPort(str(ip_address(found.host)), found.port)
    except ValueError:
        expected = "e.g. 127.0.0.53, 2001:db8::53, 127.0.0.1:5353, [::1]:5353"
        raise InvalidValue("is not the address of a name server", expected, value=value) from None


def _off_or_mapping(value: Any) -> str:
    return "long" if isinstance(value, dict) else "short"


def _off(value: Any) -> Literal["off"]:
    if value is False or value == "off":
        return "off"
    expected = "off, or {mode: optional | required, ca: ca.pem}"
    raise InvalidValue("says not whom to believe", expected, value=value)


MechanismField = Annotated[str, PlainValidator(_mechanism)]
CapabilityField = Annotated[str, PlainValidator(_capability)]
NameServerField = Annotated[HostPort, PlainValidator(_name_server)]


# --- the keys -----------------------------------------------------------------------------------------------


class CertificateKeys(StrictModel):
    """One of `certificate`."""

    cert: Annotated[FileField, Field(description="a PEM file with the certificate chain")]
    key: Annotated[FileField, Field(description="a PEM file with the key")]
    password_file: FileField | None = None

    @model_validator(mode="after")
    def _fits(self) -> CertificateKeys:
        check_pair(self.cert, self.key, passwords=self.password_file)
        return self


class TlsOptionsKeys(StrictModel):
    """`tls_options`: OpenSSL's names."""

    versions: Annotated[list[Literal["TLSv1.2", "TLSv1.3"]], Field(min_length=1), AfterValidator(_distinct)] = Field(
        default_factory=lambda: list(_VERSIONS)  # type: ignore[arg-type] # mypy widens the literals to str
    )
    ciphers: str | None = None
    curve: str | None = None
    tickets: Switch = True

    @model_validator(mode="after")
    def _known(self) -> TlsOptionsKeys:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            if self.ciphers is not None:
                context.set_ciphers(self.ciphers)
        except (ValueError, ssl.SSLError):  # ValueError: a NUL, half of a surrogate pair
            expected = "OpenSSL's list, e.g. ECDHE+AESGCM:ECDHE+CHACHA20 (TLSv1.3 has its own)"
            raise InvalidValue("selects no cipher", expected, value=self.ciphers, path=("ciphers",)) from None
        try:
            if self.curve is not None:
                context.set_ecdh_curve(self.curve)
        except (ValueError, ssl.SSLError):
            expected = "e.g. X25519, prime256v1, secp384r1"
            raise InvalidValue("is no curve of OpenSSL", expected, value=self.curve, path=("curve",)) from None
        return self

    def config(self) -> TlsOptionsConfig:
        return TlsOptionsConfig(min(self.versions), max(self.versions), self.ciphers, self.curve, self.tickets)


class ClientCertificateKeys(StrictModel):
    """`client_certificate` as a mapping. ca: who signs clients' certificates; crl: which ones are revoked."""

    mode: Annotated[Literal["optional", "required"], Field(description="optional or required")]
    ca: Annotated[FileField, Field(description="a PEM file of the certificates that sign clients' ones")]
    crl: FileField | None = None

    @model_validator(mode="after")
    def _fits(self) -> ClientCertificateKeys:
        check_authorities(self.ca, ("ca",))
        if self.crl is not None:
            check_revocations(self.crl, ("crl",))
        return self


class ListenerKeys(StrictModel):
    """One of `listeners`."""

    name: Annotated[NameField, Field(description="a name, e.g. submission")]
    bind: Annotated[OneOrMany[EndpointField], Field(min_length=1, description="e.g. 127.0.0.1:20025")]
    server_name: HostnameField | None = None
    auth: Annotated[list[MechanismField], Field(min_length=1), AfterValidator(_distinct)] = Field(
        default_factory=lambda: ["plain", "login", "cram-md5"]
    )
    capabilities: Annotated[
        Annotated[Literal["auto"], Tag("auto")]
        | Annotated[list[CapabilityField], AfterValidator(_distinct), Tag("lines")],
        Discriminator(_lines_or_auto),
    ] = Field(default_factory=lambda: ["SIZE 10485760", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN"])
    tls: Literal["off", "starttls", "required", "implicit"] = "off"
    certificate: list[CertificateKeys] = Field(default_factory=list)
    tls_options: TlsOptionsKeys = TlsOptionsKeys()
    client_certificate: Annotated[
        Annotated[Literal["off"], PlainValidator(_off), Tag("short")] | Annotated[ClientCertificateKeys, Tag("long")],
        Discriminator(_off_or_mapping),
    ] = "off"
    proxy_protocol: list[PeerField] = Field(default_factory=list)
    xclient: list[PeerField] = Field(default_factory=list)
    greeting_delay: Annotated[float, duration_up_to(MAX_GREETING_DELAY)] = 0.0
    timeout: TimeoutField = 60.0
    idle_timeout: TimeoutField = 300.0
    bare_newline: Literal["reject", "normalize"] = "reject"
    helo_required: Switch = False
    max_errors: Annotated[int, Field(ge=1, le=MAX_ERRORS)] = 5
    soft_errors: Annotated[int, Field(ge=1, le=MAX_ERRORS)] = 3
    error_delay: Annotated[float, duration_up_to(MAX_ERROR_DELAY)] = 1.0
    max_junk: Annotated[int, Field(ge=1, le=MAX_JUNK)] = 100
    max_recipients: Annotated[int, Field(ge=MIN_RECIPIENTS, le=MAX_RECIPIENTS)] = 1000
    min_data_rate: Annotated[int, Field(ge=0, le=MAX_DATA_RATE)] = 500
    max_sessions_per_ip: Annotated[int | None, Field(ge=0, le=MAX_CONNECTIONS)] = None
    max_sessions_per_network: Annotated[int | None, Field(ge=0, le=MAX_CONNECTIONS)] = None
    max_line: Annotated[int, PlainValidator(_line)] = 4096
    resolver: Annotated[OneOrMany[NameServerField], Field(max_length=MAX_RESOLVERS)] = Field(default_factory=list)
    resolver_timeout: Annotated[float, timeout_up_to(MAX_RESOLVER_TIMEOUT)] = 5.0
    auth_http: AuthHttpKeys | None = None
    backend: BackendKeys | None = None

    def config(self, server_name: str, envelope: Literal["first", "every", "never"]) -> ListenerConfig:
        """server_name, envelope: the file's, for a listener that says nothing of its own."""
        client = self.client_certificate
        return ListenerConfig(
            name=self.name,
            binds=tuple(self.bind),
            protocol=ServerSettings(
                server_name=self.server_name or server_name,
                capabilities=MINIMUM if self.capabilities == "auto" else tuple(self.capabilities),
                mechanisms=tuple(name.upper() for name in self.auth if name != "none"),
                auth_required="none" not in self.auth,
                tls=self.tls,
                helo_required=self.helo_required,
                max_errors=self.max_errors,
                max_junk=self.max_junk,
                max_recipients=self.max_recipients,
                max_line=self.max_line,
                bare_newline=self.bare_newline,
            ),
            learn_capabilities=self.capabilities == "auto",
            timeout=self.timeout,
            idle_timeout=self.idle_timeout,
            certificates=tuple(
                CertificateConfig(pair.cert, pair.key, pair.password_file) for pair in self.certificate
            ),
            envelope=envelope if self.auth_http is None else self.auth_http.envelope,
            tls_options=self.tls_options.config(),
            client_certificate=None
            if not isinstance(client, ClientCertificateKeys)
            else ClientCertificateConfig(client.mode, client.ca, client.crl),
            proxy_protocol=tuple(self.proxy_protocol),
            xclient=tuple(self.xclient),
            greeting_delay=self.greeting_delay,
            resolver=tuple(self.resolver),
            resolver_timeout=self.resolver_timeout,
            auth_http=None if self.auth_http is None else self.auth_http.config(),
            backend=None if self.backend is None else self.backend.config(),
            soft_errors=self.soft_errors,
            error_delay=self.error_delay,
            min_data_rate=self.min_data_rate,
            max_sessions_per_ip=self.max_sessions_per_ip,
            max_sessions_per_network=self.max_sessions_per_network,
        )
