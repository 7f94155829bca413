"""Pools, backends and routes, as frozen values. Owns no behaviour."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

F = TypeVar("F", contravariant=True)


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """How to speak to a backend (conf/proxy.yaml `backend:`; a pool may say otherwise).

    xclient: send XCLIENT if the backend advertises it (auto), always (on, as nginx), never (off).
    smtp_auth: replay the client's credentials as AUTH PLAIN.
    pass_error_message: show the backend's own words when its handshake fails (nginx's proxy_pass_error_message).
    """

    xclient: Literal["auto", "on", "off"] = "auto"
    smtp_auth: bool = False
    pass_error_message: bool = False


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One mail server. max_conns: sessions at once from one worker process; None is unbounded."""

    name: str
    host: str
    port: int
    weight: int = 1
    max_conns: int | None = None


class Balance(enum.Enum):
    ROUND_ROBIN = "round_robin"
    LEAST_CONN = "least_conn"


@dataclass(frozen=True, slots=True)
class Failover:
    """attempts: further backends to try after the first. deadline: seconds in which one command finds a backend."""

    attempts: int = 2
    deadline: float = 20.0


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as the operator wrote it. unavailable: the reply (code, enhanced code, text) when nobody is left."""

    name: str
    backends: tuple[BackendSpec, ...]
    balance: Balance = Balance.ROUND_ROBIN
    settings: BackendSettings = BackendSettings()
    failover: Failover = Failover()
    unavailable: str = "451 4.4.1 no mail server available, try again later"


@dataclass(frozen=True, slots=True)
class Route(Generic[F]):
    """`matches(facts)`: True, False, or None when it depends on a fact that is not known yet.

    source is "file:line" of the route.
    """

    name: str
    pool: str
    matches: Callable[[F], bool | None]
    source: str
