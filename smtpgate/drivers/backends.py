"""The Backends port: performs what the pools decide, with sockets.

Owns the pools of one process: who waits for a place, which connection is used again, when a pool's fallback is asked.
Refuses to decide which backend of a pool takes a session (`routing.pool`), how a connection is made (`drivers.dial`),
and what to do when one fails (`session.relay`).
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.connecting import OutOfResources
from smtpgate.drivers.idle import IdleLinks, Way
from smtpgate.drivers.lease import BackendLease, PoolSlot
from smtpgate.drivers.waiting import Decision, WaitingRoom
from smtpgate.routing.model import BackendSettings, BackendSpec, Failover, PoolSpec, ReuseSpec
from smtpgate.routing.pool import Open, PoolState, Refuse, Wait
from smtpgate.session.link import BackendLink
from smtpgate.session.ports import AddressTarget, Attending, BackendRefused, DialFailed, PoolTarget, Seeker, Target
from smtpgate.session.streams import Stream, StreamLost, StreamTimeout
from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply

CONNECT_TIMEOUT: Final = 5.0  # reference/security.md section 3: connect 5 s, then the next node

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Dial(Protocol):
    def __call__(
        self, host: str, port: int, settings: BackendSettings, seeker: Seeker | None, deadline: Deadline
    ) -> Stream: ...


@dataclass(frozen=True, slots=True)
class _Pool:
    """A pool, and who waits for it."""

    state: PoolState
    room: WaitingRoom = field(default_factory=WaitingRoom)

    @property
    def spec(self) -> PoolSpec:
        return self.state.spec


@dataclass(frozen=True, slots=True)
class Direct:
    """How addresses are spoken to (`backend:`). allow: networks that one may lie in; empty means any."""

    settings: BackendSettings
    allow: tuple[Network, ...] = ()


class PoolBackends:
    """Backends by pool name, and by address for answers without Auth-Pool.

    settings, allow: for addresses, see Direct. chance: numbers drawn evenly from [0, 1). changed: told of pool,
    backend and whether it is up, when a breaker has turned. own_ports: of this machine, where this proxy listens
    itself; an address with one of them would be a loop.
    """

    def __init__(
        self,
        clock: Clock,
        dial: Dial,
        settings: BackendSettings,
        chance: Callable[[], float],
        *,
        changed: Callable[[str, str, bool], None] = lambda pool, backend, up: None,
        allow: Collection[Network] = (),
        own_ports: Collection[int] = (),
    ) -> None:
        self._clock = clock
        self._dial_stream = dial
        self._direct = Direct(settings, tuple(allow))
        self._chance = chance
        self._changed = changed
        self._own_ports = frozenset(own_ports)
        self._pools: dict[str, _Pool] = {}
        # What follows from the pools as they are now, for as long as they are: every message asks.
        self._plans: dict[str, Failover] = {}
        self._ways: dict[tuple[str, str], Way] = {}
        self._orders: Mapping[str, Mapping[str, str]] = {}
        self._idle = IdleLinks(clock)
        self._draining = False

    # --- for the process -----------------------------------------------------------------------------------------

    @property
    def pools(self) -> Mapping[str, PoolState]:
        return {name: pool.state for name, pool in self._pools.items()}

    @property
    def idle(self) -> int:
        """Connections that rest."""
        return len(self._idle)

    @property
    def resting(self) -> Mapping[tuple[str, str], int]:
        """The same by pool and backend."""
        return self._idle.counts()

    @property
    def waiting(self) -> Mapping[str, int]:
        """Sessions in the queue of each pool."""
        return {name: len(pool.room) for name, pool in self._pools.items()}

    def replace(self, pools: Mapping[str, PoolSpec]) -> None:
        """Take over an edited set of pools. Sessions under way end where they began; connections that rest and would
        not be made now are closed.
        """
        now = self._clock.monotonic()
        for name, spec in pools.items():
            if name in self._pools:
                self._pools[name].state.replace(spec, now)
            else:
                self._pools[name] = _Pool(PoolState(spec, now))
        for name in self._pools.keys() - pools.keys():
            del self._pools[name]
        self._carry_out()

    def obey(self, orders: Mapping[str, Mapping[str, str]]) -> None:
        """An operator's orders, all of them: pool -> backend -> who says that it takes no new sessions. They outlast
        every edit; names that are not known yet are kept in mind.
        """
        self._orders = orders
        self._carry_out()

    def _carry_out(self) -> None:
        """Pools or orders have changed."""
        now = self._clock.monotonic()
        self._plans.clear()
        self._ways.clear()
        for name, pool in self._pools.items():
            pool.state.drain(self._orders.get(name, {}), now)
        self._idle.retain(self._wanted)
        self.serve()

    def serve(self) -> None:
        """The state of backends has changed: somebody who waits may have found a place."""
        for pool in self._pools.values():
            pool.room.serve()

    def drain(self) -> None:
        """The process ends: keep no connection for anybody."""
        self._draining = True
        self._idle.close()

    # --- for a session -------------------------------------------------------------------------------------------

    def check(self, target: Target, direct: Direct | None = None) -> None:
        if isinstance(target, PoolTarget):
            self._pool(target)
        else:
            self._permit(target, direct or self._direct)

    def plan(self, target: Target) -> Failover:
        if isinstance(target, AddressTarget):
            return Failover(attempts=0)
        plan = self._plans.get(target.pool)
        if plan is None:
            pool = self._pool(target)
            tries = sum(_tries(one) for one in self._chain(pool))
            plan = self._plans[target.pool] = replace(pool.spec.failover, attempts=max(0, tries - 1))
        return plan

    def unavailable(self, target: Target) -> Reply:
        if isinstance(target, AddressTarget):
            return replies.NO_BACKEND
        *_, last = self._chain(self._pool(target))
        return replies.parse(last.spec.unavailable)

    def lease(
        self,
        target: Target,
        seeker: Seeker,
        tried: Collection[str],
        deadline: Deadline,
        attending: Attending = nullcontext,
        direct: Direct | None = None,
    ) -> BackendLease:
        if isinstance(target, AddressTarget):
            return self._lease_address(target, seeker, deadline, direct or self._direct)
        first = self._pool(target)
        pool, opened = self._choose(first, target, seeker, tried, deadline, attending)
        changed = functools.partial(self._changed, pool.spec.name)
        slot = PoolSlot(self._clock, pool.state, opened, changed, pool.room.serve)
        way = self._way(pool.spec, opened.backend)
        try:
            return self._connect(_label(first, pool, way.backend), way, slot, seeker, deadline)
        except BaseException:  # a killed greenlet must give its slot back too
            slot.free()
            raise

    def _way(self, spec: PoolSpec, backend: BackendSpec) -> Way:
        way = self._ways.get((spec.name, backend.name))
        if way is not None and (way.host, way.port) == (backend.host, backend.port):
            return way
        way = Way(spec.name, backend.name, backend.host, backend.port, spec.settings, spec.reuse)
        pool = self._pools.get(spec.name)
        # Whoever waited for a place may have been given it before an edit: what was edited away is not remembered.
        if pool is not None and pool.spec is spec and backend in spec.backends:
            self._ways[spec.name, backend.name] = way
        return way

    def _lease_address(
        self, target: AddressTarget, seeker: Seeker, deadline: Deadline, direct: Direct
    ) -> BackendLease:
        name = f"{target.host}:{target.port}"
        self._permit(target, direct)
        way = Way("", name, target.host, target.port, direct.settings, ReuseSpec())
        return self._connect(name, way, None, seeker, deadline)

    def _permit(self, target: AddressTarget, direct: Direct) -> None:
        """An answer that may name any address could make us a client of anything (reference/security.md D9). Raises
        BackendRefused.
        """
        address = ipaddress.ip_address(target.host)
        allowed = not direct.allow or any(address in network for network in direct.allow)
        if not allowed or (target.port in self._own_ports and is_local(target.host)):
            name = f"{target.host}:{target.port}"
            reason = f"Auth-Server {name} is not allowed by backend.allow, or is a listener of ours"
            raise BackendRefused(reason, replies.INTERNAL_ERROR)

    def _pool(self, target: PoolTarget) -> _Pool:
        try:
            return self._pools[target.pool]
        except KeyError:
            raise BackendRefused(f"unknown pool {target.pool!r}", replies.INTERNAL_ERROR.closing()) from None

    def _chain(self, pool: _Pool) -> Iterator[_Pool]:
        """The pool and those that it falls back to. The loader has seen to it that they make no circle."""
        yield pool
        while pool.spec.fallback is not None and pool.spec.fallback in self._pools:
            pool = self._pools[pool.spec.fallback]
            yield pool

    # --- which backend -------------------------------------------------------------------------------------------

    def _choose(
        self,
        first: _Pool,
        target: Target,
        seeker: Seeker,
        tried: Collection[str],
        deadline: Deadline,
        attending: Attending,
    ) -> tuple[_Pool, Open]:
        """A place on the first pool of the chain that has a healthy one; if none has, on the first that has any."""
        chain = list(self._chain(first))
        reasons: dict[str, str] = {}
        for anyone in (False, True) if len(chain) > 1 else (True,):
            for pool in chain:
                mine = _tried_of(first, pool, tried)
                if reasons.get(pool.spec.name, "down") != "down" or (not anyone and len(mine) >= _tries(pool)):
                    continue
                decision = self._ask(pool, seeker, mine, anyone, deadline, attending)
                if isinstance(decision, Open):
                    return pool, decision
                reasons[pool.spec.name] = decision.reason
        told = ", ".join(f"pool {name}: {reason}" for name, reason in reasons.items())
        raise BackendRefused(told, self.unavailable(target))

    def _ask(
        self,
        pool: _Pool,
        seeker: Seeker,
        tried: Collection[str],
        anyone: bool,
        deadline: Deadline,
        attending: Attending,
    ) -> Open | Refuse:
        """What the pool says in the end; it may let us wait first, for half of the time: a connection that was left
        with none would be held against its backend.
        """
        queue = pool.spec.queue
        seconds = min(queue.wait, deadline.remaining() / 2)
        ask = functools.partial(self._acquire, pool, seeker, tried, anyone)
        decision = ask(may_wait=seconds > 0 and len(pool.room) < queue.max)
        if isinstance(decision, Wait):
            wants, give_back = (frozenset(tried), anyone), functools.partial(self._return, pool)
            with attending():
                decision = pool.room.wait(wants, functools.partial(ask, may_wait=True), seconds, give_back)
        if isinstance(decision, Wait):
            decision = ask(may_wait=False)
        assert not isinstance(decision, Wait), "nobody waits who may not"
        return decision

    def _acquire(
        self, pool: _Pool, seeker: Seeker, tried: Collection[str], anyone: bool, *, may_wait: bool
    ) -> Decision:
        spec = pool.spec
        key = {"user": seeker.user, "client": seeker.client, "domain": seeker.domain}[spec.hash_key]
        now, chance = self._clock.monotonic(), self._chance()
        return pool.state.acquire(now, tried=tried, hash_key=key, chance=chance, may_wait=may_wait, anyone=anyone)

    @staticmethod
    def _return(pool: _Pool, opened: Open) -> None:
        pool.state.release(opened.backend.name, trial=opened.trial)
        pool.room.serve()

    # --- its connection ------------------------------------------------------------------------------------------

    def _connect(
        self, label: str, way: Way, slot: PoolSlot | None, seeker: Seeker, deadline: Deadline
    ) -> BackendLease:
        """A connection that rested, or a new one."""
        kept = self._idle.take(way)
        link = BackendLink(self._dial(label, way, slot, seeker, deadline), self._clock) if kept is None else kept.link
        return BackendLease(
            label,
            way,
            slot,
            link,
            functools.partial(self._rest, way),
            client=seeker.client,
            made=self._clock.monotonic() if kept is None else kept.made,
            messages=0 if kept is None else kept.messages,
            greeted=kept is not None,
        )

    def _dial(self, label: str, way: Way, slot: PoolSlot | None, seeker: Seeker, deadline: Deadline) -> Stream:
        if deadline.expired:
            raise DialFailed(label, "no time was left to connect")  # which says nothing of the backend
        budget = Deadline(self._clock, min(CONNECT_TIMEOUT, deadline.remaining()))
        try:
            return self._dial_stream(way.host, way.port, way.settings, seeker, budget)
        except OutOfResources as ours:  # or a crowd of clients could put every backend out
            raise BackendRefused(f"{label}: {ours}", replies.NO_RESOURCES) from None
        except (StreamTimeout, StreamLost) as fault:
            if slot is not None:
                slot.connect_failed()
            raise DialFailed(label, str(fault) or "connect timed out") from None

    def _rest(self, way: Way) -> IdleLinks | None:
        """Where a connection of this way may rest now."""
        return self._idle if self._wanted(way) and not self._draining else None

    def _wanted(self, way: Way) -> bool:
        """Whether a connection would still be made this way: nobody who was edited away keeps any."""
        if way.pool == "" or self._ways.get((way.pool, way.backend)) is way:
            return True
        pool = self._pools.get(way.pool)
        if pool is None or (pool.spec.settings, pool.spec.reuse) != (way.settings, way.reuse):
            return False
        wanted = (way.backend, way.host, way.port)
        known = any((one.name, one.host, one.port) == wanted for one in pool.spec.backends)
        return known and pool.state.takes(way.backend)


class ListenerBackends:
    """The Backends of a listener whose `backend` is its own: pools are those of the process."""

    def __init__(self, pools: PoolBackends, direct: Direct) -> None:
        self._direct = direct
        self._pools = pools
        self.plan = pools.plan
        self.unavailable = pools.unavailable

    def check(self, target: Target) -> None:
        self._pools.check(target, self._direct)

    def lease(
        self,
        target: Target,
        seeker: Seeker,
        tried: Collection[str],
        deadline: Deadline,
        attending: Attending = nullcontext,
    ) -> BackendLease:
        return self._pools.lease(target, seeker, tried, deadline, attending, self._direct)


def _tries(pool: _Pool) -> int:
    """Tries that no backend is there for would only cut the time of the others short."""
    return min(pool.spec.failover.attempts + 1, pool.state.takers)


def _label(first: _Pool, pool: _Pool, backend: str) -> str:
    """Backends' names are their pool's own: those of a fallback are told apart by its name."""
    return backend if pool is first else f"{pool.spec.name}/{backend}"


def _tried_of(first: _Pool, pool: _Pool, tried: Collection[str]) -> list[str]:
    """What `tried` says of this pool's backends. A name has no slash in it."""
    if pool is first:
        return [label for label in tried if "/" not in label]
    prefix = f"{pool.spec.name}/"
    return [label.removeprefix(prefix) for label in tried if label.startswith(prefix)]


def is_local(host: str) -> bool:
    """Whether an address is one of this machine's own now: the kernel lets us bind to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
