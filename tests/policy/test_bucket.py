"""Arithmetic by table, the memory store by the common contract, its bounds by hand."""

import math

import pytest
from fakes import ManualClock

from smtpgate.policy.bucket import MemoryBuckets, refill, spend, wait
from smtpgate.policy.model import Slot
from smtpgate.policy.store import LEASE, Ban, BanCheck, Charge, Claim, Penalty
from tests.policy.event_contract import check_cases, check_events
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
    check_store(lambda: MemoryBuckets(clock), clock, examples=100)
    check_events(lambda: MemoryBuckets(clock), examples=100)
    check_cases(lambda: MemoryBuckets(clock))


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
    said = [store.take(charges) for charges in ([wide, narrow], [narrow, wide], [wide, narrow], [wide])]
    assert [(taken.passed, taken.waits, taken.balances) for taken in said] == [
        (True, (0.0, 0.0), (4.0, 1.0)),
        (True, (0.0, 0.0), (0.0, 3.0)),
        (False, (0.0, 2.0), (3.0, 0.0)),
        (True, (0.0,), (2.0,)),
    ]


def test_a_look_takes_nothing_and_keeps_nothing() -> None:
    store = MemoryBuckets(ManualClock())
    charge = Charge("k", 1.0, 1.0)
    look = store.take([charge], debit=False)
    assert (look.waits, look.balances) == ((0.0,), (1.0,))
    assert len(store) == 0
    store.take([charge])
    look = store.take([charge], debit=False)
    assert (look.waits, look.balances) == ((1.0,), (0.0,))


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
    for left in (9.0, 10.0):
        store.give([Charge("a", 0.01, 10.0, 3.0), Charge("never charged", 0.01, 10.0, 3.0)])
        assert store.take([Charge("a", 0.01, 10.0)], debit=False).balances == (left,)
    assert len(store) == 1


@pytest.mark.parametrize(
    ("tokens", "cost", "burst", "expected"),
    [(5.0, 2.0, 10.0, 3.0), (1.0 - 1e-12, 1.0, 10.0, 0.0), (5.0, -2.0, 10.0, 7.0), (9.0, -2.0, 10.0, 10.0)],
)
def test_spend(tokens: float, cost: float, burst: float, expected: float) -> None:
    assert spend(tokens, cost, burst) == expected


def test_a_store_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_keys is 0; expected at least 1"):
        MemoryBuckets(ManualClock(), max_keys=0)


# --- slots, members, bans, notes: what the contract's standing clock cannot show ---


def test_a_slot_is_free_after_its_lease_unless_it_is_renewed() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    for holder in "ab":
        assert store.take([], claims=[Claim("k", 2, holder)]).passed
    clock.sleep(LEASE - 1)
    store.renew([Slot("k", "k", "b")])
    assert not store.take([], claims=[Claim("k", 2, "c")]).passed
    clock.sleep(1)
    assert store.take([], claims=[Claim("k", 2, "c")]).free == (1,)
    assert not store.take([], claims=[Claim("k", 2, "d")]).passed
    clock.sleep(LEASE)
    assert store.take([], claims=[Claim("k", 2, "d")]).free == (2,)


def test_a_member_is_remembered_for_as_long_as_a_bucket_takes_to_fill() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    wrong = Charge("k", 0.1, 2.0, member="hunter2")
    assert [store.take([wrong]).costs for _ in range(3)] == [(1.0,), (0.0,), (0.0,)]
    clock.sleep(19.9)
    assert store.take([wrong]).costs == (0.0,)
    clock.sleep(0.1)
    assert store.take([wrong]).costs == (1.0,)


def test_a_refused_member_is_not_remembered() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    store.take([Charge("k", 0.1, 1.0)])
    for _ in range(2):
        assert not store.take([Charge("k", 0.1, 1.0, member="hunter2")]).passed
    clock.sleep(10.0)
    assert store.take([Charge("k", 0.1, 1.0, member="hunter2")]).costs == (1.0,)


def test_a_ban_ends() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    short = Charge("fails:s", 1.0, 1.0, 2.0, penalty=Penalty("s", "fails p.yaml:3", ban=60.0))
    check = [BanCheck("s", ("fails",))]
    assert not store.take([short]).passed
    clock.sleep(20.0)
    found = store.take([], bans=check)
    assert (found.passed, found.bans) == (False, (Ban(40.0, "fails p.yaml:3"),))
    assert store.take([], bans=[BanCheck("s", ("another",))]).passed
    clock.sleep(40.0)
    assert store.take([], bans=check).bans == (None,)


def test_a_longer_ban_stands_before_a_shorter_one() -> None:
    store = MemoryBuckets(ManualClock())
    for name, seconds in (("a", 60.0), ("b", 900.0), ("c", 60.0)):
        store.take([Charge(name, 1.0, 1.0, 2.0, penalty=Penalty("s", f"{name} f:1", ban=seconds))])
    assert store.take([], bans=[BanCheck("s", ())]).bans == (Ban(900.0, "b f:1"),)


def test_refusals_are_forgotten_as_they_age() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    short = Charge("k", 1.0, 1.0, 2.0, penalty=Penalty("s", "k f:1", after="k/after:s", denials=2.0, within=60.0))
    assert [store.take([short]).escalated for _ in range(3)] == [(), (), ("k",)]
    clock.sleep(30.0)
    assert [store.take([short]).escalated for _ in range(2)] == [(), ("k",)]


def test_whoever_goes_on_after_an_escalation_meets_nothing_milder() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    short = Charge("k", 1.0, 1.0, 2.0, penalty=Penalty("s", "k f:1", after="k/after:s", denials=50.0, within=600.0))
    said = []
    for _ in range(300):
        said.append(bool(store.take([short]).escalated))
        clock.sleep(1.0)
    first = said.index(True)
    assert first == 54  # 50, and what came back meanwhile
    assert all(said[first:])
    clock.sleep(12.0)  # the time of one of them
    assert [bool(store.take([short]).escalated) for _ in range(2)] == [False, True]


def test_what_is_noted_is_seen_until_it_is_old_or_one_of_too_many() -> None:
    clock = ManualClock()
    store = MemoryBuckets(clock)
    for net in ("1", "2", "1", "3"):
        store.note("ann", net, 60.0, keep=2)
    assert [store.seen("ann", net) for net in "123"] == [True, False, True]
    assert not store.seen("bob", "1")
    clock.sleep(60.0)
    assert not store.seen("ann", "1")


def test_bans_slots_and_members_are_bounded_too() -> None:
    store = MemoryBuckets(ManualClock(), max_keys=2)
    for name in "abc":
        store.take([], claims=[Claim(name, 1, "h")])
        store.take([Charge(name, 0.01, 1.0, member="m")])
        store.take([Charge(f"x{name}", 0.01, 1.0, 2.0, penalty=Penalty(name, "x f:1", ban=60.0))])
    assert [store.take([], claims=[Claim(name, 1, "i")], debit=False).free for name in "abc"] == [(1,), (0,), (0,)]
    assert [store.take([], bans=[BanCheck(name, ())]).bans[0] is None for name in "abc"] == [True, False, False]
    assert store.take([Charge("a", 0.01, 1.0, member="m")], debit=False).costs == (1.0,)
