from __future__ import annotations

import pytest

from authsvc.answer.addresses import KNOWN_HOSTS, LIFETIME, RETRY, Addresses, LookupFailedError, _written


class Names:
    """Name servers: what they know, and what they were asked."""

    def __init__(self, **known: str) -> None:
        self.known = known
        self.asked: list[str] = []

    def lookup(self, host: str) -> str:
        self.asked.append(host)
        if host not in self.known:
            raise LookupFailedError(host)
        return self.known[host]


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("2001:DB8::0:1", "2001:db8::1")]
)
def test_an_address_is_not_looked_up(clock, host: str, address: str) -> None:
    names = Names()
    assert Addresses(clock, names.lookup).literal(host) == address
    assert names.asked == []


def test_whether_a_host_is_an_address_is_asked_once() -> None:
    _written.cache_clear()
    assert [_written(host) for host in ("192.0.2.1", "mta1", "mta1")] == ["192.0.2.1", None, None]
    assert (_written.cache_info().misses, _written.cache_info().maxsize) == (2, KNOWN_HOSTS)


def test_a_name_is_looked_up_once_in_its_lifetime(clock) -> None:
    names = Names(mta1="192.0.2.1")
    addresses = Addresses(clock, names.lookup)
    assert [addresses.literal("mta1") for _ in range(3)] == ["192.0.2.1"] * 3
    names.known["mta1"] = "192.0.2.2"
    clock.time += LIFETIME - 0.001
    assert addresses.literal("mta1") == "192.0.2.1"
    clock.time += 0.001
    assert addresses.literal("mta1") == "192.0.2.2"
    assert names.asked == ["mta1", "mta1"]


def test_an_address_outlives_its_name_servers(clock) -> None:
    names = Names(mta1="192.0.2.1")
    addresses = Addresses(clock, names.lookup)
    addresses.follow({"mta1"})
    names.known.clear()
    for _ in range(3):
        clock.time += LIFETIME
        assert addresses.literal("mta1") == "192.0.2.1"


def test_a_name_without_an_address_is_not_asked_for_by_every_client(clock) -> None:
    names = Names()
    addresses = Addresses(clock, names.lookup)
    assert [addresses.literal("mta1") for _ in range(3)] == [None] * 3
    assert names.asked == ["mta1"]


def test_a_name_without_an_address_is_asked_for_again_soon(clock) -> None:
    names = Names()
    addresses = Addresses(clock, names.lookup)
    assert addresses.literal("mta1") is None
    names.known["mta1"] = "192.0.2.1"
    clock.time += RETRY - 0.001
    assert addresses.literal("mta1") is None
    clock.time += 0.001
    assert addresses.literal("mta1") == "192.0.2.1"
    assert names.asked == ["mta1", "mta1"]


def test_an_address_that_was_found_does_not_wait_for_silent_name_servers_again_soon(clock) -> None:
    names = Names(mta1="192.0.2.1")
    addresses = Addresses(clock, names.lookup)
    addresses.follow({"mta1"})
    names.known.clear()
    clock.time += LIFETIME
    assert addresses.literal("mta1") == "192.0.2.1"
    clock.time += LIFETIME - 0.001
    assert addresses.literal("mta1") == "192.0.2.1"
    assert names.asked == ["mta1", "mta1"]


def test_one_lookup_at_a_time_while_others_take_the_old_address(clock) -> None:
    seen: list[str | None] = []

    def lookup(host: str) -> str:
        if clock.time > 1000.0:
            seen.append(addresses.literal(host))
        return f"192.0.2.{1 + int(clock.time > 1000.0)}"

    addresses = Addresses(clock, lookup)
    addresses.follow({"mta1"})
    clock.time += LIFETIME
    assert addresses.literal("mta1") == "192.0.2.2"
    assert seen == ["192.0.2.1"]


def test_a_first_lookup_under_way_is_no_answer(clock) -> None:
    seen: list[str | None] = []

    def lookup(host: str) -> str:
        if not seen:
            seen.append("asked")
            seen.append(addresses.literal(host))
        return "192.0.2.1"

    addresses = Addresses(clock, lookup)
    assert addresses.literal("mta1") == "192.0.2.1"
    assert seen == ["asked", "192.0.2.1"]


def test_names_that_are_gone_are_forgotten(clock) -> None:
    names = Names(a="192.0.2.1", b="192.0.2.2")
    addresses = Addresses(clock, names.lookup)
    addresses.follow({"a", "b"})
    addresses.follow({"b"})
    addresses.follow({"a", "b"})
    assert sorted(names.asked) == ["a", "a", "b"]
