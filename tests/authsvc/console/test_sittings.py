"""Who is logged in, as two workers see it."""

from __future__ import annotations

import os

import pytest

from authsvc.console.sittings import SLOTS, Sittings, SittingsFile

OPERATORS = {"anna": "{ARGON2ID}1", "ben": "{ARGON2ID}2"}


@pytest.fixture
def make(sittings_file: SittingsFile, clock):
    """A worker's view of one table."""

    def make(operators: dict[str, str] = OPERATORS) -> Sittings:
        return Sittings(sittings_file, operators, clock, lifetime=3600.0, idle=600.0)

    return make


def test_one_worker_begins_and_another_ends_it(make) -> None:
    one, other = make(), make()
    name = one.open("anna")
    second = other.open("ben")
    assert (other.find(name), one.find(second)) == ("anna", "ben")
    other.close(name)
    assert (one.find(name), one.find(second)) == (None, "ben")


def test_across_a_fork(make) -> None:
    parent = make()
    name = parent.open("anna")
    child = os.fork()
    if child == 0:
        make().close(name)
        os._exit(0)
    os.waitpid(child, 0)
    assert parent.find(name) is None


def test_it_ends_when_it_rests_and_at_last_in_any_case(make, clock) -> None:
    sittings = make()
    name = sittings.open("anna")
    for _ in range(6):
        clock.sleep(599.0)
        assert sittings.find(name) == "anna"
    clock.sleep(6.0)
    assert sittings.find(name) is None
    rested = sittings.open("anna")
    clock.sleep(300.0)
    assert sittings.find(rested, used=False) == "anna"
    clock.sleep(300.0)
    assert sittings.find(rested) is None


def test_it_ends_with_the_password_and_with_the_operator(make) -> None:
    name = make().open("anna")
    assert make({**OPERATORS, "anna": "{ARGON2ID}3"}).find(name) is None
    assert make({"ben": OPERATORS["ben"]}).find(name) is None
    assert make().find(name) == "anna"


def test_the_longest_at_rest_makes_room(make, clock) -> None:
    sittings = make()
    names = []
    for _ in range(SLOTS):
        names.append(sittings.open("anna"))
        clock.sleep(1.0)
    assert sittings.find(names[0]) == "anna"
    last = sittings.open("ben")
    assert sittings.find(last) == "ben"
    assert [name for name in names if sittings.find(name) is None] == [names[1]]


@pytest.mark.parametrize("name", ["", "0" * 32, "f" * 32, "x", "0" * 31, "0" * 2000, "ä" * 32])
def test_names_of_nobody(make, name: str) -> None:
    sittings = make()
    sittings.open("anna")
    assert sittings.find(name) is None
    sittings.close(name)
