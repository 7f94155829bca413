"""Types of conf/authsvc.yaml's values beyond smtpgate.units: paths, texts that may be secret, secrets in files.

Owns how they are checked and what a message says of them. Each is a pydantic validator; relative paths are relative
to the folder of the file, which is `folder` in the validation's context. Refuses to know keys.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from pydantic import PlainValidator, ValidationInfo

from smtpgate.units import InvalidValue, format_duration, parse_duration

# Octets of a file with one secret. A token or a pass phrase has less.
MAX_SECRET: Final = 4096

VISIBLE = re.compile(r"[!-~]{1,256}")


def is_loopback(host: str) -> bool:
    """Whether a host of a URL or of `bind` is this machine."""
    try:
        return ipaddress.ip_address(plain_address(host)).is_loopback
    except ValueError:
        return host == "localhost"


def plain_address(host: str) -> str:
    """A textual address; that of an IPv4 client as a socket for both families tells it, ::ffff:192.0.2.1, as what it
    is (RFC 4291 section 2.5.5.2). Raises ValueError for what is none.
    """
    address = ipaddress.ip_address(host)
    return str((address.version == 6 and address.ipv4_mapped) or address)


def folder_of(info: ValidationInfo) -> Path:
    """The folder that relative paths start from."""
    return cast(Mapping[str, Path], info.context)["folder"]


def path_field(is_there: Callable[[Path], bool], message: str, expected: str) -> PlainValidator:
    """Text -> a path that must be there. message, expected: for one that is not."""

    def check(value: Any, info: ValidationInfo) -> Path:
        return _path(value, info, is_there, message, expected)

    return PlainValidator(check)


def text_field(pattern: re.Pattern[str], message: str, expected: str) -> PlainValidator:
    """Text that a message does not show: it may hold a secret."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvalidValue(message, expected)
        return value

    return PlainValidator(check)


def secret_file_field(pattern: re.Pattern[str], message: str, expected: str) -> PlainValidator:
    """The path of a file -> the secret on its only line. pattern, message, expected: what it must look like."""

    def check(value: Any, info: ValidationInfo) -> str:
        path = _path(value, info, Path.is_file, "is not a file that is there", "a file with one line, the secret")
        try:
            with path.open("rb") as file:
                octets = file.read(MAX_SECRET + 1)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InvalidValue(f"cannot be read: {reason}", "a file that this user may read", value=value) from None
        text = octets.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
        if not pattern.fullmatch(text):
            raise InvalidValue(f"its file {message}", expected)
        return text

    return PlainValidator(check)


def duration_field(at_most: float) -> PlainValidator:
    """`30s` -> seconds, within a bound."""

    def check(value: Any) -> float:
        seconds = parse_duration(value)
        if seconds > at_most:
            raise InvalidValue("is too long", f"at most {format_duration(at_most)}", value=value)
        return seconds

    return PlainValidator(check)


def _path(value: Any, info: ValidationInfo, is_there: Callable[[Path], bool], message: str, expected: str) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidValue("is not a path", expected, value=value)
    path = folder_of(info) / value
    if not is_there(path):
        raise InvalidValue(message, expected, value=value)
    return path
