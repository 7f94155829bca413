"""The first refusal is told at once, the others as a count a second, and a flood that is over leaves nothing."""

import gevent
import pytest
from fakes import ListJournal

from smtpgate.drivers import floodlog
from smtpgate.drivers.admission import Refusal
from smtpgate.drivers.floodlog import FloodLog


@pytest.fixture
def journal(monkeypatch):
    monkeypatch.setattr(floodlog, "INTERVAL", 3600.0)  # seconds are over when a test says so
    return ListJournal()


def told(journal):
    return [(line["listener"], line["reason"], line["refused"], line["client"]) for line in journal.of("flood")]


def a_second_is_over(log):
    """What every timer calls."""
    for cause in list(log._timers):
        log._second_is_over(cause)


def test_a_line_an_interval_for_each_cause(journal):
    log = FloodLog(journal)
    for number in range(1, 101):
        log.refused("mx", Refusal.ADDRESS, f"192.0.2.{number}")
    log.refused("mx", Refusal.FULL, "192.0.2.7")
    log.refused("submission", Refusal.ADDRESS, "192.0.2.8")
    first = [
        ("mx", "max_sessions_per_ip", 1, "192.0.2.1"),
        ("mx", "max_sessions", 1, "192.0.2.7"),
        ("submission", "max_sessions_per_ip", 1, "192.0.2.8"),
    ]
    assert told(journal) == first
    a_second_is_over(log)
    assert told(journal) == [*first, ("mx", "max_sessions_per_ip", 99, "192.0.2.100")]
    log.refused("mx", Refusal.ADDRESS, "192.0.2.9")  # within the second interval
    assert len(told(journal)) == 4
    a_second_is_over(log)
    assert told(journal)[4:] == [("mx", "max_sessions_per_ip", 1, "192.0.2.9")]
    a_second_is_over(log)
    assert log._timers == {}
    log.refused("mx", Refusal.ADDRESS, "192.0.2.1")
    assert told(journal)[5:] == [("mx", "max_sessions_per_ip", 1, "192.0.2.1")]
    a_second_is_over(log)
    assert log._timers == {}


def test_the_timer_tells_by_itself_and_ends(journal, monkeypatch):
    monkeypatch.setattr(floodlog, "INTERVAL", 0.02)
    log = FloodLog(journal)
    log.refused("mx", Refusal.FULL, "192.0.2.1")
    log.refused("mx", Refusal.FULL, "192.0.2.2")
    with gevent.Timeout(5):
        while log._timers:
            gevent.sleep(0.01)
    assert told(journal) == [("mx", "max_sessions", 1, "192.0.2.1"), ("mx", "max_sessions", 1, "192.0.2.2")]
