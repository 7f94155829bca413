"""conf/authsvc.yaml -> frozen Config. Strict in the same way, and by the same loader, as conf/proxy.yaml.

Owns keys, defaults and bounds. Looks whether the files that are named are there; `startup` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, PlainValidator, model_validator

from authsvc.answer.contract import MAX_CACHE
from authsvc.console.settings import Console, ConsoleKeys, check_beside
from authsvc.fields import VISIBLE, duration_field, is_loopback, path_field, secret_file_field, text_field
from authsvc.metricsettings import MetricsKeys, MetricsSettings
from authsvc.metricsettings import check_beside as check_metrics_beside
from authsvc.proof.methods import MethodKeys, Methods
from authsvc.tls import Tls, TlsKeys
from authsvc.users.sources import CacheKeys, Caching, Source, SourcesField
from smtpgate import document
from smtpgate.document.account import Account, AccountName, account
from smtpgate.policy.storeuri import StoreField
from smtpgate.units import (
    MAX_WORKERS,
    DurationField,
    EndpointField,
    HostPort,
    InvalidValue,
    StrictModel,
    UnixPath,
    parse_hostname,
)

# RFC 9110 section 5.1, without what gunicorn drops from header names.
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
EXPECTED_VALUE: Final = "1 to 256 visible ASCII characters"
# 16 octets of base64 and more: nobody is to find the key from what the store holds.
_THROTTLE_KEY = re.compile(r"[!-~]{22,256}")
_EXPECTED_KEY: Final = "22 to 256 visible ASCII characters by chance, e.g. of `openssl rand -base64 32`"


@dataclass(frozen=True, slots=True)
class Secret:
    """A header that every request has to carry, the same as `auth_http.headers` of the proxy."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """failed_login_wait: seconds. store: a `limits` URI. policies: a folder. users: in the order in which they are
    asked. server_name: for {host} in replies; None is the name of the machine. throttle_key: for the MACs of wrong
    passwords; None where the nodes that share a store need not agree. auth_cache: seconds. probe: whether the
    pools' mail servers are probed from here. tls: None serves in clear.
    state_dir: where the last valid policies are kept, None for nowhere. account: whom workers become, None for who
    starts them. console: the operator's page, metrics: Prometheus'; None is off.
    """

    bind: HostPort | UnixPath
    workers: int
    store: str = field(repr=False)  # may hold a password
    policies: Path
    users: tuple[Source, ...]
    cache: Caching
    failed_login_wait: float
    secret: Secret | None
    log_format: str
    log_level: str
    methods: Methods = field(default_factory=Methods)
    server_name: str | None = None
    throttle_key: bytes | None = field(default=None, repr=False)
    auth_cache: int = 0
    probe: bool = False
    tls: Tls | None = None
    state_dir: Path | None = None
    log_decisions: bool = False
    account: Account | None = None
    console: Console | None = None
    metrics: MetricsSettings | None = None

    @property
    def is_open(self) -> bool:
        """Whether whoever can connect from another machine may try passwords."""
        kept = self.secret is not None or (self.tls is not None and self.tls.client_ca is not None)
        return isinstance(self.bind, HostPort) and not is_loopback(self.bind.host) and not kept


# --- the file as pydantic reads it --------------------------------------------------------------------------


def _may_be_a_folder(path: Path) -> bool:
    """What is not there is made when something is first written."""
    return next(one for one in (path, *path.parents) if one.exists() or one == one.parent).is_dir()


_Name = text_field(_HEADER, "is not a header's name", "letters, digits and -, e.g. X-Auth-Key")
_Value = text_field(VISIBLE, "is not a secret", EXPECTED_VALUE)
_ValueFile = secret_file_field(VISIBLE, "holds no secret", EXPECTED_VALUE)
_Key = text_field(_THROTTLE_KEY, "is not a key", _EXPECTED_KEY)
_KeyFile = secret_file_field(_THROTTLE_KEY, "holds no key", _EXPECTED_KEY)
_StateDir = path_field(
    _may_be_a_folder, "cannot be a folder: there is a file in its way", "a folder, or a path to one"
)
_Folder = path_field(Path.is_dir, "is not a folder that is there", "a folder of *.yaml files, e.g. ../policies/")


class _Secret(StrictModel):
    name: Annotated[str, _Name, Field(description="a header's name, e.g. X-Auth-Key")]
    value: Annotated[str | None, _Value] = None
    value_file: Annotated[str | None, _ValueFile] = None

    @model_validator(mode="after")
    def _has_one_value(self) -> _Secret:
        if (self.value is None) == (self.value_file is None):
            raise InvalidValue("has no secret" if self.value is None else "has two", "value or value_file")
        return self

    def secret(self) -> Secret:
        return Secret(self.name, self.value or self.value_file or "")


class _Log(StrictModel):
    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    decisions: bool = False


class _Keys(MethodKeys):
    server_name: Annotated[str | None, PlainValidator(parse_hostname)] = None
    bind: EndpointField = HostPort("127.0.0.1", 18080)
    user: AccountName | None = None
    group: AccountName | None = None
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    store: StoreField = "memory://"
    policies: Annotated[Path, _Folder, Field(description="a folder of *.yaml files, e.g. ../policies/")]
    state_dir: Annotated[Path | None, _StateDir] = None
    users: SourcesField
    cache: CacheKeys = CacheKeys()
    failed_login_wait: DurationField = 1.0
    throttle_key: Annotated[str | None, _Key] = None
    throttle_key_file: Annotated[str | None, _KeyFile] = None
    auth_cache: Annotated[float, duration_field(MAX_CACHE)] = 0.0
    probe: bool = False
    secret: _Secret | None = None
    tls: TlsKeys | None = None
    log: _Log = _Log()
    console: ConsoleKeys | None = None
    metrics: MetricsKeys | None = None

    @model_validator(mode="after")
    def _has_one_throttle_key(self) -> _Keys:
        if self.throttle_key is not None and self.throttle_key_file is not None:
            raise InvalidValue("stands beside throttle_key", "one of the two", path=("throttle_key_file",))
        return self

    @model_validator(mode="after")
    def _is_somebody(self) -> _Keys:
        account(self.user, self.group)
        return self

    @model_validator(mode="after")
    def _console_is_apart(self) -> _Keys:
        if self.console is not None:
            check_beside(self.console, self.bind, self.tls is not None)
        return self

    @model_validator(mode="after")
    def _metrics_are_apart(self) -> _Keys:
        if self.metrics is not None:
            console = None if self.console is None else self.console.bind
            check_metrics_beside(self.metrics, [("the service", self.bind), ("the console", console)])
        return self

    def key(self) -> bytes | None:
        key = self.throttle_key or self.throttle_key_file
        return None if key is None else key.encode("ascii")


def _given_by_systemd(environ: Mapping[str, str]) -> Path | None:
    """StateDirectory= (systemd.exec(5)): folders with a colon between them."""
    first = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in the file `path`. Raises DocumentError with every problem of it.

    Relative paths in it are relative to its folder. environ: for `${NAME}`, and what systemd says of a state_dir.
    """
    context = {"folder": path.parent}
    _, keys = document.read(document.read_file(path), _Keys, source=str(path), environ=environ, context=context)
    return Config(
        bind=keys.bind,
        workers=keys.workers,
        store=keys.store,
        policies=keys.policies,
        users=tuple(one.source(path.parent) for one in keys.users),
        cache=keys.cache.caching(),
        failed_login_wait=keys.failed_login_wait,
        secret=None if keys.secret is None else keys.secret.secret(),
        log_format=keys.log.format,
        log_level=keys.log.level,
        methods=keys.methods(),
        server_name=keys.server_name,
        throttle_key=keys.key(),
        # Auth-Cache has whole seconds.
        auth_cache=int(keys.auth_cache),
        probe=keys.probe,
        tls=None if keys.tls is None else keys.tls.tls(),
        state_dir=keys.state_dir or _given_by_systemd(environ),
        log_decisions=keys.log.decisions,
        account=account(keys.user, keys.group),
        console=None if keys.console is None else keys.console.console(),
        metrics=None if keys.metrics is None else keys.metrics.settings(),
    )
