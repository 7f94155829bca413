from __future__ import annotations

from collections.abc import Callable

import pytest

from authsvc.addresses import Addresses, LookupFailedError
from authsvc.destinations import Destination, Destinations, NoDestinationError
from smtpgate.policy.model import Facts
from smtpgate.routing.model import BackendSpec, Balance, PoolSpec, Route

FACTS = Facts(client="192.0.2.7", login="test", user="test")


def route(name: str, answer: Callable[[Facts], bool | None]) -> Route[Facts]:
    return Route(name, f"{name}-pool", answer, f"policies/routes.yaml:{len(name)}")


def pool(name: str, *hosts: str, balance: Balance = Balance.ROUND_ROBIN) -> PoolSpec:
    backends = tuple(BackendSpec(f"{name}{n}", host, 25 + n, max_conns=1) for n, host in enumerate(hosts))
    return PoolSpec(name, backends, balance)


@pytest.fixture
def destinations(clock) -> Destinations:
    def lookup(host: str) -> str:
        if host != "mta.example":
            raise LookupFailedError(host)
        return "192.0.2.99"

    return Destinations(Addresses(clock, lookup))


CORE = route("core", lambda facts: True)
VIP = route("vip", lambda facts: facts.user == "test")
LATER = route("later", lambda facts: None if facts.rcpt is None else True)
POOLS = {
    "core-pool": pool("core-pool", "127.0.0.1", "::1"),
    "vip-pool": pool("vip-pool", "127.0.0.2"),
    "later-pool": pool("later-pool", "127.0.0.3"),
}


def test_a_route_that_is_decided_names_its_pool(destinations: Destinations) -> None:
    destinations.replace([VIP, CORE], POOLS)
    assert destinations.find(FACTS) == Destination("vip-pool", ("127.0.0.2", 25), "vip")


def test_a_route_that_waits_for_the_envelope_is_left_to_the_proxy(destinations: Destinations) -> None:
    destinations.replace([LATER, CORE], POOLS)
    assert destinations.find(FACTS) == Destination("*", ("127.0.0.1", 25), "core")


def test_a_route_behind_the_first_match_does_not_matter(destinations: Destinations) -> None:
    destinations.replace([VIP, LATER, CORE], POOLS)
    assert destinations.find(FACTS).pool == "vip-pool"


def test_the_users_own_pool_wins(destinations: Destinations) -> None:
    destinations.replace([LATER, CORE], POOLS)
    assert destinations.find(FACTS, "vip-pool") == Destination("vip-pool", ("127.0.0.2", 25), None)


def test_an_unknown_pool_of_a_user_leads_nowhere(destinations: Destinations) -> None:
    destinations.replace([CORE], POOLS)
    with pytest.raises(NoDestinationError, match="the user's pool gone does not exist in the policies"):
        destinations.find(FACTS, "gone")


def test_without_routes_there_is_no_way(destinations: Destinations) -> None:
    with pytest.raises(NoDestinationError, match="no route matches"):
        destinations.find(FACTS)


@pytest.mark.parametrize("balance", list(Balance))
def test_backends_take_turns_without_regard_to_max_conns(destinations: Destinations, balance: Balance) -> None:
    destinations.replace([CORE], {"core-pool": pool("core-pool", "127.0.0.1", "127.0.0.2", balance=balance)})
    servers = [destinations.find(FACTS).server for _ in range(4)]
    assert servers == [("127.0.0.1", 25), ("127.0.0.2", 26)] * 2


def test_an_edit_elsewhere_does_not_disturb_a_pools_turn(destinations: Destinations) -> None:
    destinations.replace([CORE], POOLS)
    first = destinations.find(FACTS).server
    destinations.replace([VIP, CORE], POOLS)
    second = destinations.find(Facts(client="192.0.2.7", user="other")).server
    assert [first, second] == [("127.0.0.1", 25), ("::1", 26)]


def test_names_are_looked_up(destinations: Destinations) -> None:
    destinations.replace([CORE], {"core-pool": pool("core-pool", "mta.example")})
    assert destinations.find(FACTS).server == ("192.0.2.99", 25)


def test_a_name_that_cannot_be_looked_up_is_passed_over(destinations: Destinations) -> None:
    destinations.replace([CORE], {"core-pool": pool("core-pool", "gone.example", "mta.example")})
    assert {destinations.find(FACTS).server for _ in range(4)} == {("192.0.2.99", 26)}


def test_a_pool_without_any_address_is_still_named_for_our_proxy(destinations: Destinations) -> None:
    destinations.replace([CORE], {"core-pool": pool("core-pool", "gone.example")})
    assert destinations.find(FACTS) == Destination("core-pool", None, "core")
