"""Arithmetic by table, the memory store by the common contract, its bounds by hand."""

import math

import pytest
from fakes import ManualClock

from smtpgate.policy.bucket import MemoryBuckets, refill, spend, wait
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


def test_an_edit_to_a_slower_rate_finds_what_was_spent_at_the_faster_one() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    store.take([Charge("k", 1.0, 10.0, cost=10.0)])
    clock.sleep(3600.0)  # long full again at the rate of then
    store.take([Charge("other", 1.0, 1.0)])
    assert store.take([Charge("k", 1 / 3600, 10.0)], debit=False).balances == (1.0,)


def test_the_bucket_charged_longest_ago_makes_room() -> None:
    store = MemoryBuckets(ManualClock(), max_keys=2)
    for key in ("a", "b", "a", "c"):
        store.take([Charge(key, 0.01, 10.0, cost=4.0)])
    assert len(store) == 2
    balances = [store.take([Charge(key, 0.01, 10.0)], debit=False).balances[0] for key in "abc"]
    assert balances == [2.0, 10.0, 6.0]
    assert repr(store) == "<MemoryBuckets 2 of at most 2>"


def test_strangers_do_not_refill_a_bucket_that_is_in_use() -> None:
    """A short period against a store full of longer ones: what is nearly full again counts all the same."""
    store = MemoryBuckets(ManualClock(), max_keys=100)
    admitted = 0
    for i in range(100):
        admitted += store.take([Charge("busy", 2.0, 60.0)]).passed
        store.take([Charge(f"stranger{i}", 0.01, 5.0)])
    assert admitted == 60


def test_a_look_and_a_refusal_are_no_charges() -> None:
    store = MemoryBuckets(ManualClock(), max_keys=2)
    for key in ("a", "b"):
        store.take([Charge(key, 0.01, 1.0)])
    assert not store.take([Charge("a", 0.01, 1.0)]).passed
    store.take([Charge("a", 0.01, 1.0)], debit=False)
    store.take([Charge("c", 0.01, 1.0)])
    assert store.take([Charge("b", 0.01, 1.0)], debit=False).balances == (0.0,)
    assert store.take([Charge("a", 0.01, 1.0)], debit=False).balances == (1.0,)


def test_tokens_can_be_given_back_up_to_the_burst() -> None:
    store = MemoryBuckets(ManualClock())
    store.take([Charge("a", 0.01, 10.0, 4.0)])
    assert store.take([Charge("a", 0.01, 10.0, -3.0)]).balances == (9.0,)
    assert store.take([Charge("a", 0.01, 10.0, -3.0)]).balances == (10.0,)


@pytest.mark.parametrize(
    ("tokens", "cost", "burst", "expected"),
    [(5.0, 2.0, 10.0, 3.0), (1.0 - 1e-12, 1.0, 10.0, 0.0), (5.0, -2.0, 10.0, 7.0), (9.0, -2.0, 10.0, 10.0)],
)
def test_spend(tokens: float, cost: float, burst: float, expected: float) -> None:
    assert spend(tokens, cost, burst) == expected


def test_a_store_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_keys is 0; expected at least 1"):
        MemoryBuckets(ManualClock(), max_keys=0)
