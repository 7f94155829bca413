"""What conf/proxy.yaml says, as frozen values. Owns no behaviour; knows neither YAML nor pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from smtpgate.routing.model import BackendSettings
from smtpgate.smtp.server import ServerSettings
from smtpgate.units import HostPort, Network, UnixPath

Envelope = Literal["first", "every", "never"]


@dataclass(frozen=True, slots=True)
class AuthHttpConfig:
    """urls: http://, https:// or unix:/path:/uri; a query may be a secret, as the headers' values are.

    timeout: seconds for a whole question. envelope: when listeners without AUTH ask for a recipient. cache: the
    longest that a grant is used again, in seconds. ca: PEM certificates to trust for https, None for the system's.
    """

    urls: tuple[str, ...] = field(repr=False)
    timeout: float
    headers: Mapping[str, str] = field(repr=False)
    envelope: Envelope
    cache: float = 0.0
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """settings: where no pool says otherwise. allow: what an Auth-Server may name; empty is any."""

    settings: BackendSettings
    allow: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class CertificateConfig:
    """PEM files: the chain, and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """timeout: seconds from the greeting to a backend. idle_timeout: seconds from then on."""

    name: str
    binds: tuple[HostPort | UnixPath, ...]
    protocol: ServerSettings
    timeout: float
    idle_timeout: float
    certificates: tuple[CertificateConfig, ...]
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """bind: where metrics are to be served."""

    bind: HostPort | UnixPath


@dataclass(frozen=True, slots=True)
class LogConfig:
    """level: the least that is written."""

    format: Literal["json", "text"]
    level: Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. store: a `limits` URI, which may hold a password. graceful_timeout: seconds for TERM."""

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
