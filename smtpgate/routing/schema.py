"""The shape of `routes` and `pools` in policies/*.yaml: keys, types, bounds.

Owns what an operator may write about the way of a session. Refuses to know what a match means: its fields are
the policy language's, so the model is generic in them, and `snapshot` puts the two together. Names (a route's
pool, a reply) and files are resolved there too, and whatever concerns two keys at once.

Optional keys are told from absent ones by `model_fields_set`. Defaults are those of `routing.model`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from smtpgate.routing.model import (
    UNAVAILABLE,
    BreakerSpec,
    Failover,
    HashKey,
    HealthSpec,
    PoolSpec,
    QueueSpec,
    ReuseSpec,
)
from smtpgate.units import (
    EXPECTED_DURATION,
    EXPECTED_HOSTPORT,
    EXPECTED_NAME,
    EXPECTED_SIZE,
    HostnameField,
    HostPortField,
    InvalidValue,
    NameField,
    StrictModel,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

# nginx's upstream weights and connection counts are ints without a bound; these are beyond any cluster.
MAX_WEIGHT: Final = 1000
MAX_CONNS: Final = 1_000_000
# Each choice looks at every backend of its pool.
MAX_BACKENDS: Final = 1000
# Further backends tried after the first. Each may cost a connect timeout out of the client's patience.
MAX_ATTEMPTS: Final = 16
# RFC 5321 section 4.5.3.2.3: a client waits 5 minutes for the reply to a RCPT, within which a backend is found.
MAX_SEARCH: Final = 300.0
# Of each message under way, in memory.
MAX_BUFFER: Final = 64 * 1024 * 1024
MAX_QUEUE: Final = 100_000
# Probes, failures or successes in a row; HAProxy's fall and rise are ints without a bound.
MAX_IN_A_ROW: Final = 1000
# The breaker keeps as many networks of each backend.
MAX_CLIENTS: Final = 100
# Seconds. RFC 5321 section 4.5.3.2.1 gives a greeting 5 minutes, but a server that needs one is not well.
MAX_PROBE: Final = 60.0
# Seconds. Below it, probes and tries would be a load of their own; sessions take milliseconds to seconds.
MIN_PROBE: Final = 0.1
MIN_OPEN: Final = 1.0
# Seconds; longer ones are slips of the unit.
HOUR: Final = 3600.0
DAY: Final = 86400.0
# A connection's, and a backend's; Postfix' smtpd_client limits and nginx's keepalive have no bound.
MAX_MESSAGES: Final = 1_000_000
MAX_IDLE: Final = 10_000
# RFC 4616 section 2: each of AUTH PLAIN's parts has at most 255 octets, and no NUL.
MAX_CREDENTIAL: Final = 255

# The defaults of keys.
_HEALTH: Final = HealthSpec()
_BREAKER: Final = BreakerSpec()
_FAILOVER: Final = Failover()
_REUSE: Final = ReuseSpec()
_QUEUE: Final = QueueSpec()
_POOL: Final = PoolSpec("", ())

_PERCENT = re.compile(r"(0|[1-9][0-9]{0,2})%")

M = TypeVar("M", bound=StrictModel)


# --- values ---------------------------------------------------------------------------------------------------


def _switch(value: Any) -> bool:
    # YAML 1.2 reads on and off as text.
    if value is True or value == "on":
        return True
    if value is False or value == "off":
        return False
    raise InvalidValue("is not a switch", "on, off, true or false", value=value)


def _seconds(low: float, high: float) -> PlainValidator:
    def parse(value: Any) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            message = "is too short" if seconds < low else "is too long"
            raise InvalidValue(message, f"{format_duration(low)} to {format_duration(high)}", value=value)
        return seconds

    return PlainValidator(parse)


def _octets(high: int) -> PlainValidator:
    def parse(value: Any) -> int:
        octets = parse_size(value)
        if octets > high:
            raise InvalidValue("is too big", f"at most {format_size(high)}", value=value)
        return octets

    return PlainValidator(parse)


def _percent(value: Any) -> float:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > 100:
        raise InvalidValue("is not a part of a pool", "0% to 100%", value=value)
    return int(match[1]) / 100


def _credential(value: Any) -> str:
    # The value is nobody's to read in a log.
    if not isinstance(value, str) or not value or "\0" in value or len(value.encode()) > MAX_CREDENTIAL:
        expected = f"text of 1 to {MAX_CREDENTIAL} octets, in quotes if it looks like a number"
        raise InvalidValue("this is no user name or password", expected)
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidValue("is not a path", "a file, relative to this folder or absolute", value=value)
    return value


_DURATION: Final = WithJsonSchema({"type": "string", "description": EXPECTED_DURATION})

Switch = Annotated[bool, PlainValidator(_switch), WithJsonSchema({"enum": ["on", "off", True, False]})]
Name = Annotated[NameField, WithJsonSchema({"type": "string", "description": EXPECTED_NAME})]
Percent = Annotated[
    float,
    PlainValidator(_percent),
    WithJsonSchema({"type": "string", "pattern": f"^{_PERCENT.pattern}$"}),
]
Credential = Annotated[str, PlainValidator(_credential), WithJsonSchema({"type": "string", "minLength": 1})]
FilePath = Annotated[str, PlainValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
HostName = Annotated[HostnameField, WithJsonSchema({"type": "string"})]
Address = Annotated[HostPortField, WithJsonSchema({"type": "string"})]
Buffer = Annotated[
    int,
    _octets(MAX_BUFFER),
    WithJsonSchema({"type": ["string", "integer"], "description": EXPECTED_SIZE}),
]
InARow = Annotated[int, Field(ge=1, le=MAX_IN_A_ROW)]


# --- how to speak to a backend ----------------------------------------------------------------------------------


class TlsKeys(StrictModel):
    """`tls` as a mapping. ca, cert, key: PEM files."""

    mode: Literal["off", "starttls", "required", "implicit"] = Field(
        description="off, starttls, required or implicit"
    )
    verify: Switch = True
    server_name: HostName = ""
    ca: FilePath = ""
    cert: FilePath = ""
    key: FilePath = ""


class LoginKeys(StrictModel):
    """`smtp_auth` as a mapping: exactly one of the passwords."""

    user: Credential = Field(description="the name that the proxy logs in with")
    password: Credential = Field(default="", repr=False)
    password_file: FilePath = ""


def _form(value: Any) -> str:
    return "long" if isinstance(value, dict | list) else "short"


def _off(value: Any) -> Any:
    return "off" if value is False else value


# `tls: required` is `tls: {mode: required}`. A tagged union, so that each form's faults are told by themselves.
TlsField = Annotated[
    Annotated[Literal["off", "starttls", "required", "implicit"], Tag("short")] | Annotated[TlsKeys, Tag("long")],
    Discriminator(_form),
    BeforeValidator(_off),
]
LoginField = Annotated[
    Annotated[Switch, Tag("short")] | Annotated[LoginKeys, Tag("long")],
    Discriminator(_form),
]


# --- routes and pools -------------------------------------------------------------------------------------------


class RouteKeys(StrictModel, Generic[M]):
    """One of `routes`; `match: {}` takes everything."""

    name: Name = Field(description="e.g. default")
    match: M = Field(description="fields and patterns, or {} for everything")
    pool: Name = Field(description="a name of pools")


class BackendKeys(StrictModel):
    """One of a pool's `backends`. max_conns left out: unbounded."""

    name: Name = Field(description="e.g. mta1")
    addr: Address = Field(description=EXPECTED_HOSTPORT)
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] = 1
    max_conns: Annotated[int, Field(ge=1, le=MAX_CONNS)] = MAX_CONNS
    state: Literal["active", "drain", "off"] = "active"
    backup: Switch = False


