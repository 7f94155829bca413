"""Sets of members that expire."""

from smtpgate.policy.leases import Leases


def test_members_count_until_their_deadline() -> None:
    leases = Leases(10)
    for member, deadline in (("a", 10.0), ("b", 20.0), ("c", 30.0)):
        leases.put("k", member, 0.0, deadline)
    assert [leases.count("k", now) for now in (9.9, 10.0, 20.0, 30.0)] == [3, 2, 1, 0]
    assert len(leases) == 0
    assert leases.count("never", 0.0) == 0


def test_a_member_put_again_moves_its_deadline() -> None:
    leases = Leases(10)
    for member, deadline in (("a", 10.0), ("b", 10.0), ("a", 50.0)):
        leases.put("k", member, 0.0, deadline)
    assert leases.count("k", 10.0) == 1
    assert [leases.holds("k", member, 10.0) for member in "ab"] == [True, False]


def test_a_member_may_be_asked_for_before_the_dead_are_counted_out() -> None:
    leases = Leases(10)
    leases.put("k", "a", 0.0, 10.0)
    assert [leases.holds("k", "a", now) for now in (9.0, 10.0)] == [True, False]


def test_a_set_that_is_always_written_forgets_its_dead() -> None:
    leases = Leases(10)
    for second in range(1000):
        leases.put("k", str(second), float(second), 5.0, keep=1024)
    assert len(leases._sets["k"]) == 5


def test_what_is_dropped_takes_no_room() -> None:
    leases = Leases(10)
    leases.put("k", "a", 0.0, 10.0)
    for member in "bab":  # twice, and who was never there
        leases.drop("k", member)
    leases.drop("never", "a")
    assert len(leases) == 0


def test_sets_and_members_are_bounded() -> None:
    leases = Leases(2)
    for key in ("a", "b", "a", "c"):
        leases.put(key, "m", 0.0, 10.0)
    assert [leases.count(key, 0.0) for key in "abc"] == [1, 0, 1]
    for member in "stsu":
        leases.put("a", member, 0.0, 10.0, keep=2)
    assert [leases.holds("a", member, 0.0) for member in "mstu"] == [False, True, False, True]
