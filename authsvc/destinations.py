"""Where a client that may pass is sent: pool for our proxy, literal address for a stock nginx.

Owns the choice for one answer, from the routes and pools of the current policies. The pool is told only when
no fact of the envelope can change it; else Auth-Pool is `*` and our proxy asks its own routes. A stock nginx
does not ask again, so it gets a backend of the first route that matches already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from authsvc.addresses import Addresses
from authsvc.contract import OWN_ROUTES
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

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._routes: tuple[Route[Facts], ...] = ()
        self._pools: dict[str, PoolState] = {}

    def replace(self, routes: Sequence[Route[Facts]], pools: Mapping[str, PoolSpec]) -> None:
        """Take over edited policies. Does no IO. Pools that stay the same go on with their turn."""
        states = {}
        for name, spec in pools.items():
            # Sessions that nginx opens end unseen by us: turns can be counted here, connections cannot.
            backends = tuple(replace(backend, max_conns=None) for backend in spec.backends)
            blind = replace(spec, balance=Balance.ROUND_ROBIN, backends=backends)
            states[name] = self._pools.get(name) or PoolState(blind)
            states[name].replace(blind)
        self._routes, self._pools = tuple(routes), states

    def look_up(self) -> None:
        """Look up the names of all backends. To be called after `replace`, where nobody waits: takes as long as the
        name servers do, for each name in turn.
        """
        pools = self._pools.values()
        self._addresses.follow({backend.host for pool in pools for backend in pool.spec.backends})

    def find(self, facts: Facts, pool: str | None = None) -> Destination:
        """The destination for `facts`, or in `pool` where the user's record names one.

        Raises NoDestinationError: no route matches, or the pool does not exist.
        """
        if pool is not None:
            if pool not in self._pools:
                raise NoDestinationError(f"the user's pool {pool} does not exist in the policies")
            return Destination(pool, self._server(pool), None)
        choice = router.choose(self._routes, facts)
        if choice.route is None:
            raise NoDestinationError("no route matches")
        name = choice.route.pool if choice.decided else OWN_ROUTES
        return Destination(name, self._server(choice.route.pool), choice.route.name)

    def _server(self, pool: str) -> tuple[str, int] | None:
        state = self._pools[pool]
        tried: set[str] = set()
        while len(tried) < MAX_TRIES:
            taken = state.acquire(tried)
            if not isinstance(taken, Open):
                return None
            state.release(taken.backend.name)
            address = self._addresses.literal(taken.backend.host)
            if address is not None:
                return address, taken.backend.port
            tried.add(taken.backend.name)
        return None
