"""How long a client may take for a text, and how long the rest of a refused one is read."""

from __future__ import annotations

from typing import cast

import pytest
from fakes import FakeLane, ManualClock

from smtpgate.clock import Deadline
from smtpgate.session.intake import DATA_GRACE, DRAIN_TIMEOUT, Intake
from smtpgate.session.ports import Lane
from smtpgate.session.streams import TEXT_READ_SIZE
from smtpgate.smtp.content import MAX_DISCARDED

PATIENCE = 300.0


def left(intake: Intake, clock: ManualClock, patience: float = PATIENCE) -> float:
    """Seconds for which the client is waited for."""
    return intake.wait(Deadline(clock, patience)).remaining()


@pytest.mark.parametrize(("patience", "waited"), [(60.0, 60.0), (PATIENCE, DATA_GRACE)])
def test_the_shorter_of_patience_and_grace_holds(patience: float, waited: float) -> None:
    clock = ManualClock()
    assert left(Intake(clock, 500.0, None), clock, patience) == waited


def test_octets_earn_time_and_waiting_for_them_costs_it() -> None:
    clock = ManualClock()
    intake = Intake(clock, 500.0, None)
    left(intake, clock)
    clock.time += 100.0
    intake.came(5_000)
    assert left(intake, clock) == DATA_GRACE - 100.0 + 10.0


def test_a_client_that_drips_is_ended_however_small_its_pauses() -> None:
    clock = ManualClock()
    intake = Intake(clock, 500.0, None)
    began, octets = clock.time, 0
    while left(intake, clock) > 0.0:
        clock.time += 1.0
        intake.came(1)
        octets += 1
    assert clock.time - began == pytest.approx(DATA_GRACE + octets / 500.0, abs=1.0)


def test_a_client_at_the_rate_is_waited_for_as_long_as_it_likes() -> None:
    clock = ManualClock()
    intake = Intake(clock, 500.0, None)
    for _ in range(10_000):
        assert left(intake, clock) == pytest.approx(DATA_GRACE)
        clock.time += 1.0
        intake.came(500)


def test_what_others_take_is_not_the_clients() -> None:
    clock = ManualClock()
    intake = Intake(clock, 500.0, None)
    for _ in range(100):
        assert left(intake, clock) >= DATA_GRACE
        intake.came(1)
        clock.time += 60.0  # the backend is slow


def test_without_a_rate_only_patience_holds() -> None:
    clock = ManualClock()
    intake = Intake(clock, 0.0, None)
    left(intake, clock)
    clock.time += 10 * DATA_GRACE
    intake.came(1)
    assert left(intake, clock) == PATIENCE


def test_a_lane_says_how_much_is_read_and_is_told_of_it() -> None:
    clock = ManualClock()
    lane = FakeLane(clock, piece=10, owed=0, seconds=1.0)
    intake = Intake(clock, 500.0, cast(Lane, lane))
    assert (intake.shaped, intake.piece) == (True, 10)
    assert not intake.settle()
    intake.came(7)
    assert intake.settle()
    assert lane.paid == [7]
    intake.close()
    assert lane.closed == 1


def test_without_a_lane_there_is_nothing_to_pay() -> None:
    intake = Intake(ManualClock(), 500.0, None)
    intake.came(7)
    assert (intake.shaped, intake.piece, intake.settle()) == (False, TEXT_READ_SIZE, False)
    intake.close()


def test_a_doomed_text_is_read_for_its_time() -> None:
    clock = ManualClock()
    intake = Intake(clock, 0.0, None)
    assert not intake.in_vain
    intake.doom()
    clock.time += 100.0
    intake.doom()  # does not begin anew
    assert left(intake, clock) == DRAIN_TIMEOUT - 100.0
    clock.time += DRAIN_TIMEOUT - 100.0
    assert intake.in_vain


def test_a_doomed_text_is_read_for_its_octets() -> None:
    intake = Intake(ManualClock(), 0.0, None)
    intake.came(2 * MAX_DISCARDED)  # before it was doomed
    intake.doom()
    intake.came(MAX_DISCARDED)
    assert not intake.in_vain
    intake.came(1)
    assert intake.in_vain
