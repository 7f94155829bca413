from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from authsvc.answer.addresses import Addresses, LookupFailedError
from authsvc.answer.destinations import Destination, Destinations, NoDestinationError
from smtpgate.policy.model import Facts, grown
from smtpgate.routing.model import BackendSpec, Balance, PoolSpec, Route, State

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

    return Destinations(Addresses(clock, lookup), clock)


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


@pytest.mark.parametrize("balance", [balance for balance in Balance if balance is not Balance.HASH])
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


@pytest.mark.parametrize(
    ("hash_key", "same", "other"),
    [
        ("client", {"user": "somebody"}, {"client": "192.0.2.{}"}),
        ("user", {"client": "192.0.2.9"}, {"user": "user{}"}),
        ("domain", {"user": "somebody"}, {"rcpt_domain": "{}.example"}),
    ],
)
def test_a_hash_leads_to_the_same_backend(
    destinations: Destinations, hash_key: str, same: dict[str, str], other: dict[str, str]
) -> None:
    spec = replace(pool("core-pool", "127.0.0.1", "127.0.0.2", balance=Balance.HASH), hash_key=hash_key)  # type: ignore[arg-type]
    destinations.replace([CORE], {"core-pool": spec})
    facts = grown(FACTS, rcpt_domain="example.com")
    server = destinations.find(facts).server
    assert destinations.find(grown(facts, **same)).server == server
    ((field, form),) = other.items()
    found = {destinations.find(grown(facts, **{field: form.format(n)})).server for n in range(20)}
    assert found == {("127.0.0.1", 25), ("127.0.0.2", 26)}


def states(*kinds: State | str) -> PoolSpec:
    """One backend of each kind, 127.0.0.1:25, 127.0.0.2:26, and so on."""
    spec = pool("core-pool", *(f"127.0.0.{n + 1}" for n in range(len(kinds))))
    backends = (
        replace(one, backup=True) if kind == "backup" else replace(one, state=kind)  # type: ignore[arg-type]
        for one, kind in zip(spec.backends, kinds, strict=True)
    )
    return replace(spec, backends=tuple(backends))


def found(destinations: Destinations) -> set[int]:
    """The ports of four answers."""
    servers = [destinations.find(FACTS).server for _ in range(4)]
    return {server[1] for server in servers if server is not None}


def test_nobody_is_sent_to_one_that_is_drained_or_off_or_a_backup(destinations: Destinations) -> None:
    destinations.replace([CORE], {"core-pool": states(State.ACTIVE, State.DRAIN, State.OFF, "backup", State.ACTIVE)})
    assert found(destinations) == {25, 29}


def probed(destinations: Destinations, pool: str, name: str, *, up: bool) -> None:
    """As often as it takes to be believed."""
    changes = [destinations.probed(pool, name, up, "" if up else "refused") for _ in range(3)]
    assert changes.count(True) == (pool != "gone")


def test_a_prober_may_say_who_is_down(destinations: Destinations) -> None:
    destinations.replace([CORE], {"core-pool": states(State.ACTIVE, State.ACTIVE, "backup")})
    probed(destinations, "core-pool", "core-pool0", up=False)
    assert found(destinations) == {26}
    probed(destinations, "core-pool", "core-pool1", up=False)
    assert found(destinations) == {27}
    probed(destinations, "core-pool", "core-pool2", up=False)
    assert found(destinations) == {25, 26}  # never all out
    probed(destinations, "core-pool", "core-pool1", up=True)
    assert found(destinations) == {26}
    probed(destinations, "gone", "core-pool1", up=False)


def test_a_pool_that_takes_nobody_leads_on_to_the_next(destinations: Destinations) -> None:
    drained = replace(states(State.DRAIN), fallback="vip-pool")
    destinations.replace([CORE], POOLS | {"core-pool": drained})
    assert destinations.find(FACTS) == Destination("core-pool", ("127.0.0.2", 25), "core")


def test_a_healthy_one_of_the_next_pool_before_a_dead_one_of_this(destinations: Destinations) -> None:
    pools = POOLS | {"core-pool": replace(states(State.ACTIVE), fallback="vip-pool")}
    destinations.replace([CORE], pools)
    probed(destinations, "core-pool", "core-pool0", up=False)
    assert destinations.find(FACTS).server == ("127.0.0.2", 25)
    probed(destinations, "vip-pool", "vip-pool0", up=False)
    assert destinations.find(FACTS).server == ("127.0.0.1", 25)


def test_no_more_names_are_looked_up_for_one_answer_than_a_client_can_wait_for(clock) -> None:
    asked: list[str] = []

    def lookup(host: str) -> str:
        asked.append(host)
        raise LookupFailedError(host)

    destinations = Destinations(Addresses(clock, lookup), clock)
    first = replace(pool("core-pool", "a.example", "b.example", "c.example"), fallback="vip-pool")
    destinations.replace([CORE], {"core-pool": first, "vip-pool": pool("vip-pool", "d.example")})
    assert destinations.find(FACTS).server is None
    assert asked == ["a.example", "b.example"]
