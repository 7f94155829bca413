"""The shape of policies/*.yaml, as far as limits go: keys, types, bounds. Names are resolved by `compile`.

Owns what an operator may write here; a key that is not listed is refused with its line. Every key may stand
in any file of the folder. Optional keys are told from absent ones by `model_fields_set`, never by None, so
that a key left empty by mistake is an error and not a default.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator

from smtpgate.policy.keys import EXPECTED_KEY
from smtpgate.policy.match import SET_TYPES
from smtpgate.units import (
    MAX_AMOUNT,
    InvalidValue,
    NameField,
    OneOrMany,
    Rate,
    StrictModel,
    parse_duration,
    parse_rate,
)

EXPECTED_RATE: Final = "a count and a period, e.g. 60/1m, 2000/1d"
# Seconds. RFC 5321 section 4.5.3.2 lets a client wait 5 minutes for most replies; Dovecot's penalty ends at
# 15 s.
MAX_DELAY: Final = 60.0


def _version(value: Any) -> int:
    if type(value) is not int or value != 1:
        raise InvalidValue("is not a version of the policy language", "1", value=value)
    return 1


def _mode(value: Any) -> str:
    if value != "enforce":
        raise InvalidValue("is not a mode of this version", "enforce", value=value)
    return "enforce"


def _count_rate(value: Any) -> Rate:
    try:
        rate = parse_rate(value)
    except InvalidValue as error:
        raise InvalidValue(error.message, EXPECTED_RATE, value=value) from None
    if rate.in_bytes:
        raise InvalidValue("counts bytes", EXPECTED_RATE, value=value)
    return rate


def _burst(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise InvalidValue("is not a burst", "a whole number from 1 on", value=value)
    if value > MAX_AMOUNT:
        raise InvalidValue("is too big", f"at most {MAX_AMOUNT}", value=value)
    return value


def _delay(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds > MAX_DELAY:
        raise InvalidValue("is longer than clients wait", f"at most {MAX_DELAY:.0f}s", value=value)
    return seconds


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0.0 < value <= 1.0:
        raise InvalidValue("is not a share", "a number above 0, at most 1", value=value)
    return float(value)


DelayField = Annotated[float, PlainValidator(_delay)]
Patterns = OneOrMany[str]


class MatchKeys(StrictModel):
    """`match`: the fields that the operator named are those of `model_fields_set`."""

    client: Patterns = Field(default_factory=list)
    listener: Patterns = Field(default_factory=list)
    tls: bool = False
    login: Patterns = Field(default_factory=list)
    method: Patterns = Field(default_factory=list)
    auth: bool = False
    user: Patterns = Field(default_factory=list)
    user_domain: Patterns = Field(default_factory=list)
    plan: Patterns = Field(default_factory=list)
    helo: Patterns = Field(default_factory=list)
    sender: Patterns = Field(default_factory=list)
    sender_domain: Patterns = Field(default_factory=list)
    rcpt: Patterns = Field(default_factory=list)
    rcpt_domain: Patterns = Field(default_factory=list)

    def spec(self) -> dict[str, list[str] | bool]:
        """The named fields with their patterns, in the order of this class."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class DenyKeys(StrictModel):
    """`deny`: what a refused client gets. reply: a name of `replies`, or a literal."""

    reply: str = Field(description='a name of replies, or a literal, e.g. "450 4.7.1 text"')
    close: bool = False
    delay: DelayField = 0.0
    max_delay: DelayField = 0.0


class LimitKeys(StrictModel):
    """One of `limits`. burst left out: one minute's worth of the rate, at most the rate's amount, at least
    1.
    """

    event: Literal["connect", "auth_fail", "mail", "rcpt"] = Field(description="connect, auth_fail, mail or rcpt")
    rate: Annotated[Rate, PlainValidator(_count_rate)] = Field(description=EXPECTED_RATE)
    burst: Annotated[int, PlainValidator(_burst)] = 1
    key: str = Field(description=EXPECTED_KEY)
    match: MatchKeys = MatchKeys()
    deny: DenyKeys = Field(description='e.g. {reply: "450 4.7.1 text"}')


class LimiterKeys(StrictModel):
    """`limiter`. local_share: the part of each rate and burst that one process allows while the store is
    away.
    """

    local_share: Annotated[float, PlainValidator(_share)] = 0.5


class PrefixKeys(StrictModel):
    """`ip_prefix`: bits of an address that make `{net}`."""

    v4: Annotated[int, Field(ge=8, le=32)] = 32
    v6: Annotated[int, Field(ge=16, le=128)] = 64


class SetKeys(StrictModel):
    """One of `sets`: exactly one of the three."""

    user: Patterns = Field(default_factory=list)
    domain: Patterns = Field(default_factory=list)
    cidr: Patterns = Field(default_factory=list)

    def types(self) -> list[str]:
        return [name for name in SET_TYPES if name in self.model_fields_set]


class PolicyKeys(StrictModel):
    """The top-level keys of a policies file that concern limits. version: in at least one file of the
    folder.
    """

    version: Annotated[int, PlainValidator(_version)] = 1
    mode: Annotated[str, PlainValidator(_mode)] = "enforce"
    limiter: LimiterKeys = LimiterKeys()
    ip_prefix: PrefixKeys = PrefixKeys()
    sets: dict[NameField, SetKeys] = Field(default_factory=dict)
    replies: dict[NameField, str] = Field(default_factory=dict)
    limits: dict[NameField, LimitKeys] = Field(default_factory=dict)
