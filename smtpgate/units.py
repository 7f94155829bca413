"""Values as operators write them: durations, sizes, rates, networks, addresses.

Owns the text forms of conf/*.yaml and policies/*.yaml, their bounds, and what an error says. Each form has a
`parse_…` function (text in, value out, `InvalidValue` if it does not fit) and a `…Field`, the same as a type
for pydantic models. `StrictModel` is the base of every model of a configuration file.

Refuses to know: YAML, files, marks, and which key a value belongs to (smtpgate.document adds these).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, WithJsonSchema

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Ten years. Longer is a slip of the unit.
MAX_DURATION: Final = 3650 * 86400.0
# 2**53: beyond it a float, Redis' Lua number among them, no longer holds every integer.
MAX_AMOUNT: Final = 2**53
# RFC 1035 section 2.3.4, without the closing dot.
MAX_HOSTNAME: Final = 253
# sun_path of Linux' unix(7) is 108 octets with its NUL.
MAX_UNIX_PATH: Final = 107
# Names become parts of Redis keys, log fields and metric labels (security.md F9).
MAX_NAME: Final = 64
# Processes of one service: as many cores as one machine is likely to give to it.
MAX_WORKERS: Final = 64
# A longer value is cut in a message (security.md G1: at most 256 bytes a value in a log line).
MAX_SHOWN: Final = 60

EXPECTED_DURATION: Final = "e.g. 500ms, 10s, 5m, 1h, 1d"
EXPECTED_SIZE: Final = "e.g. 4096, 64KiB, 10MiB, 10MB"
EXPECTED_RATE: Final = "an amount and a period, e.g. 60/1m, 2000/1d, 2GiB/1d"
EXPECTED_CIDR: Final = "e.g. 192.0.2.0/24, 2001:db8::/32, 192.0.2.1"
EXPECTED_HOSTPORT: Final = "e.g. 127.0.0.1:25, [::1]:25, mx.example.com:25"
EXPECTED_ENDPOINT: Final = "e.g. 127.0.0.1:25, [::1]:25, unix:/run/smtpgate.sock"
EXPECTED_HOSTNAME: Final = "e.g. mail.example.com"
EXPECTED_NAME: Final = f"1 to {MAX_NAME} of A-Z a-z 0-9 . _ -, beginning with a letter or digit"

_SECONDS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_OCTETS: Final = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}

# ASCII classes throughout: \d and int() take other scripts' digits, "1_0" and "+5" (security.md I).
_DURATION = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,16})(|B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)")
_PREFIX = re.compile(r"0|[1-9][0-9]{0,2}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
# RFC 1123 section 2.1; the underscore is tolerated because internal zones use it.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class InvalidValue(ValueError):
    """A value that does not fit its form.

    message: what is wrong. With `value`, a predicate of it ("is not a duration"), so that whoever reports the
    error may show the value, or not; without, a whole phrase. expected: what would fit, "" if the message
    says it. path: where below the validated value, for validators of a whole model.
    """

    def __init__(
        self, message: str, expected: str = "", *, value: object = ABSENT, path: tuple[str | int, ...] = ()
    ) -> None:
        subject = "" if value is ABSENT else f"{show(value)} "
        super().__init__(f"{subject}{message}; expected {expected}" if expected else f"{subject}{message}")
        self.message = message
        self.expected = expected
        self.value = value
        self.path = path


def show(value: object) -> str:
    """A value of a configuration file on one short line: text in quotes, controls escaped, cut if long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if not isinstance(value, str):
        return str(value)[:MAX_SHOWN]
    cut = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return '"{}"'.format("".join(escaped))


# --- durations, sizes, rates --------------------------------------------------------------------------------


