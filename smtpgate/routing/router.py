"""Which route a session takes: the first that matches (shared policy.md, "routes").

Owns the rule of three values: a route may answer True, False, or None when it depends on a fact that is not
known yet (a recipient, before the first RCPT). Refuses to know what a route matches on, and what its pool
holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from smtpgate.routing.model import Route
from smtpgate.routing.table import RouteTable

F = TypeVar("F", contravariant=True)


@dataclass(frozen=True, slots=True)
class Choice(Generic[F]):
    """The outcome of `choose`.

    route: the first route that is definitely True for what is known; None where none is.
    decided: no fact still to come can change `route`. False when a route before it, or any route where
    `route` is None, could not answer yet: ask again with more facts, or take `route` as the best guess (what
    authsvc tells a stock nginx, which will not ask again).
    """

    route: Route[F] | None
    decided: bool


def choose(routes: Sequence[Route[F]], facts: F) -> Choice[F]:
    """Ask the routes in order, or those that a RouteTable has to offer; the first match wins.

    Raises nothing of its own. An empty sequence is Choice(None, decided=True). Routes behind the first True
    one are not asked.
    """
    decided = True
    if isinstance(routes, RouteTable):
        answers = routes.answers(facts)
    else:
        answers = ((route, route.matches(facts)) for route in routes)
    for route, answer in answers:
        if answer:
            return Choice(route, decided)
        if answer is None:
            decided = False
    return Choice(None, decided)
