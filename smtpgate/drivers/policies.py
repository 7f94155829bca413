"""The Policy port of a session: the engine, the routes and the pools of the current snapshot.

Owns the swap: a new snapshot reaches engine, routes and pools in one step without IO, so no session sees half of
one. Decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from smtpgate.policy.model import Decision, Event, Facts, Paid, Slot
from smtpgate.policy.select import Policy
from smtpgate.routing import router
from smtpgate.routing.model import PoolSpec, Route
from smtpgate.session.ports import PoolTarget
from smtpgate.snapshot import Snapshot


class Deciding(Protocol):
    """The part of policy.engine.Engine that is needed here."""

    @property
    def policy(self) -> Policy: ...

    def swap(self, policy: Policy) -> None: ...

    def decide(self, event: Event, facts: Facts, *, turn: bool = False, hold: float | None = None) -> Decision: ...

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None: ...

    def release(self, slots: Sequence[Slot]) -> None: ...

    def held_for(self, limit: str, seconds: float) -> None: ...


class Policies:
    """Limits, routes and pools as they are now. replace_pools is told of the pools of each new snapshot."""

    def __init__(self, engine: Deciding, replace_pools: Callable[[Mapping[str, PoolSpec]], None]) -> None:
        self._engine = engine
        self._replace_pools = replace_pools
        self._asked: frozenset[Event] = frozenset()
        self._routes: Sequence[Route[Facts]] = ()
        # As they are: nothing is to be added, and a session asks often.
        self.refund = engine.refund
        self.release = engine.release
        self.held_for = engine.held_for

    def apply(self, snapshot: Snapshot) -> None:
        self._engine.swap(snapshot.policy)
        self._asked = frozenset(event for event, limits in snapshot.policy.limits.items() if limits)
        self._routes = snapshot.routes
        self._replace_pools(snapshot.pools)

    @property
    def mixed_recipients(self) -> Literal["defer", "first"]:
        return self._engine.policy.mixed_recipients

    def asks(self, event: Event) -> bool:
        return event in self._asked

    def decide(self, event: Event, facts: Facts, *, turn: bool = False, hold: float | None = None) -> Decision:
        return self._engine.decide(event, facts, turn=turn, hold=hold)

    def route(self, facts: Facts) -> PoolTarget | None:
        route = router.choose(self._routes, facts).route
        return None if route is None else PoolTarget(route.pool, route.name)
