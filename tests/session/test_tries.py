"""How often, how long and how late another backend is looked for."""

import pytest
from fakes import ManualClock

from smtpgate.routing.model import Failover
from smtpgate.session.tries import STAGES, Tries


def begun(**failover):
    clock = ManualClock()
    tries = Tries(clock)
    tries.begin(Failover(**failover))
    return tries, clock


def test_one_try_more_than_attempts():
    tries, _ = begun(attempts=2)
    for name in ("a", "b", "c"):
        assert tries.left
        tries.next()
        tries.tried.add(name)
    assert not tries.left


def test_each_try_has_an_equal_part_of_what_is_left():
    tries, clock = begun(attempts=2, deadline=30.0)
    parts = []
    for name, took in (("a", 10.0), ("b", 2.0), ("c", 18.0)):
        parts.append(tries.next().remaining())
        clock.time += took
        tries.tried.add(name)
    assert parts == [10.0, 10.0, 18.0]


def test_a_try_that_does_not_count_leaves_the_parts_as_they_were():
    tries, _ = begun(attempts=1, deadline=10.0)
    assert [tries.next().remaining() for _ in range(3)] == [5.0, 5.0, 5.0]


def test_no_try_is_left_when_the_time_is_over():
    tries, clock = begun(attempts=5, deadline=10.0)
    tries.next()
    clock.time += 10.0
    assert not tries.left


def test_a_new_command_has_a_time_of_its_own_that_begins_with_its_first_try():
    tries, clock = begun(attempts=1, deadline=10.0)
    tries.next()
    clock.time += 300.0
    tries.begin(Failover(attempts=1, deadline=10.0))
    clock.time += 300.0
    assert tries.left
    assert tries.next().remaining() == 5.0


@pytest.mark.parametrize("until", STAGES)
def test_a_lost_backend_is_replaced_up_to_the_stage_that_is_named(until):
    tries, _ = begun(until=until)
    assert [stage for stage in STAGES if tries.allowed(stage)] == list(STAGES[: STAGES.index(until) + 1])
