"""Rates of all workers together, whatever comes and goes among them."""

from __future__ import annotations

from dataclasses import replace

from authsvc.console.traffic import Traffic
from smtpgate.live import Counts, Report

FIRST = Report("mx1", 1, "", 100.0, 0.0, False, "shared", 7, 0, Counts(delivered=1000, octets=10_000))
OTHER = replace(FIRST, node="mx2", open_sessions=3)


def at(report: Report, time: float, **counts: int) -> Report:
    return replace(report, time=time, counts=replace(report.counts, **counts))


def test_rates_are_a_workers_own() -> None:
    traffic = Traffic()
    traffic.add([FIRST, OTHER], 101.0)
    traffic.add([at(FIRST, 104.0, delivered=1008, octets=10_400), at(OTHER, 105.0, delivered=1005)], 106.0)
    first, second = traffic.samples
    assert (first.delivered, first.open_sessions) == (0.0, 10)
    assert (second.time, second.delivered, second.octets) == (106.0, 3.0, 100.0)


def test_a_first_report_tells_of_its_last_minute() -> None:
    traffic = Traffic()
    traffic.add([replace(FIRST, recent=Counts(delivered=30), recent_seconds=60.0), OTHER], 101.0)
    assert traffic.samples[-1].delivered == 0.5


def test_a_worker_that_comes_goes_or_begins_anew_makes_no_peak() -> None:
    traffic = Traffic()
    traffic.add([FIRST], 101.0)
    traffic.add([at(FIRST, 105.0, delivered=1010), OTHER], 106.0)
    assert traffic.samples[-1].delivered == 2.0
    anew = replace(FIRST, time=110.0, began=108.0, counts=Counts(delivered=2))
    traffic.add([anew], 111.0)
    assert traffic.samples[-1].delivered == 0.0
    traffic.add([replace(anew, time=112.0, counts=Counts(delivered=1))], 113.0)  # counts that fell are no rate
    assert traffic.samples[-1].delivered == 0.0


def test_a_report_that_says_nothing_new_keeps_its_rate() -> None:
    traffic = Traffic()
    traffic.add([FIRST], 101.0)
    for now in (106.0, 107.0):
        traffic.add([at(FIRST, 105.0, delivered=1010)], now)
    assert [one.delivered for one in traffic.samples] == [0.0, 2.0, 2.0]


def test_samples_are_bounded() -> None:
    traffic = Traffic(most=3)
    for now in range(10):
        traffic.add([], float(now))
    assert [one.time for one in traffic.samples] == [7.0, 8.0, 9.0]
