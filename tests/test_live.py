"""Which workers an operator should miss."""

from __future__ import annotations

import pytest

from smtpgate.live import STALE, Counts, Order, Report, Sighting, missing


def seen(pid: int, began: float, time: float, age: float, node: str = "mx1", server_name: str = "a.test") -> Sighting:
    report = Report(node, pid, "0", time, began, False, "shared", 0, 0, Counts(), server_name=server_name)
    return Sighting(report, age)


LOST = seen(1, 100.0, 200.0, STALE + 1)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], [1]),
        ([seen(2, 201.0, 210.0, 1.0)], []),  # its successor
        ([seen(2, 100.0, 210.0, 1.0)], [1]),  # began beside it
        ([seen(2, 201.0, 210.0, 1.0, node="mx2")], [1]),
        ([seen(2, 201.0, 210.0, 1.0, server_name="b.test")], [1]),
        ([seen(2, 201.0, 205.0, STALE + 1)], [1, 2]),  # that has gone as well
        ([seen(2, 100.0, 210.0, STALE)], [1]),
    ],
)
def test_who_is_missing(others: list[Sighting], expected: list[int]) -> None:
    assert [one.report.pid for one in missing([LOST, *others])] == expected


def test_a_worker_has_a_name_of_its_own() -> None:
    assert LOST.report.worker == "mx1/1-100.000"


def test_what_an_order_concerns() -> None:
    order = Order("core", "mta1", "ann", 1.0)
    assert (order.concerns("core", "mta1"), order.concerns("core", "mta2"), order.concerns("x", "mta1")) == (
        True,
        False,
        False,
    )
