"""The shape of policies/*.yaml, as far as limits go: keys, types, bounds. Names are resolved by `compile`.

Owns what an operator may write here; a key that is not listed is refused with its line. Every key may stand
in any file of the folder. Optional keys are told from absent ones by `model_fields_set`, never by None, so
that a key left empty by mistake is an error and not a default.

The descriptions are shown by editors (policies/schema.json), and by messages about a key that is missing.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from smtpgate.policy.keys import EXPECTED_KEY, LEAST_V4_PREFIX, LEAST_V6_PREFIX
from smtpgate.policy.rules import Cost
from smtpgate.policy.sets import SET_TYPES
from smtpgate.policy.terms import Amount
from smtpgate.units import (
    DURATION_FORM,
    MAX_AMOUNT,
    SIZE_FORM,
    DurationField,
    InvalidValue,
    NameField,
    Rate,
    StrictModel,
    json_text,
    parse_duration,
    parse_rate,
    parse_size,
)

EXPECTED_RATE: Final = "a count and a period, e.g. 60/1m, 2000/1d"
EXPECTED_AMOUNT: Final = "a whole number from 1 on"
EXPECTED_COST: Final = "a number above 0, bytes, or recipients"
EXPECTED_UNTIL: Final = 'a date and time with its zone (RFC 3339), e.g. "2026-12-01T00:00:00Z"'
EXPECTED_CHANGE: Final = '"off", or the fields that change, e.g. {rate: 60/1m}'
# Seconds. RFC 5321 section 4.5.3.2 lets a client wait 5 minutes for most replies; Dovecot's penalty ends at
# 15 s.
MAX_DELAY: Final = 60.0
# Seconds for connect, and for a reply. Beyond it a store that is away keeps each session of the proxy waiting.
MAX_TIMEOUT: Final = 5.0
# Denials of one subject that are counted for `after`: beyond any client's patience.
MAX_DENIALS: Final = 1_000_000
# Failures in a row that a breaker waits for: each is a decision that kept a client waiting.
MAX_ERRORS: Final = 1000

# RFC 3339 section 5.6 `date-time`; its "T" and "Z" may be in lower case, and the fraction of any length.
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _version(value: Any) -> int:
    if type(value) is not int or value != 1:
        raise InvalidValue("is not a version of the policy language", "1", value=value)
    return 1


def _rate(value: Any) -> Rate:
    try:
        return parse_rate(value)
    except InvalidValue as error:
        raise InvalidValue(error.message, f"{EXPECTED_RATE}, 2GiB/1d", value=value) from None


def _count_rate(value: Any) -> Rate:
    rate = _rate(value)
    if rate.in_bytes:
        raise InvalidValue("counts bytes", EXPECTED_RATE, value=value)
    return rate


def _amount(value: Any) -> Amount:
    try:
        amount = Amount(parse_size(value), in_bytes=isinstance(value, str))
    except InvalidValue as error:
        if error.message == "is too big":
            raise InvalidValue(error.message, f"at most {MAX_AMOUNT}", value=value) from None
        raise InvalidValue("is not an amount", f"{EXPECTED_AMOUNT}, or a size, e.g. 10MiB", value=value) from None
    if amount.value < 1:
        raise InvalidValue("is no amount", EXPECTED_AMOUNT, value=value)
    return amount


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise InvalidValue("is not a count", EXPECTED_AMOUNT, value=value)
    if value > MAX_AMOUNT:
        raise InvalidValue("is too big", f"at most {MAX_AMOUNT}", value=value)
    return value


def _cost(value: Any) -> float | Cost:
    if isinstance(value, str) and value in (Cost.BYTES.value, Cost.RECIPIENTS.value):
        return Cost(value)
    if type(value) not in (int, float) or not 0 < value <= MAX_AMOUNT:
        raise InvalidValue("is not a cost", EXPECTED_COST, value=value)
    return float(value)


def _delay(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds > MAX_DELAY:
        raise InvalidValue("is longer than clients wait", f"at most {MAX_DELAY:.0f}s", value=value)
    return seconds


def _some_time(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds == 0.0:
        raise InvalidValue("is no time at all", "e.g. 10m", value=value)
    return seconds


def _timeout(value: Any) -> float:
    seconds = _some_time(value)
    if seconds > MAX_TIMEOUT:
        raise InvalidValue("is longer than a session should wait", f"at most {MAX_TIMEOUT:.0f}s", value=value)
    return seconds


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0.0 < value <= 1.0:
        raise InvalidValue("is not a share", "a number above 0, at most 1", value=value)
    return float(value)


def _until(value: Any) -> float:
    found = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidValue("is not a time", EXPECTED_UNTIL, value=value)
    date, time, zone = found.groups()
    try:
        return datetime.datetime.fromisoformat(f"{date}T{time}{zone.upper()}").timestamp()
    except (ValueError, OverflowError):
        raise InvalidValue("is not a time", EXPECTED_UNTIL, value=value) from None


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_AN_AMOUNT: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_AMOUNT},
        {"type": "string", "pattern": f"^{SIZE_FORM}$"},
    ]
}

RateField = Annotated[Rate, PlainValidator(_rate), json_text(f"{SIZE_FORM}/{DURATION_FORM}")]
AmountField = Annotated[Amount, PlainValidator(_amount), WithJsonSchema(_AN_AMOUNT)]
CountField = Annotated[
    int, PlainValidator(_count), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_AMOUNT})
]
CostField = Annotated[
    float | Cost,
    PlainValidator(_cost),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"enum": ["bytes", "recipients"]}]}),
]
DelayField = Annotated[float, PlainValidator(_delay), json_text(DURATION_FORM)]
TimeField = Annotated[float, PlainValidator(_some_time), json_text(DURATION_FORM)]
OnErrorField = Literal["local", "allow", "tempfail"]
Patterns = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class MatchKeys(StrictModel):
    """Whom it concerns: an AND of fields; a list is an OR, "!" excludes, "*" globs, "@name" is a set."""

    client: Patterns = Field(default_factory=list, description='addresses, networks, "unix:"')
    ip: Patterns = Field(default_factory=list, description="as client")
    net: Patterns = Field(default_factory=list, description="networks that hold the client's whole {net}")
    listener: Patterns = Field(default_factory=list, description="names of listeners")
    tls: bool = Field(default=False, description="whether the connection is encrypted")
    time: Patterns = Field(default_factory=list, description='"22:00-06:00" (UTC), "@name" of a set')
    protocol: Patterns = Field(default_factory=list, description="smtp, imap, pop3: who asks for the login")
    login: Patterns = Field(default_factory=list, description="the name that the client typed")
    method: Patterns = Field(default_factory=list, description="how the client logged in")
    known_user: bool = Field(default=False, description="whether the login exists")
    known_net: bool = Field(default=False, description="whether the login succeeded from this network before")
    auth: bool = Field(default=False, description="whether somebody logged in")
    user: Patterns = Field(default_factory=list, description="the name that the auth service returned")
    user_domain: Patterns = Field(default_factory=list, description="its domain")
    plan: Patterns = Field(default_factory=list, description="the plan that the auth service gives")
    helo: Patterns = Field(default_factory=list, description="what the client calls itself")
    sender: Patterns = Field(default_factory=list, description='the address of MAIL FROM, "<>" for none')
    sender_domain: Patterns = Field(default_factory=list, description="its domain")
    size: Patterns = Field(default_factory=list, description='">= 10MiB": announced, at eod the real one')
    rcpt: Patterns = Field(default_factory=list, description="the address of RCPT TO")
    rcpt_domain: Patterns = Field(default_factory=list, description="its domain")

    def spec(self) -> dict[str, list[str] | bool]:
        """The named fields with their patterns, in the order of this class."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class ThenKeys(StrictModel):
    """What a client gets from there on."""

    reply: str = Field(description='a name of replies, or a literal, e.g. "550 5.7.1 text"')
    close: bool = Field(default=False, description="end the connection after the reply")
    ban: TimeField = Field(default_factory=float, description="refuse the subject altogether for this long")


