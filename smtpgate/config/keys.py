"""The shape of conf/proxy.yaml: its top-level keys, their types, bounds and defaults.

`listeners`, `auth_http` and `backend` have modules of their own; what keys mean together is `build`'s.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from smtpgate.config.authhttp import AuthHttpKeys
from smtpgate.config.backend import BackendKeys
from smtpgate.config.listeners import ListenerKeys
from smtpgate.config.log import LogKeys
from smtpgate.config.paths import DirectoryField, StateField
from smtpgate.document.account import AccountName
from smtpgate.policy.storeuri import StoreField
from smtpgate.units import MAX_WORKERS, DurationField, EndpointField, HostnameField, StrictModel

MAX_LISTENERS: Final = 64
MAX_SESSIONS: Final = 1_000_000


class MetricsKeys(StrictModel):
    """`metrics`."""

    bind: Annotated[EndpointField, Field(description="e.g. 127.0.0.1:9125")]


class ProxyKeys(StrictModel):
    """The whole file. `auth_http`, `policies`, `state_dir` and `metrics` are None only where they are left out."""

    server_name: Annotated[HostnameField, Field(description="the proxy's name, e.g. mail.example.com")]
    user: AccountName | None = None
    group: AccountName | None = None
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    max_sessions: Annotated[int, Field(ge=1, le=MAX_SESSIONS)] = 10_000
    store: StoreField = "memory://"
    policies: DirectoryField | None = None
    state_dir: StateField | None = None
    auth_http: AuthHttpKeys | None = None
    backend: BackendKeys = BackendKeys()
    listeners: Annotated[
        list[ListenerKeys],
        Field(min_length=1, max_length=MAX_LISTENERS, description="e.g. [{name: mx, bind: 127.0.0.1:20025}]"),
    ]
    metrics: MetricsKeys | None = None
    log: LogKeys = LogKeys()
    graceful_timeout: DurationField = 30.0
