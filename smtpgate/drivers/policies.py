"""The Policy port of a session: the engine, the routes and the pools of the current snapshot.

Owns the swap: a new snapshot reaches engine, routes and pools in one step without IO, so no session sees half of
one. Decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Decision, Event, Facts
from smtpgate.routing import router
from smtpgate.routing.model import PoolSpec, Route
from smtpgate.session.ports import PoolTarget
from smtpgate.snapshot import Snapshot


class Policies:
    """Limits, routes and pools as they are now. replace_pools is told of the pools of each new snapshot."""

    def __init__(self, engine: Engine, replace_pools: Callable[[Mapping[str, PoolSpec]], None]) -> None:
        self._engine = engine
        self._replace_pools = replace_pools
        self._routes: tuple[Route[Facts], ...] = ()

    def apply(self, snapshot: Snapshot) -> None:
        self._engine.swap(snapshot.policy)
        self._routes = snapshot.routes
        self._replace_pools(snapshot.pools)

    def decide(self, event: Event, facts: Facts) -> Decision:
        return self._engine.decide(event, facts)

    def route(self, facts: Facts) -> PoolTarget | None:
        route = router.choose(self._routes, facts).route
        return None if route is None else PoolTarget(route.pool, route.name)
