"""The shape of `routes` and `pools` in policies/*.yaml: keys, types, bounds.

Owns what an operator may write about the way of a session. Refuses to know what a match means: its fields are
the policy language's, so the model is generic in them, and `snapshot` puts the two together. Names (a route's
pool, a reply) are resolved there too.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import Field, PlainValidator

from smtpgate.units import EXPECTED_HOSTPORT, DurationField, HostPortField, InvalidValue, NameField, StrictModel

# nginx's upstream weights and connection counts are ints without a bound; these are beyond any cluster.
MAX_WEIGHT: Final = 1000
MAX_CONNS: Final = 1_000_000
# Further backends tried after the first. Each may cost a connect timeout out of the client's patience.
MAX_ATTEMPTS: Final = 16
UNAVAILABLE: Final = "451 4.4.1 no mail server available, try again later"

M = TypeVar("M", bound=StrictModel)


def _switch(value: Any) -> bool:
    # YAML 1.2 reads on and off as text.
    if value is True or value == "on":
        return True
    if value is False or value == "off":
        return False
    raise InvalidValue("is not a switch", "on, off, true or false", value=value)


def _data_start(value: Any) -> str:
    if value != "data_start":
        raise InvalidValue("is not supported by this version", "data_start", value=value)
    return "data_start"


Switch = Annotated[bool, PlainValidator(_switch)]


class RouteKeys(StrictModel, Generic[M]):
    """One of `routes`; `match: {}` takes everything."""

    name: NameField = Field(description="e.g. default")
    match: M = Field(description="fields and patterns, or {} for everything")
    pool: NameField = Field(description="a name of pools")


class BackendKeys(StrictModel):
    """One of a pool's `backends`. max_conns left out: unbounded."""

    name: NameField = Field(description="e.g. mta1")
    addr: HostPortField = Field(description=EXPECTED_HOSTPORT)
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] = 1
    max_conns: Annotated[int, Field(ge=1, le=MAX_CONNS)] = MAX_CONNS


class FailoverKeys(StrictModel):
    """`failover`: how hard one transaction tries, until its data starts."""

    until: Annotated[str, PlainValidator(_data_start)] = "data_start"
    attempts: Annotated[int, Field(ge=0, le=MAX_ATTEMPTS)] = 2
    deadline: DurationField = 20.0


class UnavailableKeys(StrictModel):
    """`unavailable`: what a client gets when no backend may be asked. reply: a literal or a name of
    `replies`.
    """

    reply: str = Field(description='a literal, e.g. "451 4.4.1 text", or a name of replies')


class PoolKeys(StrictModel):
    """One of `pools`. xclient, smtp_auth, pass_error_message left out: as `backend:` in conf/proxy.yaml
    says.
    """

    balance: Literal["round_robin", "least_conn"] = "round_robin"
    xclient: Literal["auto", "on", "off"] = "auto"
    smtp_auth: Switch = False
    pass_error_message: Switch = False
    backends: list[BackendKeys] = Field(min_length=1, description='e.g. [{name: mta1, addr: "10.1.0.1:25"}]')
    failover: FailoverKeys = FailoverKeys()
    unavailable: UnavailableKeys = UnavailableKeys(reply=UNAVAILABLE)


class RoutingKeys(StrictModel, Generic[M]):
    """The top-level keys of a policies file that concern the way."""

    routes: list[RouteKeys[M]] = Field(default_factory=list)
    pools: dict[NameField, PoolKeys] = Field(default_factory=dict)