class AfterKeys(StrictModel):
    """Escalation: another answer to who goes on after being refused."""

    denials: Annotated[int, Field(ge=1, le=MAX_DENIALS)] = Field(description="e.g. 50")
    within: TimeField = Field(description="e.g. 10m")
    then: ThenKeys = Field(description='e.g. {reply: "550 5.7.1 text", close: true}')


class DenyTermKeys(StrictModel):
    """What of `deny` may be left out."""

    close: bool = Field(default=False, description="end the connection after the reply; a 421 always does")
    delay: DelayField = Field(default_factory=float, description="before the reply is sent, at most 60s")
    max_delay: DelayField = Field(default_factory=float, description="delay for as long as the wait, up to this")
    hold: DelayField = Field(default_factory=float, description="wait so long for tokens before refusing")
    ban: TimeField = Field(default_factory=float, description="refuse the subject altogether for this long")
    after: AfterKeys = Field(
        default_factory=lambda: AfterKeys.model_validate({"denials": 1, "within": "1s", "then": {"reply": ""}}),
        description="another answer to who goes on after being refused",
    )


class DenyKeys(DenyTermKeys):
    """`deny`: what a refused client gets. reply: a name of `replies`, or a literal."""

    reply: str = Field(description='a name of replies, or a literal, e.g. "450 4.7.1 text"')


