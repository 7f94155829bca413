"""Windows of the day, in a zone with summer time."""

import datetime

import pytest

from smtpgate.policy.times import parse_window, time_set
from smtpgate.units import InvalidValue

WEEK = ("mon", "tue", "wed", "thu", "fri")


def unix(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-20T21:59:59+01:00", False),  # a Friday
        ("2026-11-20T22:00:00+01:00", True),
        ("2026-11-21T03:00:00+01:00", True),  # Friday's night
        ("2026-11-21T05:59:59+01:00", True),
        ("2026-11-21T06:00:00+01:00", False),
        ("2026-11-21T23:00:00+01:00", False),  # a Saturday
        ("2026-11-23T03:00:00+01:00", False),  # a Monday: Sunday's night
        ("2026-11-20T21:30:00+00:00", True),  # half past ten in Berlin
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(time: str, expected: bool) -> None:
    assert time_set(["22:00-06:00"], WEEK, "Europe/Berlin")(unix(time)) is expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-07-01T20:30:00+00:00", True),  # 22:30 in summer
        ("2026-12-01T20:30:00+00:00", False),  # 21:30 in winter
        ("2026-12-01T21:30:00+00:00", True),
    ],
)
def test_the_window_moves_with_the_clocks_on_the_wall(time: str, expected: bool) -> None:
    assert time_set(["22:00-23:00"], zone="Europe/Berlin")(unix(time)) is expected


def test_utc_needs_no_time_zone_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.ZoneInfo", lambda name: pytest.fail("asked for a file"))
    assert time_set(["22:00-23:00"])(unix("2026-07-01T22:30:00+00:00"))


def test_several_windows_of_utc_on_all_days() -> None:
    tested = time_set(["09:00-12:00", "13:00-17:00"])
    hours = [hour for hour in range(24) if tested(unix(f"2026-11-22T{hour:02}:30:00+00:00"))]
    assert hours == [9, 10, 11, 13, 14, 15, 16]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("22:00-06:00", (1320, 360)), ("00:00-24:00", (0, 1440)), ("09:15-17:45", (555, 1065))],
)
def test_windows(text: str, expected: tuple[int, int]) -> None:
    assert parse_window(text) == expected


EXAMPLES = 'expected e.g. "22:00-06:00", "09:00-17:30", "00:00-24:00"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9:00-17:00", f'"9:00-17:00" is not a window of the day; {EXAMPLES}'),
        ("22:00", f'"22:00" is not a window of the day; {EXAMPLES}'),
        ("22:60-23:00", f'"22:60-23:00" is not a window of the day; {EXAMPLES}'),
        ("24:00-06:00", f'"24:00-06:00" goes beyond 24:00; {EXAMPLES}'),
        ("22:00-24:01", f'"22:00-24:01" goes beyond 24:00; {EXAMPLES}'),
        ("06:00-06:00", f'"06:00-06:00" is empty; {EXAMPLES} for the whole day'),
        ("٢2:00-06:00", f'"٢2:00-06:00" is not a window of the day; {EXAMPLES}'),
    ],
)
def test_bad_windows(text: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_window(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("windows", "days", "zone", "path"),
    [
        (["09:00-10:00", "x"], WEEK, "UTC", (1,)),
        (["09:00-10:00"], ["mon", "Tue"], "UTC", ("days", 1)),
        (["09:00-10:00"], WEEK, "Europe/Berlinn", ("tz",)),
        (["09:00-10:00"], WEEK, "../../etc/passwd", ("tz",)),
        (["09:00-10:00"], WEEK, "", ("tz",)),
    ],
)
def test_where_a_fault_is(windows: list[str], days: list[str], zone: str, path: tuple[str | int, ...]) -> None:
    with pytest.raises(InvalidValue) as caught:
        time_set(windows, days, zone)
    assert caught.value.path == path
