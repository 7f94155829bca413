"""Deadlines on a manual clock, and that the system's clock is the machine's."""

from __future__ import annotations

import time

import pytest
from fakes import ManualClock

from smtpgate.clock import Deadline, SystemClock


def test_a_deadline_is_one_budget_for_several_waits() -> None:
    clock = ManualClock()
    deadline = Deadline(clock, 5.0)
    assert (deadline.remaining(), deadline.expired) == (5.0, False)
    clock.sleep(3.0)
    assert (deadline.remaining(), deadline.expired) == (2.0, False)
    assert repr(deadline) == "<Deadline in 2.000s>"
    clock.sleep(2.0)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)
    clock.sleep(60.0)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_budget_is_over_at_once(seconds: float) -> None:
    assert Deadline(ManualClock(), seconds).expired


def test_the_systems_clock() -> None:
    clock = SystemClock()
    assert clock.now() == pytest.approx(time.time(), abs=5.0)
    before = clock.monotonic()
    clock.sleep(0.01)
    assert 0.01 <= clock.monotonic() - before < 5.0