class ChangeDenyKeys(DenyTermKeys):
    """What of `deny` an override changes."""

    reply: str = Field(default="", description='a name of replies, or a literal, e.g. "450 4.7.1 text"')
    ban: DurationField = Field(default_factory=float, description="refuse the subject altogether; 0s: no longer")


class TermKeys(StrictModel):
    """The keys that `limits` and `overrides` have in common."""

    rate: RateField = Field(default_factory=lambda: Rate(1, 1.0), description=f"{EXPECTED_RATE}, 2GiB/1d")
    concurrency: CountField = Field(default_factory=lambda: 1, description="at once, e.g. 20")
    max: AmountField = Field(default_factory=lambda: Amount(1), description="in one session or message, e.g. 100")
    shape: RateField = Field(default_factory=lambda: Rate(1, 1.0), description="octets a time, e.g. 1MiB/1s")
    burst: AmountField = Field(default_factory=lambda: Amount(1), description="what a full bucket holds")
    cost: CostField = Field(default_factory=lambda: 1.0, description="of one event: a number, bytes, recipients")
    shadow: bool = Field(default=False, description="only watch and count")
    on_error: OnErrorField = Field(
        default_factory=lambda: "local", description="while the store is away: local, allow or tempfail"
    )


class EventKeys(StrictModel):
    """When a limit is asked, and whose it is."""

    event: Literal["connect", "auth", "auth_fail", "mail", "rcpt", "data", "eod"] = Field(
        description="connect, auth, auth_fail, mail, rcpt, data or eod"
    )
    key: str = Field(description=EXPECTED_KEY)


class LimitKeys(TermKeys, EventKeys):
    """One of `limits`: exactly one of rate, concurrency, max, shape."""

    overflow_key: str = Field(default_factory=str, description="whose bucket it is while too many new keys appear")
    match: MatchKeys = Field(default_factory=MatchKeys, description="whom it concerns; everyone if left out")
    distinct: str = Field(default_factory=str, description="count different values of this only, e.g. {login}")
    refund: Literal["never", "rejected"] = Field(
        default="never", description="rejected: give back what the mail servers refused"
    )
    deny: DenyKeys = Field(default_factory=lambda: DenyKeys(reply=""), description='e.g. {reply: "450 4.7.1 text"}')


class ChangeKeys(TermKeys):
    """What an override says of one limit."""

    deny: ChangeDenyKeys = Field(default_factory=ChangeDenyKeys, description="what of deny changes")


class OffKeys(ChangeKeys):
    """`off`: the limit does not apply."""


def _change(value: Any) -> Any:
    if value == "off":
        return OffKeys()
    if not isinstance(value, dict) or not value:
        raise InvalidValue("is not a change of a limit", EXPECTED_CHANGE, value=value)
    return value


class ExemptKeys(StrictModel):
    """One of `exempt`: takes limits away from whom it matches."""

    match: MatchKeys = Field(description="whom it concerns")
    limits: Patterns = Field(min_length=1, description='names of limits, or globs, e.g. ["ip.*", "auth.*"]')