class HealthKeys(StrictModel):
    """`health`: active probes."""

    probe: Literal["off", "connect", "ehlo"] = _HEALTH.probe
    every: Annotated[float, _seconds(MIN_PROBE, HOUR), _DURATION] = _HEALTH.every
    timeout: Annotated[float, _seconds(MIN_PROBE, MAX_PROBE), _DURATION] = _HEALTH.timeout
    rise: InARow = _HEALTH.rise
    fall: InARow = _HEALTH.fall


class BreakerKeys(StrictModel):
    """`breaker`: what sessions tell of a backend."""

    connect: InARow = _BREAKER.connect
    session: InARow = _BREAKER.session
    min_clients: Annotated[int, Field(ge=1, le=MAX_CLIENTS)] = _BREAKER.min_clients
    open: Annotated[float, _seconds(MIN_OPEN, HOUR), _DURATION] = _BREAKER.open
    max_open: Percent = _BREAKER.max_open


class FailoverKeys(StrictModel):
    """`failover`: how hard one transaction tries, and until when."""

    until: Literal["connect", "rcpt", "data_start", "buffered"] = _FAILOVER.until
    attempts: Annotated[int, Field(ge=0, le=MAX_ATTEMPTS)] = _FAILOVER.attempts
    deadline: Annotated[float, _seconds(MIN_PROBE, MAX_SEARCH), _DURATION] = _FAILOVER.deadline
    buffer: Buffer = _FAILOVER.buffer


