from __future__ import annotations

import pytest

from authsvc.answer.knownnets import LIFETIME, MAX_NETS, NOTED_FOR, KnownNets
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import StoreUnavailable


class Store(MemoryBuckets):
    """`away`: answers nothing. noted: what it was told."""

    away = False

    def __init__(self, clock: object) -> None:
        super().__init__(clock)  # type: ignore[arg-type]
        self.noted: list[tuple[str, str]] = []

    def note(self, key: str, member: str, ttl: float, keep: int) -> None:
        if self.away:
            raise StoreUnavailable
        self.noted.append((key, member))
        super().note(key, member, ttl, keep)

    def seen(self, key: str, member: str) -> bool:
        if self.away:
            raise StoreUnavailable
        return super().seen(key, member)


@pytest.fixture
def store(clock) -> Store:
    return Store(clock)


@pytest.fixture
def nets(store: Store, clock) -> KnownNets:
    return KnownNets(store, clock)


def test_a_network_is_known_for_a_month(nets: KnownNets, clock) -> None:
    assert nets.knows("ann@example.com", "192.0.2.7") is False
    nets.note("Ann@Example.COM", "192.0.2.7")
    clock.sleep(LIFETIME - 1.0)
    assert nets.knows("ann@example.com", "192.0.2.7") is True
    assert nets.knows("ann@example.com", "192.0.2.8") is False
    assert nets.knows("bob@example.com", "192.0.2.7") is False
    clock.sleep(1.0)
    assert nets.knows("ann@example.com", "192.0.2.7") is False


def test_a_login_has_so_many_networks(nets: KnownNets) -> None:
    for number in range(MAX_NETS + 1):
        nets.note("test", f"192.0.2.{number}")
    known = [number for number in range(MAX_NETS + 1) if nets.knows("test", f"192.0.2.{number}")]
    assert known == list(range(1, MAX_NETS + 1))


def test_what_was_noted_of_late_is_not_noted_again(nets: KnownNets, store: Store, clock) -> None:
    for seconds in (NOTED_FOR - 1.0, 1.0, 1.0):
        nets.note("test", "192.0.2.7")
        clock.sleep(seconds)
    nets.note("test", "192.0.2.8")
    assert store.noted == [("test", "192.0.2.7")] * 2 + [("test", "192.0.2.8")]


def test_what_was_noted_is_remembered_within_bounds(store: Store, clock) -> None:
    nets = KnownNets(store, clock, noted=1)
    for login in ("a", "b", "a"):
        nets.note(login, "192.0.2.7")
    assert [key for key, _ in store.noted] == ["a", "b", "a"]


def test_a_name_can_end_no_key(nets: KnownNets, store: Store) -> None:
    nets.note("a{b}:c|d\x7f", "192.0.2.7")
    assert store.noted == [("a%7Bb%7D%3Ac%7Cd%7F", "192.0.2.7")]


def test_while_the_store_is_away_nothing_is_known_and_nothing_taken_for_noted(nets: KnownNets, store: Store) -> None:
    store.away = True
    nets.note("test", "192.0.2.7")
    assert nets.knows("test", "192.0.2.7") is None
    store.away = False
    nets.note("test", "192.0.2.7")
    assert nets.knows("test", "192.0.2.7") is True