def parse_duration(text: object) -> float:
    """`500ms 10s 1.5m 1h 1d` -> seconds. A number alone has no unit and is refused, 0 too: write 0s."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidValue("is not a duration", EXPECTED_DURATION, value=text)
    seconds = float(Decimal(match[1]) * _SECONDS[match[2]])
    if seconds > MAX_DURATION:
        raise InvalidValue("is too long", f"at most {format_duration(MAX_DURATION)}", value=text)
    return seconds


def format_duration(seconds: float) -> str:
    """The text that `parse_duration` reads as `seconds`, to the millisecond: 90.0 -> 90s, 60.0 -> 1m."""
    milliseconds = round(seconds * 1000)
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def parse_size(text: object) -> int:
    """`4096 64KiB 10MiB 10MB` -> octets; KiB is 1024, kB (or KB) is 1000. An int is taken as octets."""
    digits = str(text) if isinstance(text, int) and not isinstance(text, bool) else text
    match = _SIZE.fullmatch(digits) if isinstance(digits, str) else None
    if match is None:
        raise InvalidValue("is not a size", EXPECTED_SIZE, value=text)
    octets = int(match[1]) * _OCTETS[match[2]]
    if octets > MAX_AMOUNT:
        raise InvalidValue("is too big", f"at most {MAX_AMOUNT} octets", value=text)
    return octets


def format_size(octets: int) -> str:
    """The text that `parse_size` reads as `octets`: 65536 -> 64KiB, 10_000_000 -> 10MB."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if octets and octets % _OCTETS[unit] == 0:
            return f"{octets // _OCTETS[unit]}{unit}"
    return str(octets)


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` each `period` seconds; octets where in_bytes, else things counted. `str()` writes it anew."""

    amount: int
    period: float
    in_bytes: bool = False

    @property
    def per_second(self) -> float:
        return self.amount / self.period

    def __str__(self) -> str:
        amount = format_size(self.amount) if self.in_bytes else str(self.amount)
        return f"{amount}/{format_duration(self.period)}"


def parse_rate(text: object) -> Rate:
    """`60/1m 2000/1d 2GiB/1d` -> Rate. Both sides are above zero; a rate always has a period."""
    amount, slash, period = text.partition("/") if isinstance(text, str) else ("", "", "")
    if not slash:
        raise InvalidValue("is not a rate", EXPECTED_RATE, value=text)
    part = "amount"
    try:
        octets = parse_size(amount)
        part = "period"
        rate = Rate(octets, parse_duration(period), in_bytes=not amount.isdigit())
    except InvalidValue as error:
        raise InvalidValue(f"is not a rate: its {part} {error.message}", EXPECTED_RATE, value=text) from None
    if rate.amount == 0 or rate.period < 0.001:
        raise InvalidValue("is not a rate: amount and period must be above zero", EXPECTED_RATE, value=text)
    return rate


# --- networks and addresses ---------------------------------------------------------------------------------


def parse_cidr(text: object) -> Network:
    """`192.0.2.0/24 2001:db8::/32 192.0.2.1` -> network. Bits beyond the prefix must be zero.

    A v4-mapped IPv6 network becomes its IPv4 one, as clients' addresses do.
    """
    address, slash, prefix = text.partition("/") if isinstance(text, str) else ("", "", "")
    # No netmasks and no scope ids, both of which ipaddress would take.
    if not address or "%" in address or (slash and not _PREFIX.fullmatch(prefix)):
        raise InvalidValue("is not a network", EXPECTED_CIDR, value=text)
    try:
        network = ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        raise InvalidValue("is not a network", EXPECTED_CIDR, value=text) from None
    if slash and ipaddress.ip_address(address) != network.network_address:
        raise InvalidValue("has address bits beyond its prefix", str(network), value=text)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


UNIX: Final = "unix:"
"""Whoever connects over a unix socket, as address and as network."""

PeerNetwork = Network | Literal["unix:"]


def parse_peers(text: object) -> PeerNetwork:
    """What `parse_cidr` takes, or `unix:`."""
    if text == UNIX:
        return "unix:"
    try:
        return parse_cidr(text)
    except InvalidValue as fault:
        expected = f"{EXPECTED_CIDR}, {UNIX}" if fault.expected == EXPECTED_CIDR else fault.expected
        raise InvalidValue(fault.message, expected, value=text) from None


def is_among(host: str, peers: Sequence[PeerNetwork]) -> bool:
    """Whether a textual address, or "unix:", is one of these."""
    if host == UNIX:
        return UNIX in peers
    address = ipaddress.ip_address(host)
    return any(network != UNIX and address in network for network in peers)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A TCP address: host is a host name or a textual address without brackets. `str()` brackets v6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixPath:
    """A unix socket's path. `str()` is "unix:" and the path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse_hostport(text: object) -> HostPort:
    """`127.0.0.1:25 [::1]:25 mx.example.com:25` -> HostPort, port 1 to 65535."""
    return _hostport(text, EXPECTED_HOSTPORT)


def parse_endpoint(text: object) -> HostPort | UnixPath:
    """What `parse_hostport` takes, or `unix:/path` (absolute, at most MAX_UNIX_PATH octets)."""
    if not isinstance(text, str) or not text.startswith("unix:"):
        return _hostport(text, EXPECTED_ENDPOINT)
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path or len(path.encode()) > MAX_UNIX_PATH:
        expected = f"unix: and an absolute path of at most {MAX_UNIX_PATH} octets"
        raise InvalidValue("is not a unix socket", expected, value=text)
    return UnixPath(path)


def _hostport(text: object, expected: str) -> HostPort:
    host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not colon or not host:
        raise InvalidValue("is not an address with a port", expected, value=text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise InvalidValue("has no IPv6 address in its brackets", expected, value=text)
    elif ":" in host:
        raise InvalidValue("has an IPv6 address without brackets", expected, value=text)
    elif not _is_hostname(host) and not _is_ipv4(host):
        raise InvalidValue("has no valid host before its port", expected, value=text)
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise InvalidValue("has no valid port", "a port from 1 to 65535", value=text)
    return HostPort(host, int(port))


def parse_hostname(text: object) -> str:
    """A host name (RFC 1123 section 2.1) of at most MAX_HOSTNAME characters, as written."""
    if not isinstance(text, str) or not _is_hostname(text):
        raise InvalidValue("is not a host name", EXPECTED_HOSTNAME, value=text)
    return text


def parse_name(text: object) -> str:
    """A name that operators give to a listener, limit, pool, route or backend."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise InvalidValue("is not a name", EXPECTED_NAME, value=text)
    return text


def _is_hostname(text: str) -> bool:
    labels = text.split(".")
    # A last label of digits would make it an address, and a wrong one (RFC 1123 section 2.1).
    return (
        len(text) <= MAX_HOSTNAME
        and all(_LABEL.fullmatch(label) for label in labels)
        and not re.fullmatch("[0-9]+", labels[-1])
    )


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


# --- for pydantic models ------------------------------------------------------------------------------------


class StrictModel(BaseModel):
    """Base of every model of a configuration file: no coercion, no unknown key, no assignment.

    Strict mode takes no YAML list for a tuple: declare lists as `list[…]`. Defaults are not parsed: write
    them as values (`timeout: DurationField = 60.0`). Avoid unions; a validator gives a better message.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def json_text(pattern: str) -> WithJsonSchema:
    """For a JSON Schema: text that the whole of this regular expression fits."""
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


# What editors check; the parsers decide.
DURATION_FORM: Final = r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)"
SIZE_FORM: Final = "[0-9]+(B|[kK]B|[MGT]B|[KMGT]iB)?"
_JSON_SIZE: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{SIZE_FORM}$"}]
}

DurationField = Annotated[float, PlainValidator(parse_duration), json_text(DURATION_FORM)]
SizeField = Annotated[int, PlainValidator(parse_size), WithJsonSchema(_JSON_SIZE)]
RateField = Annotated[Rate, PlainValidator(parse_rate), json_text(f"{SIZE_FORM}/{DURATION_FORM}")]
CidrField = Annotated[Network, PlainValidator(parse_cidr), json_text("[0-9A-Fa-f:.]+(/[0-9]+)?")]
PeerField = Annotated[PeerNetwork, PlainValidator(parse_peers), json_text("unix:|[0-9A-Fa-f:.]+(/[0-9]+)?")]
HostPortField = Annotated[HostPort, PlainValidator(parse_hostport), json_text(".+:[0-9]+")]
EndpointField = Annotated[HostPort | UnixPath, PlainValidator(parse_endpoint), json_text(".+:[0-9]+|unix:/.+")]
HostnameField = Annotated[str, PlainValidator(parse_hostname), json_text("[A-Za-z0-9_.-]+")]
NameField = Annotated[str, PlainValidator(parse_name), json_text(_NAME.pattern)]

_T = TypeVar("_T")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


# "a list is fine": `bind: X` and `bind: [X, Y]` both give a list.
OneOrMany = Annotated[list[_T], BeforeValidator(_as_list)]
