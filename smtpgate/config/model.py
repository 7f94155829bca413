"""What conf/proxy.yaml says, as frozen values. Owns no behaviour; knows neither YAML nor pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from smtpgate.document.account import Account
from smtpgate.journal import Target
from smtpgate.routing.model import BackendSettings
from smtpgate.smtp.server import ServerSettings
from smtpgate.units import HostPort, Network, PeerNetwork, UnixPath

Envelope = Literal["first", "every", "never"]


@dataclass(frozen=True, slots=True)
class AuthHttpConfig:
    """urls: http://, https:// or unix:/path:/uri; a query may be a secret, as the headers' values are.

    timeout: seconds for a whole question. envelope: when listeners without AUTH ask for a recipient. cache: the
    longest that a grant is used again, in seconds. ca: PEM certificates to trust for https, None for the system's.
    certificate: shown to an https server that asks for one. pass_client_cert: the service is sent the certificates
    of clients.
    """

    urls: tuple[str, ...] = field(repr=False)
    timeout: float
    headers: Mapping[str, str] = field(repr=False)
    envelope: Envelope
    cache: float = 0.0
    ca: Path | None = None
    certificate: CertificateConfig | None = None
    pass_client_cert: bool = False


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """settings: where no pool says otherwise. allow: what an Auth-Server may name; empty is any."""

    settings: BackendSettings
    allow: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class CertificateConfig:
    """PEM files: the chain, and its key. password_file: a passphrase a line, of which one opens the key."""

    cert: Path
    key: Path
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsOptionsConfig:
    """minimum, maximum: "TLSv1.2" or "TLSv1.3". ciphers: of TLS 1.2; curve: of the key exchange; None is OpenSSL's
    choice. tickets: sessions may be resumed.
    """

    minimum: str = "TLSv1.2"
    maximum: str = "TLSv1.3"
    ciphers: str | None = None
    curve: str | None = None
    tickets: bool = True


@dataclass(frozen=True, slots=True)
class ClientCertificateConfig:
    """ca: who signs clients' certificates, PEM. crl: which of them are revoked."""

    mode: Literal["optional", "required"]
    ca: Path
    crl: Path | None = None


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """timeout: seconds from the greeting to a backend. idle_timeout: seconds from then on. learn_capabilities: what
    is offered follows the backends, protocol.capabilities are for the time before they were asked.

    client_certificate: None asks clients for none. proxy_protocol: from whom a PROXY header is demanded and believed;
    without any, connections begin without one. xclient: whose XCLIENT and XFORWARD are believed. greeting_delay:
    seconds. resolver: name servers that are asked for the client's name, resolver_timeout: seconds for each of two
    look-ups. auth_http, backend: of its own; None is the file's. soft_errors: from that invalid command on each reply
    to one waits error_delay seconds. min_data_rate: octets a second, 0 is any. max_sessions_per_ip,
    max_sessions_per_network: connections at once, of which 0 is any number; None is the usual one, and any from
    loopback addresses.
    """

    name: str
    binds: tuple[HostPort | UnixPath, ...]
    protocol: ServerSettings
    learn_capabilities: bool
    timeout: float
    idle_timeout: float
    certificates: tuple[CertificateConfig, ...]
    envelope: Envelope
    tls_options: TlsOptionsConfig = TlsOptionsConfig()
    client_certificate: ClientCertificateConfig | None = None
    proxy_protocol: tuple[PeerNetwork, ...] = ()
    xclient: tuple[PeerNetwork, ...] = ()
    greeting_delay: float = 0.0
    resolver: tuple[HostPort, ...] = ()
    resolver_timeout: float = 5.0
    auth_http: AuthHttpConfig | None = None
    backend: BackendConfig | None = None
    soft_errors: int = 3
    error_delay: float = 1.0
    min_data_rate: int = 500
    max_sessions_per_ip: int | None = None
    max_sessions_per_network: int | None = None


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """bind: where Prometheus finds them, by HTTP in clear."""

    bind: HostPort | UnixPath


@dataclass(frozen=True, slots=True)
class LogConfig:
    """level: the least that is written. decisions: write down each one, for `gatectl policy simulate`. to: where."""

    format: Literal["json", "text"]
    level: Literal["debug", "info", "warning", "error"]
    decisions: bool = False
    to: Target = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. store: a `limits` URI, which may hold a password. graceful_timeout: seconds for TERM.

    state_dir: where the last good policies are kept, if anywhere; made when they are first written. account: whom
    workers become, None for who starts them. max_sessions: of a worker.
    """

    server_name: str
    workers: int
    store: str = field(repr=False)
    policies: Path | None
    auth_http: AuthHttpConfig | None
    backend: BackendConfig
    listeners: tuple[ListenerConfig, ...]
    metrics: MetricsConfig | None
    log: LogConfig
    graceful_timeout: float
    state_dir: Path | None = None
    account: Account | None = None
    max_sessions: int = 10_000