class ReuseKeys(StrictModel):
    """`reuse`: backend sessions kept for the next client."""

    idle: Annotated[float, _seconds(0.0, HOUR), _DURATION] = _REUSE.idle
    messages: Annotated[int, Field(ge=1, le=MAX_MESSAGES)] = _REUSE.messages
    max_idle: Annotated[int, Field(ge=0, le=MAX_IDLE)] = _REUSE.max_idle
    age: Annotated[float, _seconds(MIN_OPEN, DAY), _DURATION] = _REUSE.age


class QueueKeys(StrictModel):
    """`queue`: sessions that wait while all that could serve are at max_conns."""

    wait: Annotated[float, _seconds(0.0, MAX_SEARCH), _DURATION] = _QUEUE.wait
    max: Annotated[int, Field(ge=0, le=MAX_QUEUE)] = _QUEUE.max


class UnavailableKeys(StrictModel):
    """`unavailable`: what happens when no backend may be asked, exactly one of the two. reply: a literal or a name
    of `replies`.
    """

    reply: str = UNAVAILABLE
    pool: Name = ""


class PoolKeys(StrictModel):
    """One of `pools`. xclient, proxy_protocol, smtp_auth, pass_error_message, tls left out: as `backend:` in
    conf/proxy.yaml says.
    """

    balance: Literal["round_robin", "least_conn", "random2", "hash"] = _POOL.balance.value
    hash_key: HashKey = _POOL.hash_key
    xclient: Literal["auto", "on", "off"] = "auto"
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    smtp_auth: LoginField = False
    pass_error_message: Switch = False
    tls: TlsField = "off"
    backends: list[BackendKeys] = Field(
        min_length=1, max_length=MAX_BACKENDS, description='e.g. [{name: mta1, addr: "10.1.0.1:25"}]'
    )
    health: HealthKeys = HealthKeys()
    breaker: BreakerKeys = BreakerKeys()
    slow_start: Annotated[float, _seconds(0.0, HOUR), _DURATION] = _POOL.slow_start
    failover: FailoverKeys = FailoverKeys()
    reuse: ReuseKeys = ReuseKeys()
    queue: QueueKeys = QueueKeys()
    unavailable: UnavailableKeys = UnavailableKeys()


class RoutingKeys(StrictModel, Generic[M]):
    """The top-level keys of a policies file that concern the way."""

    routes: list[RouteKeys[M]] = Field(default_factory=list)
    pools: dict[Name, PoolKeys] = Field(default_factory=dict)
