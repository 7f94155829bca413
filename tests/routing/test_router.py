"""The first route that matches wins, and says whether later facts could still change that."""

from __future__ import annotations

import pytest

from smtpgate.routing.model import Route
from smtpgate.routing.router import Choice, choose


def route(name: str, answer: bool | None) -> Route[str]:
    return Route(name, f"pool-{name}", lambda facts: answer, "routes.yaml:1")


@pytest.mark.parametrize(
    ("answers", "chosen", "decided"),
    [
        ([], None, True),
        ([False], None, True),
        ([True], 0, True),
        ([False, True], 1, True),
        ([True, True], 0, True),
        ([True, None], 0, True),
        ([None], None, False),
        ([None, False], None, False),
        ([None, True], 1, False),
        ([False, None, True, None], 2, False),
        ([None, None], None, False),
    ],
)
def test_first_match_wins(answers: list[bool | None], chosen: int | None, decided: bool) -> None:
    routes = [route(str(i), answer) for i, answer in enumerate(answers)]
    assert choose(routes, "facts") == Choice(None if chosen is None else routes[chosen], decided)


def test_facts_reach_the_routes_in_order_and_no_further_than_the_match() -> None:
    asked: list[tuple[str, str]] = []

    def asking(name: str, user: str) -> Route[str]:
        def matches(facts: str) -> bool:
            asked.append((name, facts))
            return facts == user

        return Route(name, "pool", matches, "routes.yaml:1")

    routes = [asking("ann", "ann"), asking("bob", "bob"), asking("cid", "bob")]
    choice = choose(routes, "bob")
    assert choice.route is routes[1]
    assert choice.decided
    assert asked == [("ann", "bob"), ("bob", "bob")]


def test_a_fact_that_arrives_decides() -> None:
    """A route on the recipient cannot answer at AUTH; at RCPT it can."""

    def partner(rcpt: str | None) -> bool | None:
        return None if rcpt is None else rcpt.endswith("@partner.example")

    to_partner: Route[str | None] = Route("partner", "partner", partner, "routes.yaml:1")
    default: Route[str | None] = Route("default", "core", lambda rcpt: True, "routes.yaml:2")
    routes = [to_partner, default]
    assert choose(routes, None) == Choice(default, decided=False)
    assert choose(routes, "b@partner.example") == Choice(to_partner, decided=True)
    assert choose(routes, "b@example.com") == Choice(default, decided=True)
