"""The budget of new subjects."""

from dataclasses import replace

import pytest

import smtpgate.policy.newkeys
from smtpgate.policy.model import Event, Facts, grown
from smtpgate.policy.newkeys import EVERYBODY, NewKeys
from smtpgate.policy.rules import Limit, Limiter
from tests.policy.handmade import ANN, limit

TWO = Limiter(new_keys=1.0, new_keys_burst=2.0)
NETS = limit("n", Event.CONNECT, rate=1.0, burst=1.0, overflow_key="{ip/24/48}")


def subject(keys: NewKeys, one: Limit, facts: Facts, limiter: Limiter, now: float) -> tuple[str, bool] | None:
    return keys.chooser(facts, limiter, now)(one)


def client(address: str) -> Facts:
    return grown(ANN, client=address)


def test_new_subjects_above_the_budget_share_a_prefix_and_then_one_subject() -> None:
    keys = NewKeys()
    seen = [subject(keys, NETS, client(f"10.0.{i // 2}.{i}"), TWO, 0.0) for i in range(10)]
    assert seen == [
        ("10.0.0.0", True),
        ("10.0.0.1", True),
        ("10.0.1.0/24", False),
        ("10.0.1.0/24", False),
        ("10.0.2.0/24", False),
        ("10.0.2.0/24", False),
        *[(EVERYBODY, False)] * 4,
    ]


def test_who_was_seen_lately_keeps_its_own_subject() -> None:
    keys = NewKeys()
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"):
        subject(keys, NETS, client(address), TWO, 0.0)
    assert subject(keys, NETS, client("10.0.0.2"), TWO, 0.0) == ("10.0.0.2", True)
    assert subject(keys, NETS, client("10.0.0.3"), TWO, 0.0) == ("10.0.0.0/24", False)


def test_the_budget_refills_evenly() -> None:
    keys = NewKeys()
    own = [subject(keys, NETS, client(f"10.0.0.{i}"), TWO, i / 4) for i in range(20)]
    # Two at once, then one a second.
    assert [i for i, found in enumerate(own) if found is not None and found[1]] == [0, 1, 4, 8, 12, 16]


def test_a_limit_without_overflow_key_needs_no_budget() -> None:
    keys = NewKeys()
    users = limit("u", rate=1.0, burst=1.0)
    assert {subject(keys, users, grown(ANN, user=f"u{i}"), TWO, 0.0) for i in range(9)} == {
        (f"u{i}", True) for i in range(9)
    }
    assert len(keys) == 0


def test_a_key_without_a_value_is_none() -> None:
    assert subject(NewKeys(), limit("u", rate=1.0, burst=1.0), grown(ANN, user=None), TWO, 0.0) is None


def test_an_overflow_key_without_a_value_is_everybody() -> None:
    keys = NewKeys()
    domains = limit("d", rate=1.0, burst=1.0, key="{net}", overflow_key="{user}")
    nobody = grown(ANN, user=None)
    found = [subject(keys, domains, grown(nobody, client=f"10.0.0.{i}"), TWO, 0.0) for i in range(3)]
    assert found[2] == (EVERYBODY, False)


def test_limits_do_not_share_subjects() -> None:
    keys = NewKeys()
    other = replace(NETS, name="m")
    assert [subject(keys, one, ANN, TWO, 0.0) for one in (NETS, other, NETS, other)] == [("192.0.2.7", True)] * 4
    assert subject(keys, NETS, client("10.0.0.1"), TWO, 0.0) == ("10.0.0.0/24", False)


def test_memory_is_bounded_and_the_busy_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtpgate.policy.newkeys, "GENERATION", 2)
    keys, plenty, spent = NewKeys(), Limiter(new_keys_burst=1000.0), Limiter(new_keys=0.0, new_keys_burst=0.0)
    for i in (1, 2, 3, 1, 4, 5):
        subject(keys, NETS, client(f"10.0.0.{i}"), plenty, 0.0)
        assert len(keys) <= 4
    assert subject(keys, NETS, client("10.0.0.1"), spent, 0.0) == ("10.0.0.1", True)
    assert subject(keys, NETS, client("10.0.0.2"), spent, 0.0) == (EVERYBODY, False)
