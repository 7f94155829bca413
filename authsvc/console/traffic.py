"""PURE. The last minutes of all workers together, from what each of them counts.

Owns the samples: rates between two reports of the same worker, summed over the workers, for a bounded time. A worker
that came or went changes the sum and makes no peak, because its counts are only compared with its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from smtpgate.live import Counts, Report

# Seconds between two samples, and how many are kept: a quarter of an hour. Workers report every 2 s.
INTERVAL: Final = 5.0
SAMPLES: Final = 180

_COUNTED: Final = tuple(field.name for field in fields(Counts))


@dataclass(frozen=True, slots=True)
class Sample:
    """time: Unix seconds. open_sessions: then. Of the rest: how many a second, since the sample before; the names are
    those of live.Counts.
    """

    time: float
    open_sessions: int
    sessions: float = 0.0
    delivered: float = 0.0
    refused: float = 0.0
    unknown: float = 0.0
    abandoned: float = 0.0
    denied: float = 0.0
    held: float = 0.0
    logins: float = 0.0
    failed_logins: float = 0.0
    octets: float = 0.0


@dataclass(frozen=True, slots=True)
class _Worker:
    """The last report that said something new, and what its counts rose by a second since the one before; of the
    first one, what it says itself of the last minute.
    """

    time: float
    counts: Counts
    rates: tuple[float, ...]


class Traffic:
    """Samples in order, the oldest first."""

    def __init__(self, most: int = SAMPLES) -> None:
        self._samples: deque[Sample] = deque(maxlen=most)
        self._workers: dict[tuple[str, int, float], _Worker] = {}

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(self._samples)

    def add(self, reports: Sequence[Report], now: float) -> None:
        """The reports of all workers, as they are `now` (Unix seconds)."""
        workers: dict[tuple[str, int, float], _Worker] = {}
        total = [0.0] * len(_COUNTED)
        for report in reports:
            key = report.node, report.pid, report.began
            workers[key] = worker = _newer(self._workers.get(key), report)
            total = [one + other for one, other in zip(total, worker.rates, strict=True)]
        self._workers = workers
        open_sessions = sum(report.open_sessions for report in reports)
        self._samples.append(Sample(now, open_sessions, **dict(zip(_COUNTED, total, strict=True))))


def _newer(last: _Worker | None, report: Report) -> _Worker:
    if last is None:
        span = max(report.recent_seconds, 1.0)
        return _Worker(report.time, report.counts, tuple(count / span for count in _values(report.recent)))
    seconds = report.time - last.time
    if seconds <= 0.0:
        return last
    before, after = _values(last.counts), _values(report.counts)
    rates = tuple(max(0.0, new - old) / seconds for old, new in zip(before, after, strict=True))
    return _Worker(report.time, report.counts, rates)


def _values(counts: Counts) -> tuple[float, ...]:
    return tuple(float(getattr(counts, name)) for name in _COUNTED)
