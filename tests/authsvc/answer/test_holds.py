from __future__ import annotations

from authsvc.answer.holds import Holds

KEY = ("192.0.2.7", "test", 1)


def test_a_login_is_held_from_its_first_wait_on(clock) -> None:
    holds = Holds(clock)
    assert (holds.rest(KEY), holds.end(KEY)) == (None, None)
    holds.begin(KEY, "user.logins", 5.0)
    clock.sleep(2.0)
    holds.begin(KEY, "another", 50.0)
    assert holds.rest(KEY) == 3.0
    clock.sleep(4.0)
    assert holds.rest(KEY) == 0.0
    assert holds.end(KEY) == ("user.logins", 6.0)
    assert (holds.rest(KEY), len(holds)) == (None, 0)


def test_another_address_user_or_attempt_is_another_login(clock) -> None:
    holds = Holds(clock)
    holds.begin(KEY, "x", 5.0)
    for other in (("192.0.2.8", "test", 1), ("192.0.2.7", "test2", 1), ("192.0.2.7", "test", 2)):
        assert holds.rest(other) is None


def test_whoever_does_not_come_back_is_forgotten(clock) -> None:
    """A repeat comes within the hold, whatever it was told, and a moment for the way."""
    holds = Holds(clock)
    holds.begin(KEY, "x", 5.0)
    clock.sleep(11.9)
    assert holds.rest(KEY) == 0.0
    clock.sleep(0.1)
    assert (holds.rest(KEY), holds.end(KEY)) == (None, None)
    holds.begin(KEY, "x", 5.0)
    clock.sleep(12.0)
    holds.begin(KEY, "x", 5.0)
    assert holds.rest(KEY) == 5.0


def test_no_more_than_so_many_are_kept(clock) -> None:
    holds = Holds(clock, size=2)
    keys = [("192.0.2.7", "test", attempt) for attempt in (1, 2, 3)]
    for key in keys:
        holds.begin(key, "x", 5.0)
    assert [holds.rest(key) for key in keys] == [None, 5.0, 5.0]
