"""Where a client that may pass is sent: pool for our proxy, literal address for a stock nginx.

Owns the choice for one answer, from the routes and pools of the current policies. The pool is told only when
no fact of the envelope can change it; else Auth-Pool is `*` and our proxy asks its own routes. A stock nginx
does not ask again, so it gets a backend of the first route that matches already: one that is active, no backup while
there is a primary, and none that somebody has said is down (`told`). This process probes nobody itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from authsvc.answer.addresses import Addresses
from authsvc.answer.contract import OWN_ROUTES
from smtpgate.clock import Clock
from smtpgate.policy.model import Facts
from smtpgate.routing import router
from smtpgate.routing.model import Balance, PoolSpec, Route
from smtpgate.routing.pool import Open, PoolState

# Names to look up for one answer when lookups fail: each may take as long as the resolver does.
MAX_TRIES: Final = 2


class NoDestinationError(Exception):
    """The policies lead nowhere for this client. `str()` is for the log."""


@dataclass(frozen=True, slots=True)
class Destination:
    """pool: a name or OWN_ROUTES. server: a literal address and a port, None if no name could be looked up.
    route: the name of the route that chose, None if the user's record did.
    """

    pool: str
    server: tuple[str, int] | None
    route: str | None


class Destinations:
    """The routes and pools of the current policies, and the turn of each pool's backends in this process."""

    def __init__(self, addresses: Addresses, clock: Clock) -> None:
        self._addresses = addresses
        self._clock = clock
        self._routes: tuple[Route[Facts], ...] = ()
        self._pools: dict[str, PoolState] = {}

    def replace(self, routes: Sequence[Route[Facts]], pools: Mapping[str, PoolSpec]) -> None:
        """Take over edited policies. Does no IO. Pools that stay the same go on with their turn."""
        states = {}
        now = self._clock.monotonic()
        for name, spec in pools.items():
            blind = _blind(spec)
            states[name] = self._pools.get(name) or PoolState(blind, now)
            states[name].replace(blind, now)
        self._routes, self._pools = tuple(routes), states

    def look_up(self) -> None:
        """Look up the names of all backends. To be called after `replace`, where nobody waits: takes as long as the
        name servers do, for each name in turn.
        """
        pools = self._pools.values()
        self._addresses.follow({backend.host for pool in pools for backend in pool.spec.backends})

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """As they are now, by name."""
        return {name: state.spec for name, state in self._pools.items()}

    def probed(self, pool: str, backend: str, up: bool, reason: str) -> bool:
        """A probe's finding; whether it has changed what is thought of the backend. Unknown names are ignored."""
        state = self._pools.get(pool)
        return state is not None and state.probed(backend, up, reason, self._clock.monotonic())

    def find(self, facts: Facts, pool: str | None = None) -> Destination:
        """The destination for `facts`, or in `pool` where the user's record names one.

        Raises NoDestinationError: no route matches, or the pool does not exist.
        """
        if pool is not None:
            if pool not in self._pools:
                raise NoDestinationError(f"the user's pool {pool} does not exist in the policies")
            return Destination(pool, self._server(pool, facts), None)
        choice = router.choose(self._routes, facts)
        if choice.route is None:
            raise NoDestinationError("no route matches")
        name = choice.route.pool if choice.decided else OWN_ROUTES
        return Destination(name, self._server(choice.route.pool, facts), choice.route.name)

    def _server(self, pool: str, facts: Facts) -> tuple[str, int] | None:
        """A healthy backend of `pool` or of those that it falls back to; where none is healthy, any of them."""
        chain = [self._pools[pool]]
        while (after := chain[-1].spec.fallback) is not None:  # the loader has seen to it that they end
            chain.append(self._pools[after])
        tried: dict[str, set[str]] = {state.spec.name: set() for state in chain}
        for anyone in (False, True):
            for state in chain:
                hash_key = _hash_key(state.spec, facts)
                while sum(map(len, tried.values())) < MAX_TRIES:
                    mine = tried[state.spec.name]
                    taken = state.acquire(self._clock.monotonic(), tried=mine, hash_key=hash_key, anyone=anyone)
                    if not isinstance(taken, Open):
                        break
                    state.release(taken.backend.name)
                    address = self._addresses.literal(taken.backend.host)
                    if address is not None:
                        return address, taken.backend.port
                    mine.add(taken.backend.name)
        return None


def _blind(spec: PoolSpec) -> PoolSpec:
    """Sessions that nginx opens end unseen by us: turns can be counted here, connections cannot.

    A hash needs no count, so a client finds the same backend by either way.
    """
    balance = spec.balance if spec.balance is Balance.HASH else Balance.ROUND_ROBIN
    backends = tuple(replace(backend, max_conns=None) for backend in spec.backends)
    return replace(spec, balance=balance, backends=backends)


def _hash_key(spec: PoolSpec, facts: Facts) -> str | None:
    return {"user": facts.user, "client": facts.client, "domain": facts.rcpt_domain}[spec.hash_key]