class OverrideKeys(StrictModel):
    """One of `overrides`: other numbers for some. Later ones win."""

    match: MatchKeys = Field(description="whom it concerns")
    until: Annotated[float, PlainValidator(_until), WithJsonSchema({"type": "string", "format": "date-time"})] = (
        Field(default_factory=float, description=EXPECTED_UNTIL)
    )
    set: dict[
        NameField, Annotated[ChangeKeys, BeforeValidator(_change, json_schema_input_type=Literal["off"] | ChangeKeys)]
    ] = Field(min_length=1, description=f"limits by name, each {EXPECTED_CHANGE}")


class BreakerKeys(StrictModel):
    """`breaker`: when to stop asking a store that gives no answer, and for how long."""

    errors: Annotated[int, Field(ge=1, le=MAX_ERRORS)] = Field(default=5, description="failures that open it")
    within: TimeField = Field(default=2.0, description="in this time")
    open: TimeField = Field(default=5.0, description="for so long the store is not asked")


class LimiterKeys(StrictModel):
    """`limiter`: how the store is asked, and what happens while it does not answer."""

    timeout: Annotated[float, PlainValidator(_timeout), json_text(DURATION_FORM)] = Field(
        default=0.05, description="of the store, for connect and for a reply"
    )
    on_error: OnErrorField = Field(default="local", description="of limits that do not say")
    local_share: Annotated[
        float, PlainValidator(_share), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    ] = Field(default=0.5, description="part of each rate and burst that one process allows by itself")
    breaker: BreakerKeys = Field(default_factory=BreakerKeys)
    new_keys: Annotated[Rate, PlainValidator(_count_rate), json_text(f"[0-9]+/{DURATION_FORM}")] = Field(
        default_factory=lambda: Rate(2000, 1.0), description="subjects that one process may see for the first time"
    )


class PrefixKeys(StrictModel):
    """`ip_prefix`: bits of an address that make `{net}`."""

    v4: Annotated[int, Field(ge=LEAST_V4_PREFIX, le=32)] = 32
    v6: Annotated[int, Field(ge=LEAST_V6_PREFIX, le=128)] = 64


class SetKeys(StrictModel):
    """One of `sets`: exactly one of user, domain, cidr, time, file."""

    user: Patterns = Field(default_factory=list, description='names, addresses, "*@example.com"')
    domain: Patterns = Field(default_factory=list, description='domains, "*.example.com"')
    cidr: Patterns = Field(default_factory=list, description='addresses, networks, "unix:"')
    time: Patterns = Field(default_factory=list, description='windows of the day, e.g. "22:00-06:00"')
    days: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])] = Field(
        default_factory=list, min_length=1, description="with time: mon tue wed thu fri sat sun"
    )
    tz: str = Field(default="UTC", description="with time: e.g. Europe/Berlin")
    file: str = Field(default_factory=str, description="a *.txt of this folder, one value a line")
    type: Literal["user", "domain", "cidr"] = Field(
        default_factory=lambda: "user", description="with file: user, domain or cidr"
    )

    def types(self) -> list[str]:
        """The keys of which there must be exactly one."""
        return [name for name in (*SET_TYPES, "file") if name in self.model_fields_set]


class PolicyKeys(StrictModel):
    """The top-level keys of a policies file that concern limits. version: in at least one file of the
    folder.
    """

    version: Annotated[int, PlainValidator(_version), WithJsonSchema({"const": 1})] = Field(
        default=1, description="of the policy language; in at least one file of the folder"
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce", description="shadow: everything is evaluated and counted, nothing acts"
    )
    limiter: LimiterKeys = Field(default_factory=LimiterKeys)
    ip_prefix: PrefixKeys = Field(default_factory=PrefixKeys)
    sets: dict[NameField, SetKeys] = Field(default_factory=dict, description='named values, used as "@name"')
    exempt: list[ExemptKeys] = Field(default_factory=list, description="before any limit")
    replies: dict[NameField, str] = Field(default_factory=dict, description="named replies, 4xx or 5xx")
    limits: dict[NameField, LimitKeys] = Field(default_factory=dict, description="all that match apply")
    overrides: list[OverrideKeys] = Field(default_factory=list, description="other numbers for some; later wins")
    mixed_recipients: Literal["defer", "first"] = Field(
        default="defer", description="a recipient of another route: defer it, or take the first one's route"
    )
