from __future__ import annotations

from dataclasses import replace

import pytest

from authsvc.proof.remembered import Remembered
from authsvc.users.model import User

USER = User("test", ("{SSHA}a", "{SSHA}b"))


@pytest.fixture
def remembered(clock) -> Remembered:
    return Remembered(clock, 300.0, b"k" * 64)


def test_what_was_proven_is_held(remembered: Remembered) -> None:
    assert not remembered.holds(USER, b"1234")
    remembered.add(USER, b"1234")
    assert remembered.holds(USER, b"1234")


@pytest.mark.parametrize("password", [b"", b"123", b"12345", b"1234\0", b"x" * 10_000])
def test_another_password_is_not(remembered: Remembered, password: bytes) -> None:
    remembered.add(USER, b"1234")
    assert not remembered.holds(USER, password)


@pytest.mark.parametrize(
    "other",
    [
        replace(USER, name="test2"),
        replace(USER, passwords=("{SSHA}a",)),
        replace(USER, passwords=("{SSHA}a", "{SSHA}c")),
        replace(USER, passwords=("{SSHA}a{SSHA}b",)),
        replace(USER, passwords=()),
        replace(USER, name="test{SSHA}a", passwords=("{SSHA}b",)),
    ],
)
def test_a_changed_record_forgets(remembered: Remembered, other: User) -> None:
    remembered.add(USER, b"1234")
    assert not remembered.holds(other, b"1234")


def test_no_two_lists_of_parts_are_the_same(remembered: Remembered) -> None:
    remembered.add(User("ab", ("c",)), b"d")
    for user, password in ((User("a", ("bc",)), b"d"), (User("ab", ()), b"cd"), (User("ab", ("c", "d")), b"")):
        assert not remembered.holds(user, password)


def test_what_does_not_matter_to_the_proof_is_not_in_it(remembered: Remembered) -> None:
    remembered.add(USER, b"1234")
    assert remembered.holds(replace(USER, plan="gold", pool="vip"), b"1234")


def test_it_ends_when_it_was_proven_long_ago_however_busy_the_user_is(remembered: Remembered, clock) -> None:
    remembered.add(USER, b"1234")
    clock.sleep(299.9)
    assert remembered.holds(USER, b"1234")
    clock.sleep(0.1)
    assert not remembered.holds(USER, b"1234")
    assert len(remembered) == 0


def test_a_new_proof_begins_anew(remembered: Remembered, clock) -> None:
    remembered.add(USER, b"1234")
    remembered.add(User("other"), b"x")
    clock.sleep(200)
    remembered.add(USER, b"1234")
    clock.sleep(200)
    assert remembered.holds(USER, b"1234")
    assert not remembered.holds(User("other"), b"x")


def test_the_oldest_goes_when_there_are_too_many(clock) -> None:
    remembered = Remembered(clock, 300.0, b"k" * 64, entries=2)
    for name in ("a", "b", "c"):
        remembered.add(User(name), b"x")
    assert [remembered.holds(User(name), b"x") for name in ("a", "b", "c")] == [False, True, True]
    assert len(remembered) == 2


def test_nothing_is_kept_with_a_lifetime_of_0(clock) -> None:
    remembered = Remembered(clock, 0.0, b"k" * 64)
    remembered.add(USER, b"1234")
    assert not remembered.holds(USER, b"1234")
    assert len(remembered) == 0


def test_what_is_kept_depends_on_the_key(clock) -> None:
    first, second = Remembered(clock, 300.0, b"k" * 64), Remembered(clock, 300.0, b"l" * 64)
    for one in (first, second):
        one.add(USER, b"1234")
    assert set(first._tags).isdisjoint(second._tags)
    assert all(b"1234" not in tag for tag in first._tags)
