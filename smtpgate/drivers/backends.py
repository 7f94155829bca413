"""The Backends port: performs what the pools decide, with sockets.

Owns the pools of one process and the accounting of leases. Refuses to decide: which backend is `routing.pool`'s
matter, what to do when it fails is `session.relay`'s.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.routing.model import BackendSettings, Failover, PoolSpec
from smtpgate.routing.pool import Open, PoolState
from smtpgate.session.link import BackendLink
from smtpgate.session.ports import (
    AddressTarget,
    BackendRefused,
    DialFailed,
    PoolTarget,
    Stream,
    StreamLost,
    StreamTimeout,
    Target,
)
from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply

CONNECT_TIMEOUT: Final = 5.0  # reference/security.md section 3: connect 5 s, then the next node

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BackendLease:
    """A Lease: one connection and, where it came from a pool, its slot there."""

    def __init__(self, backend: str, stream: Stream, clock: Clock, give_back: Callable[[], None]) -> None:
        self.backend = backend
        self.link = BackendLink(stream, clock)
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self.link.close()
            give_back()


class PoolBackends:
    """Backends by pool name, and by address for answers without Auth-Pool.

    settings: for addresses (`backend:`). allow: networks that an address may lie in; empty means any. own_ports: of
    this machine, where this proxy listens itself; an address with one of them would be a loop.
    """

    def __init__(
        self,
        clock: Clock,
        connect: Callable[[str, int, Deadline], Stream],
        settings: BackendSettings,
        *,
        allow: Collection[Network] = (),
        own_ports: Collection[int] = (),
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._settings = settings
        self._allow = tuple(allow)
        self._own_ports = frozenset(own_ports)
        self._pools: dict[str, PoolState] = {}

    def replace(self, pools: Mapping[str, PoolSpec]) -> None:
        """Take over an edited set of pools. Sessions under way end where they began."""
        for name, spec in pools.items():
            if name in self._pools:
                self._pools[name].replace(spec)
            else:
                self._pools[name] = PoolState(spec)
        for name in self._pools.keys() - pools.keys():
            del self._pools[name]

    def plan(self, target: Target) -> tuple[BackendSettings, Failover]:
        if isinstance(target, AddressTarget):
            return self._settings, Failover(attempts=0)
        spec = self._pool(target).spec
        # Tries that no backend is there for would only cut the time of the others short.
        attempts = min(spec.failover.attempts, len(spec.backends) - 1)
        return spec.settings, replace(spec.failover, attempts=attempts)

    def unavailable(self, target: Target) -> Reply:
        if isinstance(target, AddressTarget):
            return replies.INTERNAL_ERROR
        return replies.parse(self._pool(target).spec.unavailable)

    def lease(self, target: Target, tried: Collection[str], deadline: Deadline) -> BackendLease:
        if isinstance(target, AddressTarget):
            return self._lease_address(target, deadline)
        pool = self._pool(target)
        decision = pool.acquire(tried)
        if not isinstance(decision, Open):
            raise BackendRefused(f"pool {target.pool}: {decision.reason}", self.unavailable(target))
        backend = decision.backend
        try:
            stream = self._dial(backend.name, backend.host, backend.port, deadline)
        except BaseException:  # a killed greenlet must give its slot back too
            pool.release(backend.name)
            raise
        return BackendLease(backend.name, stream, self._clock, lambda: pool.release(backend.name))

    def _lease_address(self, target: AddressTarget, deadline: Deadline) -> BackendLease:
        name = f"{target.host}:{target.port}"
        if not self._permitted(target):
            raise BackendRefused(
                f"Auth-Server {name} is not allowed by backend.allow, or is a listener of ours",
                replies.INTERNAL_ERROR,
            )
        return BackendLease(name, self._dial(name, target.host, target.port, deadline), self._clock, _nothing)

    def _permitted(self, target: AddressTarget) -> bool:
        """An answer that may name any address could make us a client of anything (reference/security.md D9)."""
        if target.port in self._own_ports and is_local(target.host):
            return False
        address = ipaddress.ip_address(target.host)
        return not self._allow or any(address in network for network in self._allow)

    def _dial(self, name: str, host: str, port: int, deadline: Deadline) -> Stream:
        budget = Deadline(self._clock, min(CONNECT_TIMEOUT, deadline.remaining()))
        try:
            return self._connect(host, port, budget)
        except StreamTimeout:
            raise DialFailed(name, "connect timed out") from None
        except StreamLost as lost:
            raise DialFailed(name, str(lost)) from None

    def _pool(self, target: PoolTarget) -> PoolState:
        try:
            return self._pools[target.pool]
        except KeyError:
            raise BackendRefused(f"unknown pool {target.pool!r}", replies.INTERNAL_ERROR.closing()) from None


@functools.lru_cache(maxsize=1024)
def is_local(host: str) -> bool:
    """Whether an address is one of this machine's own: the kernel lets us bind to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _nothing() -> None:
    """An address has no pool to give a slot back to."""
