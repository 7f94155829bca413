"""Lines: first come, first served, whoever leaves from wherever; and their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.policy.waitlist import Waitlist


@pytest.fixture
def waitlist() -> Waitlist:
    return Waitlist(most=5, most_a_key=3)


def test_the_first_is_followed_by_the_second(waitlist: Waitlist) -> None:
    first, second, third = (waitlist.join("a") for _ in range(3))
    assert [waitlist.is_first(one) for one in (first, second, third)] == [True, False, False]
    assert waitlist.leave(first) is second
    assert [waitlist.is_first(one) for one in (second, third)] == [True, False]
    assert waitlist.leave(second) is third
    assert waitlist.leave(third) is None


def test_whoever_leaves_from_behind_moves_nobody_to_the_front(waitlist: Waitlist) -> None:
    first, second, third = (waitlist.join("a") for _ in range(3))
    assert waitlist.leave(second) is None
    assert waitlist.leave(third) is None
    assert waitlist.is_first(first)


def test_lines_know_nothing_of_each_other(waitlist: Waitlist) -> None:
    one, other = waitlist.join("a"), waitlist.join("b")
    assert waitlist.is_first(one)
    assert waitlist.is_first(other)
    assert (waitlist.waiting("a"), waitlist.waiting("b"), waitlist.waiting("c")) == (True, True, False)
    assert waitlist.leave(one) is None
    assert (waitlist.waiting("a"), waitlist.waiting("b"), len(waitlist)) == (False, True, 1)


def test_a_line_is_bounded_and_so_are_all_together(waitlist: Waitlist) -> None:
    line = [waitlist.join("a") for _ in range(3)]
    assert None not in line
    assert waitlist.join("a") is None
    others = [waitlist.join("b"), waitlist.join("c")]
    assert None not in others
    assert waitlist.join("d") is None
    assert len(waitlist) == 5
    waitlist.leave(line[0])
    assert waitlist.join("d") is not None


def test_a_place_is_given_up_once(waitlist: Waitlist) -> None:
    ticket = waitlist.join("a")
    waitlist.leave(ticket)
    with pytest.raises(ValueError, match="expected a place that was not given up yet"):
        waitlist.leave(ticket)
    waitlist.join("a")
    with pytest.raises(ValueError):
        waitlist.leave(ticket)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60))
def test_as_plain_lists_would_do_it(steps: list[tuple[str, int]]) -> None:
    """A step is somebody's coming, or the leaving of the n-th in that line."""
    waitlist = Waitlist(most=12, most_a_key=6)
    model: dict[str, list[object]] = {key: [] for key in "abc"}
    for key, n in steps:
        line = model[key]
        if n < len(line):
            before = line[0]
            ticket = line.pop(n)
            following = waitlist.leave(ticket)
            assert following is (line[0] if line and ticket is before else None)
        else:
            ticket = waitlist.join(key)
            assert (ticket is None) == (len(line) == 6 or sum(map(len, model.values())) == 12)
            if ticket is not None:
                line.append(ticket)
        assert len(waitlist) == sum(map(len, model.values()))
        for other, waiters in model.items():
            assert waitlist.waiting(other) == bool(waiters)
            assert [waitlist.is_first(one) for one in waiters] == [n == 0 for n in range(len(waiters))]
