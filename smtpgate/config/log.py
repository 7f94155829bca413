"""`log:` of conf/proxy.yaml: which lines are written, in which form, and where.

Owns the keys and the forms of `to`: `stdout`, `{file: /var/log/smtpgate.log}`, `{syslog: local}`,
`{syslog: "udp:log.example.com:514"}` and their like.
"""

from __future__ import annotations

import os
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, ValidationInfo

from smtpgate.config.model import LogConfig
from smtpgate.config.paths import looked_at
from smtpgate.journal import FileTarget, SyslogTarget, Target
from smtpgate.routing.schema import Switch
from smtpgate.units import InvalidValue, StrictModel, UnixPath, parse_endpoint, parse_hostport

# Where syslogd and journald listen on this machine (syslog(3)).
LOCAL: Final = SyslogTarget("unix", "/dev/log")
EXPECTED_SYSLOG: Final = "local, unix:/path, udp:host:port or tcp:host:port"


def _log_file(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidValue("is not a path", "e.g. /var/log/smtpgate.log", value=value)
    path: Path = (info.context or {}).get("folder", Path()) / value
    folder = looked_at(path.is_dir, value)
    if folder or not looked_at(path.parent.is_dir, value):
        what = "is a folder" if folder else f"is in a folder that is not there ({path.parent})"
        raise InvalidValue(what, "a file in a folder that is there", value=value)
    # Whoever starts the proxy may be root; who writes may be another (`user`): this much can be said now.
    if looked_at(path.exists, value) and not os.access(path, os.W_OK):
        raise InvalidValue("may not be written", "a file that the proxy may write", value=value)
    return str(path)


def _syslog(value: Any) -> SyslogTarget:
    if value == "local":
        return LOCAL
    transport, _, address = value.partition(":") if isinstance(value, str) else ("", "", "")
    try:
        if transport == "unix":
            endpoint = parse_endpoint(value)
            assert isinstance(endpoint, UnixPath)
            return SyslogTarget("unix", endpoint.path)
        if transport in ("udp", "tcp"):
            server = parse_hostport(address)
            return SyslogTarget("udp" if transport == "udp" else "tcp", server.host, server.port)
    except InvalidValue as fault:
        raise InvalidValue(fault.message, EXPECTED_SYSLOG, value=value) from None
    raise InvalidValue("is not a syslog server", EXPECTED_SYSLOG, value=value)


def _facility(value: Any) -> str:
    if not isinstance(value, str) or value not in SysLogHandler.facility_names:
        raise InvalidValue("is not a facility", ", ".join(SysLogHandler.facility_names), value=value)
    return value


class FileKeys(StrictModel):
    """`to` as `{file: …}`."""

    file: Annotated[str, PlainValidator(_log_file), Field(description="e.g. /var/log/smtpgate.log")]


class SyslogKeys(StrictModel):
    """`to` as `{syslog: …}`."""

    syslog: Annotated[SyslogTarget, PlainValidator(_syslog), Field(description=EXPECTED_SYSLOG)]
    facility: Annotated[str, PlainValidator(_facility)] = "mail"


def _form(value: Any) -> str:
    if isinstance(value, dict):
        return "to syslog" if "syslog" in value else "to a file"
    return "a word"


def _not_a_list(value: Any) -> Any:
    if isinstance(value, list):
        raise InvalidValue("is a list", f"stdout, {{file: /path}} or {{syslog: {EXPECTED_SYSLOG}}}")
    return value


class LogKeys(StrictModel):
    """`log`."""

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    decisions: Switch = False
    # Tagged, by what is no key: each form's faults are told by themselves.
    to: Annotated[
        Annotated[Literal["stdout"], Tag("a word")]
        | Annotated[FileKeys, Tag("to a file")]
        | Annotated[SyslogKeys, Tag("to syslog")],
        Discriminator(_form),
        BeforeValidator(_not_a_list),
    ] = "stdout"

    def config(self) -> LogConfig:
        return LogConfig(self.format, self.level, self.decisions, self._target())

    def _target(self) -> Target:
        if isinstance(self.to, FileKeys):
            return FileTarget(self.to.file)
        if isinstance(self.to, SyslogKeys):
            named = self.to.syslog
            return SyslogTarget(named.transport, named.address, named.port, self.to.facility)
        return None
