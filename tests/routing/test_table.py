"""A table of routes is a tuple, and `choose` asks only what it offers."""

from smtpgate.routing.model import Route
from smtpgate.routing.router import Choice, choose
from smtpgate.routing.table import RouteTable


def refuse(facts: str) -> bool:
    raise AssertionError("asked one by one")


FIRST, SECOND = Route("a", "p", refuse, "f:1"), Route("b", "p", refuse, "f:2")


def test_it_is_its_routes() -> None:
    table = RouteTable([FIRST, SECOND], lambda facts: [])
    assert table == (FIRST, SECOND)
    assert [route.name for route in table] == ["a", "b"]


def test_choose_asks_the_table() -> None:
    offers: dict[str, list[tuple[Route[str], bool | None]]] = {
        "nothing": [],
        "sure": [(FIRST, False), (SECOND, True)],
        "open": [(FIRST, None), (SECOND, True)],
        "never": [(FIRST, None)],
    }
    table = RouteTable([FIRST, SECOND], offers.__getitem__)
    assert choose(table, "nothing") == Choice(None, decided=True)
    assert choose(table, "sure") == Choice(SECOND, decided=True)
    assert choose(table, "open") == Choice(SECOND, decided=False)
    assert choose(table, "never") == Choice(None, decided=False)
