"""`console:` of conf/authsvc.yaml: where the operator's page answers, to whom, and who may log in.

Owns keys, defaults and bounds. There is no default password, and no way to have a page without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, model_validator

from authsvc.fields import duration_field, is_loopback
from authsvc.proof import schemes
from smtpgate.units import (
    HostnameField,
    HostPort,
    HostPortField,
    InvalidValue,
    NameField,
    PeerField,
    PeerNetwork,
    StrictModel,
    parse_cidr,
)

# A page for the people who run one site; each wrong name and each right one is hashed against one of these at most.
MAX_OPERATORS: Final = 64
# A working day; OWASP's session cheat sheet has 4 to 8 hours for an absolute limit, 15 to 30 minutes for an idle one.
DEFAULT_LIFETIME: Final = 8 * 3600.0
DEFAULT_IDLE: Final = 30 * 60.0
MAX_LIFETIME: Final = 24 * 3600.0

LOOPBACK: Final[tuple[PeerNetwork, ...]] = (parse_cidr("127.0.0.0/8"), parse_cidr("::1"))

_EXPECTED_HASH: Final = "what `gatectl user hash` prints as password"


@dataclass(frozen=True, slots=True)
class Console:
    """operators: name -> stored password. hosts: names that requests may be for, beside those of loopback; clients:
    networks that they may come from, loopback's among them. lifetime: seconds from a login to its end; idle:
    seconds without a request.
    """

    bind: HostPort
    operators: Mapping[str, str] = field(repr=False)
    hosts: tuple[str, ...] = ()
    clients: tuple[PeerNetwork, ...] = LOOPBACK
    lifetime: float = DEFAULT_LIFETIME
    idle: float = DEFAULT_IDLE


def _stored(value: Any) -> str:
    """A hash that takes a while to try: whoever steals the file is not to have the password by the evening."""
    try:
        form = schemes.parse(value if isinstance(value, str) else "")
    except schemes.StoredFormError:
        raise InvalidValue("is not a stored password", _EXPECTED_HASH) from None
    if form.quick:
        raise InvalidValue(f"is a password by {form.scheme}, which is quick to guess", _EXPECTED_HASH)
    return str(value)


_Stored = Annotated[str, PlainValidator(_stored)]
_Kept = duration_field(MAX_LIFETIME)


class ConsoleKeys(StrictModel):
    """`console`."""

    bind: HostPortField = HostPort("127.0.0.1", 18081)
    operators: Annotated[dict[NameField, _Stored], Field(min_length=1, max_length=MAX_OPERATORS)]
    hosts: list[HostnameField] = Field(default=[], max_length=16)
    clients: list[PeerField] = Field(default=[], max_length=64)
    lifetime: Annotated[float, _Kept] = DEFAULT_LIFETIME
    idle: Annotated[float, _Kept] = DEFAULT_IDLE

    @model_validator(mode="after")
    def _lasts(self) -> ConsoleKeys:
        for name, seconds in (("lifetime", self.lifetime), ("idle", self.idle)):
            if seconds < 60.0:
                raise InvalidValue("is too short to read a page", "1m or more", path=(name,))
        return self

    def console(self) -> Console:
        hosts = tuple(name.lower() for name in self.hosts)
        return Console(self.bind, dict(self.operators), hosts, (*LOOPBACK, *self.clients), self.lifetime, self.idle)


def check_beside(console: ConsoleKeys, service: object, tls: bool) -> None:
    """What the rest of the file forbids. service: its `bind`. tls: whether it is served in TLS, and so the page too.

    Raises InvalidValue.
    """
    if isinstance(service, HostPort) and service.port == console.bind.port:
        expected = "a port of its own: the service's answers mail servers"
        raise InvalidValue("is the service's own port", expected, value=str(console.bind), path=("console", "bind"))
    if not tls and not is_loopback(console.bind.host):
        expected = "a loopback address, or tls: the password would be sent in clear"
        raise InvalidValue("is open to the network", expected, value=str(console.bind), path=("console", "bind"))
