"""Forms of values that several parts of conf/proxy.yaml share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator

from smtpgate.units import EXPECTED_DURATION, MAX_DURATION, InvalidValue, format_duration, parse_duration


def duration_up_to(longest: float) -> PlainValidator:
    """A duration of at most `longest` seconds."""

    def read(value: Any) -> float:
        seconds = parse_duration(value)
        if seconds > longest:
            raise InvalidValue("is too long", f"at most {format_duration(longest)}", value=value)
        return seconds

    return PlainValidator(read)


def timeout_up_to(longest: float) -> PlainValidator:
    """A duration above zero, of at most `longest` seconds."""

    def read(value: Any) -> float:
        seconds = parse_duration(value)
        if seconds == 0:
            raise InvalidValue("leaves no time", EXPECTED_DURATION, value=value)
        if seconds > longest:
            raise InvalidValue("is too long", f"at most {format_duration(longest)}", value=value)
        return seconds

    return PlainValidator(read)


TimeoutField = Annotated[float, timeout_up_to(MAX_DURATION)]
