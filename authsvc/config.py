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

from authsvc.fields import VISIBLE, path_field, secret_file_field, text_field
from authsvc.methods import MethodKeys, Methods
from authsvc.sources import CacheKeys, Caching, Source, SourcesField
from smtpgate import document
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


@dataclass(frozen=True, slots=True)
class Secret:
    """A header that every request has to carry, the same as `auth_http.headers` of the proxy."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """failed_login_wait: seconds. store: a `limits` URI. policies: a folder. users: in the order in which they are
    asked. server_name: for {host} in replies; None is the name of the machine.
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


# --- the file as pydantic reads it --------------------------------------------------------------------------


_Name = text_field(_HEADER, "is not a header's name", "letters, digits and -, e.g. X-Auth-Key")
_Value = text_field(VISIBLE, "is not a secret", EXPECTED_VALUE)
_ValueFile = secret_file_field(VISIBLE, "holds no secret", EXPECTED_VALUE)
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


class _Keys(MethodKeys):
    server_name: Annotated[str | None, PlainValidator(parse_hostname)] = None
    bind: EndpointField = HostPort("127.0.0.1", 18080)
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    store: StoreField = "memory://"
    policies: Annotated[Path, _Folder, Field(description="a folder of *.yaml files, e.g. ../policies/")]
    users: SourcesField
    cache: CacheKeys = CacheKeys()
    failed_login_wait: DurationField = 1.0
    secret: _Secret | None = None
    log: _Log = _Log()


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in the file `path`. Raises DocumentError with every problem of it.

    Relative paths in it are relative to its folder. environ: for `${NAME}`.
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
    )
