"""Arithmetic by table, the memory store by the common contract, its bounds by hand."""

import math

import pytest
from fakes import ManualClock

from smtpgate.policy.bucket import MemoryBuckets, refill, wait
from smtpgate.policy.store import Charge, Taken
from tests.policy.store_contract import check_store


@pytest.mark.parametrize(
    ("tokens", "elapsed", "rate", "burst", "expected"),
    [
        (0.0, 0.0, 1.0, 5.0, 0.0),
        (0.0, 2.0, 0.5, 5.0, 1.0),
        (4.0, 100.0, 1.0, 5.0, 5.0),
        (7.0, 1.0, 1.0, 5.0, 5.0),  # the burst was lowered
        (2.0, -60.0, 1.0, 5.0, 2.0),  # the clock went back
    ],
)
def test_refill(tokens: float, elapsed: float, rate: float, burst: float, expected: float) -> None:
    assert refill(tokens, elapsed, rate, burst) == expected


@pytest.mark.parametrize(
    ("tokens", "cost", "rate", "burst", "expected"),
    [
        (1.0, 1.0, 1.0, 5.0, 0.0),
        (0.0, 1.0, 0.5, 5.0, 2.0),
        (0.25, 1.0, 0.25, 5.0, 3.0),
        (5.0, 6.0, 1.0, 5.0, math.inf),
        (0.0, 1.0, 0.0, 5.0, math.inf),
        (0.0, 0.0, 1.0, 5.0, 0.0),
        (1.0 - 1e-12, 1.0, 1.0, 5.0, 0.0),
    ],
)
def test_wait(tokens: float, cost: float, rate: float, burst: float, expected: float) -> None:
    assert wait(tokens, cost, rate, burst) == expected


def test_memory_buckets_hold_the_contract() -> None:
    clock = ManualClock()
    check_store(lambda: MemoryBuckets(clock), clock, examples=200)


@pytest.mark.parametrize("rate", [0.1, 1 / 3, 7.0, 1e-5])
def test_whoever_waits_as_long_as_told_passes(rate: float) -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    charge = Charge("k", rate, 1.0)
    for _ in range(50):
        assert store.take([charge]).passed
        denied = store.take([charge])
        assert not denied.passed
        clock.sleep(denied.waits[0])


def test_one_short_bucket_spares_the_others() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    wide, narrow = Charge("wide", 1.0, 5.0), Charge("narrow", 0.5, 2.0)
    assert store.take([wide, narrow]) == Taken((0.0, 0.0), (4.0, 1.0))
    assert store.take([narrow, wide]) == Taken((0.0, 0.0), (0.0, 3.0))
    assert store.take([wide, narrow]) == Taken((0.0, 2.0), (3.0, 0.0))
    assert store.take([wide]) == Taken((0.0,), (2.0,))


def test_a_look_takes_nothing_and_keeps_nothing() -> None:
    store = MemoryBuckets(ManualClock())
    charge = Charge("k", 1.0, 1.0)
    assert store.take([charge], debit=False) == Taken((0.0,), (1.0,))
    assert len(store) == 0
    store.take([charge])
    assert store.take([charge], debit=False) == Taken((1.0,), (0.0,))


def test_an_edited_limit_keeps_its_balance() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    store.take([Charge("k", 1.0, 10.0, cost=8.0)])
    assert store.take([Charge("k", 1.0, 100.0)], debit=False).balances == (2.0,)
    assert store.take([Charge("k", 1.0, 1.0)], debit=False).balances == (1.0,)
    clock.sleep(2.0)
    assert store.take([Charge("k", 5.0, 100.0)], debit=False).balances == (12.0,)


def test_buckets_that_are_full_again_are_dropped() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    for i in range(20):
        store.take([Charge(f"k{i}", 1.0, 1.0)])
    assert len(store) == 20
    clock.sleep(1.0)
    for _ in range(3):  # a few at each call: no single caller pays for all
        store.take([Charge("other", 1.0, 100.0)])
    assert len(store) == 1
    assert repr(store) == "<MemoryBuckets 1 of at most 100000>"


def test_a_bucket_charged_again_is_not_dropped_at_its_first_time() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    charge = Charge("k", 1.0, 10.0, cost=5.0)
    store.take([charge])
    clock.sleep(4.0)
    store.take([charge])  # 4 left, full in 6
    clock.sleep(2.0)  # past the first 5 s
    store.take([Charge("other", 1.0, 1.0)])
    assert len(store) == 2
    assert store.take([charge], debit=False).balances == (6.0,)


def test_the_bucket_closest_to_full_makes_room() -> None:
    store = MemoryBuckets(ManualClock(), max_keys=3)
    drained = Charge("owner", 0.01, 10.0, cost=10.0)
    store.take([drained])
    for i in range(1000):  # a stranger with many keys drives out its own
        store.take([Charge(f"stranger{i}", 1.0, 10.0)])
        assert len(store) <= 3
    assert store.take([drained], debit=False).balances == (0.0,)


def test_eviction_goes_by_what_a_bucket_owes_now() -> None:
    store = MemoryBuckets(ManualClock(), max_keys=2)
    store.take([Charge("a", 1.0, 100.0)])  # full in 1 s, for now
    store.take([Charge("b", 1.0, 100.0, cost=2.0)])
    store.take([Charge("a", 1.0, 100.0, cost=50.0)])
    store.take([Charge("c", 1.0, 100.0, cost=3.0)])  # b goes: a owes 51 now
    assert store.take([Charge("a", 1.0, 100.0)], debit=False).balances == (49.0,)
    assert store.take([Charge("b", 1.0, 100.0)], debit=False).balances == (100.0,)


def test_a_store_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_keys is 0; expected at least 1"):
        MemoryBuckets(ManualClock(), max_keys=0)
