"""Windows of the day such as 22:00-06:00, on some days of the week, in a time zone.

Owns what "at night" means: a window across midnight belongs to the day on which it begins, and summer time shifts it
with the clocks on the wall. Refuses to know what time it is.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.units import InvalidValue

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EXPECTED_WINDOW: Final = 'e.g. "22:00-06:00", "09:00-17:30", "00:00-24:00"'
EXPECTED_ZONE: Final = "a name of the IANA time zone database, e.g. Europe/Berlin, UTC"
MINUTES_OF_DAY: Final = 24 * 60

_WINDOW = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")


@dataclass(frozen=True, slots=True)
class TimeSet:
    """windows: (first minute of the day, minute after the last). days: as datetime.weekday() counts, Monday is 0."""

    windows: tuple[tuple[int, int], ...]
    days: frozenset[int] = frozenset(range(7))
    zone: datetime.tzinfo = datetime.UTC

    def __call__(self, time: float) -> bool:
        """time: Unix seconds."""
        there = datetime.datetime.fromtimestamp(time, self.zone)
        minute, today = there.hour * 60 + there.minute, there.weekday()
        for begin, end in self.windows:
            if begin < end:
                if begin <= minute < end and today in self.days:
                    return True
            elif (minute >= begin and today in self.days) or (minute < end and (today - 1) % 7 in self.days):
                return True
        return False


def parse_window(text: str) -> tuple[int, int]:
    """`22:00-06:00` -> (1320, 360). Raises InvalidValue."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise InvalidValue("is not a window of the day", EXPECTED_WINDOW, value=text)
    hours, minutes, to_hours, to_minutes = map(int, found.groups())
    begin, end = hours * 60 + minutes, to_hours * 60 + to_minutes
    if begin >= MINUTES_OF_DAY or end > MINUTES_OF_DAY:
        raise InvalidValue("goes beyond 24:00", EXPECTED_WINDOW, value=text)
    if begin == end:
        raise InvalidValue("is empty", f"{EXPECTED_WINDOW} for the whole day", value=text)
    return begin, end


def time_set(windows: Sequence[str], days: Sequence[str] = DAYS, zone: str = "UTC") -> TimeSet:
    """Raises InvalidValue, its path the index of a window, ("days", index) or ("tz",)."""
    parsed = []
    for index, window in enumerate(windows):
        try:
            parsed.append(parse_window(window))
        except InvalidValue as error:
            raise InvalidValue(error.message, error.expected, value=error.value, path=(index,)) from None
    for index, day in enumerate(days):
        if day not in DAYS:
            raise InvalidValue("is not a day", f"one of {', '.join(DAYS)}", value=day, path=("days", index))
    return TimeSet(tuple(parsed), frozenset(map(DAYS.index, days)), _zone(zone))


def _zone(name: str) -> datetime.tzinfo:
    if name == "UTC":
        return datetime.UTC  # also where the system has no time zone database
    # What is no name never reaches the file system.
    if _ZONE.fullmatch(name):
        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise InvalidValue("is not a time zone", EXPECTED_ZONE, value=name, path=("tz",))
