"""PURE. Values as text on a page, in which nothing is invisible and nothing turns around what follows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup


def plain(value: Any) -> Any:
    """Text with what cannot be seen, or turns what follows around, as escapes: \\u202e. For all values on a page."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in value)


def moment(seconds: float) -> str:
    """Unix seconds -> 2026-11-22 23:45:10, in UTC as the log."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def size(octets: float) -> str:
    """About how much: 812 B, 1.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024 or unit == "GiB":
            break
        octets /= 1024
    return f"{octets:.3g} {unit}" if octets < 1000 else f"{octets:.0f} {unit}"
