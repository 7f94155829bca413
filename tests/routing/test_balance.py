"""Which of several: exact turns, shares by weight, and keys that stay where they are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.routing.balance import (
    HASH_BALANCE_FACTOR,
    WEIGHT_SCALE,
    Load,
    better_of_two,
    bounded_rendezvous,
    choose,
    least_loaded,
    smooth_round_robin,
)
from smtpgate.routing.model import Balance

WEIGHTS = {"a": 10, "b": 10, "c": 2}
weights_of_some = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def loads(weights: dict[str, int], conns: dict[str, int] | None = None) -> list[Load]:
    return [Load(name, (conns or {}).get(name, 0), weight * WEIGHT_SCALE) for name, weight in weights.items()]


def chances(seed: int = 1) -> Iterator[float]:
    return iter(random.Random(seed).random, 2.0)


# --- shares ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "stay", "tolerance"),
    [
        (Balance.ROUND_ROBIN, True, 0),
        (Balance.ROUND_ROBIN, False, 0),
        (Balance.LEAST_CONN, True, 0),
        (Balance.LEAST_CONN, False, 0),
        (Balance.RANDOM2, True, 0.02),
    ],
)
def test_2200_sessions_go_by_weight(balance: Balance, stay: bool, tolerance: float) -> None:
    """Whether the sessions all last (stay), or none overlaps another."""
    some, chance, shares = loads(WEIGHTS), chances(), Counter[str]()
    for _ in range(2200):
        load = choose(balance, some, None, next(chance))
        shares[load.name] += 1
        load.conns += stay
    for name, expected in {"a": 1000, "b": 1000, "c": 200}.items():
        assert shares[name] == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("balance", [Balance.RANDOM2, Balance.HASH])
def test_chance_and_hash_keep_the_weights_in_the_long_run(balance: Balance) -> None:
    """Sessions that never overlap are drawn by weight alone: 2 % is more than two deviations of 44,000 draws."""
    some, chance = loads({"a": 2, "b": 1, "c": 1}), chances(2)
    shares = Counter(choose(balance, some, f"192.0.2.{n}", next(chance)).name for n in range(44_000))
    for name, expected in {"a": 22_000, "b": 11_000, "c": 11_000}.items():
        assert shares[name] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("balance", list(Balance))
def test_one_alone_is_chosen(balance: Balance) -> None:
    only = Load("a", conns=7)
    assert choose(balance, [only], "key", 0.5) is only
    assert only.current == 0


# --- round robin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ({"a": 1}, "aaaa"),
        ({"a": 1, "b": 1}, "abababab"),
        ({"a": 1, "b": 1, "c": 1}, "abcabc"),
        # The sequence in nginx's own change note of smooth weighted round robin (5, 1, 1).
        ({"a": 5, "b": 1, "c": 1}, "aabacaa"),
    ],
)
def test_smooth_weighted_round_robin(weights: dict[str, int], order: str) -> None:
    some = loads(weights)
    assert "".join(smooth_round_robin(some).name for _ in order) == order


@given(weights_of_some)
def test_round_robin_is_exact_over_a_whole_round(weights: list[int]) -> None:
    some = loads({str(i): weight for i, weight in enumerate(weights)})
    for _ in range(2):
        turns = Counter(smooth_round_robin(some).name for _ in range(sum(weights)))
        assert turns == {str(i): weight for i, weight in enumerate(weights)}


# --- least connections ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "conns", "expected"),
    [
        ({"a": 1, "b": 1}, {}, "ab"),
        ({"a": 1, "b": 1}, {"a": 1}, "b"),
        ({"a": 3, "b": 1}, {"a": 3, "b": 1}, "ab"),
        ({"a": 3, "b": 1}, {"a": 2, "b": 1}, "a"),
        ({"a": 3, "b": 1}, {"a": 3}, "b"),
        ({"a": 7, "b": 3, "c": 1}, {"a": 7, "b": 3, "c": 1}, "abc"),  # equal, where floats would not be
    ],
)
def test_least_loaded_by_weight(weights: dict[str, int], conns: dict[str, int], expected: str) -> None:
    assert "".join(load.name for load in least_loaded(loads(weights, conns))) == expected


# --- two random choices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        # Of weights 2, 1, 1 the first draw is a below 0.5, b below 0.75, else c; what is left draws the second.
        (0.0, "a"),  # a and b, level: the first drawn
        (0.24, "a"),  # a and b
        (0.26, "c"),  # a and c, which is idle
        (0.5, "b"),  # b and a: b holds 1 of 1, a 4 of 2
        (0.749, "c"),  # b and c
        (0.75, "c"),  # c and a
        (0.999, "c"),  # c and b
    ],
)
def test_better_of_two(chance: float, expected: str) -> None:
    conns = {"a": 2, "b": 2, "c": 0} if chance < 0.25 else {"a": 4, "b": 1, "c": 0}
    some = loads({"a": 2, "b": 1, "c": 1}, conns)
    assert better_of_two(some, chance).name == expected


@given(weights_of_some.filter(lambda weights: len(weights) > 1), st.floats(0, 1, exclude_max=True))
def test_the_busiest_of_all_is_never_better_of_two(weights: list[int], chance: float) -> None:
    some = loads({str(i): weight for i, weight in enumerate(weights)})
    some[0].conns = 1
    assert better_of_two(some, chance) is not some[0]


def test_chances_at_the_very_end_fit() -> None:
    some = loads({"a": 999, "b": 1000, "c": 997})
    assert better_of_two(some, 1 - 2**-53) in some


# --- hash -------------------------------------------------------------------------------------------------------

KEYS = [f"user{n}@example.com" for n in range(4000)]


def test_a_key_keeps_its_backend() -> None:
    """In whatever order the policy lists them; an upgrade that moved every user would show here."""
    some = loads({"mta1": 1, "mta2": 1, "mta3": 1})
    keys = ["ann@example.com", "bob@example.com", "192.0.2.1", "2001:db8::1", "example.com", ""]
    expected = ["mta1", "mta1", "mta3", "mta2", "mta3", "mta2"]
    assert [bounded_rendezvous(some, key).name for key in keys] == expected
    assert [bounded_rendezvous(some[::-1], key).name for key in keys] == expected


@pytest.mark.parametrize("gone", range(10))
def test_one_of_ten_that_goes_moves_its_own_keys_only(gone: int) -> None:
    ten = loads({f"mta{n}": 1 for n in range(10)})
    before = {key: bounded_rendezvous(ten, key).name for key in KEYS}
    left = [load for load in ten if load.name != f"mta{gone}"]
    moved = [key for key in KEYS if bounded_rendezvous(left, key).name != before[key]]
    assert moved == [key for key in KEYS if before[key] == f"mta{gone}"]
    assert len(moved) == pytest.approx(len(KEYS) / 10, rel=0.2)


def test_a_greater_weight_only_takes_keys() -> None:
    """From 1 to 2 of then 4: nobody but those who go to it moves, and that is a quarter of all."""
    before = loads({"a": 1, "b": 1, "c": 1})
    after = loads({"a": 2, "b": 1, "c": 1})
    ways = [(bounded_rendezvous(before, key).name, bounded_rendezvous(after, key).name) for key in KEYS]
    moved = [way for way in ways if way[0] != way[1]]
    assert {way[1] for way in moved} == {"a"}
    assert len(moved) == pytest.approx(len(KEYS) * (1 / 2 - 1 / 3), rel=0.15)


def test_one_key_for_all_spreads_within_the_bound() -> None:
    """A thousand sessions of one user: nobody holds more than a session beyond 1.25 times his share."""
    some = loads(WEIGHTS)
    for total in range(1, 1001):
        bounded_rendezvous(some, "ann").conns += 1
        for load in some:
            share = total * load.weight / (22 * WEIGHT_SCALE)
            assert load.conns < share * HASH_BALANCE_FACTOR / 100 + 1


@given(weights_of_some, st.lists(st.integers(0, 50), min_size=6, max_size=6), st.text(max_size=20))
def test_there_is_always_one_below_its_bound(weights: list[int], conns: list[int], key: str) -> None:
    names = [str(n) for n in range(len(weights))]
    some = loads(dict(zip(names, weights, strict=True)), dict(zip(names, conns, strict=False)))
    total, weight = sum(load.conns for load in some) + 1, sum(load.weight for load in some)
    chosen = bounded_rendezvous(some, key)
    assert chosen.conns < HASH_BALANCE_FACTOR / 100 * total * chosen.weight / weight


def test_without_a_key_the_turn_decides() -> None:
    some = loads({"a": 1, "b": 1})
    assert [choose(Balance.HASH, some, None, 0.0).name for _ in range(4)] == list("abab")
