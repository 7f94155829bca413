"""conf/authsvc.yaml -> frozen Config. Strict in the same way, and by the same loader, as conf/proxy.yaml.

Owns keys, defaults and bounds. Looks whether the files that are named are there; `startup` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, PlainValidator, ValidationInfo

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
_VISIBLE = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A header that every request has to carry, the same as `auth_http.headers` of the proxy."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """failed_login_wait: seconds. store: a `limits` URI. policies: a folder. users: a file. server_name: for {host}
    in replies; None is the name of the machine.
    """

    bind: HostPort | UnixPath
    workers: int
    store: str = field(repr=False)  # may hold a password
    policies: Path
    users: Path
    failed_login_wait: float
    secret: Secret | None
    log_format: str
    log_level: str
    server_name: str | None = None


# --- the file as pydantic reads it --------------------------------------------------------------------------


def _path(is_there: Callable[[Path], bool], message: str, expected: str) -> PlainValidator:
    """Text -> a path relative to the file's folder (in the context), which must be there."""

    def check(value: Any, info: ValidationInfo) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise InvalidValue("is not a path", expected, value=value)
        path = Path(cast(Mapping[str, Path], info.context)["folder"], value)
        if not is_there(path):
            raise InvalidValue(message, expected, value=value)
        return path

    return PlainValidator(check)


def _text(pattern: re.Pattern[str], message: str, expected: str) -> PlainValidator:
    """Text that a message does not show: it may hold a secret."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvalidValue(message, expected)
        return value

    return PlainValidator(check)


_Name = _text(_HEADER, "is not a header's name", "letters, digits and -, e.g. X-Auth-Key")
_Value = _text(_VISIBLE, "is not a secret", "1 to 256 visible ASCII characters")
_Folder = _path(Path.is_dir, "is not a folder that is there", "a folder of *.yaml files, e.g. ../policies/")
_File = _path(Path.is_file, "is not a file that is there", "a file of users, e.g. users.yaml")


class _Users(StrictModel):
    file: Annotated[Path, _File, Field(description="a file of users, e.g. users.yaml")]


class _Secret(StrictModel):
    name: Annotated[str, _Name, Field(description="a header's name, e.g. X-Auth-Key")]
    value: Annotated[str, _Value, Field(description="what the header must hold")]


class _Log(StrictModel):
    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class _Keys(StrictModel):
    server_name: Annotated[str | None, PlainValidator(parse_hostname)] = None
    bind: EndpointField = HostPort("127.0.0.1", 18080)
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    store: StoreField = "memory://"
    policies: Annotated[Path, _Folder, Field(description="a folder of *.yaml files, e.g. ../policies/")]
    users: Annotated[_Users, Field(description="{file: users.yaml}")]
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
        users=keys.users.file,
        failed_login_wait=keys.failed_login_wait,
        secret=None if keys.secret is None else Secret(keys.secret.name, keys.secret.value),
        log_format=keys.log.format,
        log_level=keys.log.level,
        server_name=keys.server_name,
    )
