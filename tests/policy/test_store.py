"""The words of the port that decide something by themselves."""

import math

import pytest

from smtpgate.policy.store import SLOT_WAIT, Ban, Charge, Claim, foremost, memory_of

A, B = Charge("a", 1.0, 1.0), Charge("b", 1.0, 1.0)
WATCHING = Charge("w", 1.0, 1.0, shadow=True)
PLACE, WATCHED = Claim("p", 1, "h"), Claim("w", 1, "h", shadow=True)


@pytest.mark.parametrize(
    ("charges", "waits", "claims", "free", "expected"),
    [
        ((), (), (), (), (0.0, None)),
        ((A, B), (0.0, 0.0), (PLACE,), (1,), (0.0, None)),
        ((A, B), (2.0, 3.0), (), (), (3.0, B)),
        ((A, B), (3.0, 3.0), (), (), (3.0, A)),
        ((A, B), (3.0, math.inf), (PLACE,), (0,), (math.inf, B)),
        ((A, WATCHING), (3.0, 9.0), (), (), (3.0, A)),
        ((WATCHING,), (9.0,), (WATCHED,), (0,), (0.0, None)),
        ((A,), (SLOT_WAIT / 2,), (PLACE,), (0,), (SLOT_WAIT, PLACE)),
        ((A,), (SLOT_WAIT,), (PLACE,), (0,), (SLOT_WAIT, A)),
        ((), (), (WATCHED, PLACE), (0, 0), (SLOT_WAIT, PLACE)),
    ],
)
def test_the_longest_wait_of_those_that_are_enforced(
    charges: tuple[Charge, ...],
    waits: tuple[float, ...],
    claims: tuple[Claim, ...],
    free: tuple[int, ...],
    expected: object,
) -> None:
    assert foremost(charges, waits, claims, free) == expected


@pytest.mark.parametrize(
    ("note", "limit", "escalated"),
    [
        ("auth.fail.net limits.yaml:12", "auth.fail.net", False),
        ("user.day/after my limits.yaml:12", "user.day", True),
        ("by-hand", "by-hand", False),
        ("", "", False),
    ],
)
def test_a_ban_names_who_made_it(note: str, limit: str, escalated: bool) -> None:
    assert (Ban(1.0, note).limit, Ban(1.0, note).escalated) == (limit, escalated)


def test_a_bucket_remembers_for_as_long_as_it_takes_to_fill() -> None:
    assert (memory_of(0.5, 10.0), memory_of(0.0, 10.0)) == (20.0, math.inf)
