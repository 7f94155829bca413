"""Routes in their order, with a short way past those that cannot match.

Owns only the promise between whoever built an index of the matches and `router`, who asks it. What a route matches on
is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from smtpgate.routing.model import Route

F = TypeVar("F")

Answers = Iterable[tuple[Route[F], bool | None]]


class RouteTable(tuple[Route[F], ...]):
    """A tuple of routes. `answers(facts)`: (route, its answer) in order, of those that matter to `router.choose`.

    Left out may be every route that is certainly False, and after the first None every further None.
    """

    answers: Callable[[F], Answers[F]]

    def __new__(cls, routes: Iterable[Route[F]], answers: Callable[[F], Answers[F]]) -> RouteTable[F]:
        table = super().__new__(cls, routes)
        table.answers = answers
        return table
