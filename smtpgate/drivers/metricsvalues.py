"""What is counted, as plain numbers: a counter, a histogram, a gauge, each with its name, help and labels.

Owns counting on the hot path, and its bound: a family has at most MAX_SERIES combinations of labels; what comes
beyond is counted under OTHER. The client library's own values cost 1 to 2 us each in multi-process mode, a lock and a
memory map; these cost 0.1 to 0.3, and `metricsfolder` takes them to the library's files once a second. Refuses to
know what is counted (`metrics`) and how it is told (`metricsfolder`).

Names are Prometheus': `_total` for counters, base units (seconds, bytes), no label whose values a client may choose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

# Of one family in one process. Prometheus' own advice is to keep most metrics under ten, and to think again at a
# hundred; the names of an operator's limits, pools and backends are as many as they are.
MAX_SERIES: Final = 1000
OTHER: Final = "_other"

Labels = tuple[str, ...]
"""The values of a family's labels, in their order."""


@dataclass(frozen=True, slots=True)
class Family:
    """name: as Prometheus has it; a counter's ends in `_total`. help: one line. labels: their names."""

    name: str
    help: str
    labels: Labels = ()


class Counter:
    """Only grows. One without labels begins at 0, and is there from the beginning."""

    __slots__ = ("family", "values")

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002 - Prometheus' word
        self.family = Family(name, help, labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        values = self.values
        before = values.get(labels)
        if before is None:
            labels = _bounded(labels, len(values))
            before = values.get(labels, 0)
        values[labels] = before + amount


class Cell:
    """One distribution. bounds: the histogram's. counts: of each bucket alone, the last of them beyond all bounds."""

    __slots__ = ("_least", "bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._least = bounds[0]
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[0 if value <= self._least else bisect_left(self.bounds, value)] += 1
        self.sum += value


class Histogram:
    """bounds: upper ends of the buckets, ascending, inclusive (`le`)."""

    __slots__ = ("bounds", "cells", "family")

    def __init__(self, name: str, help: str, bounds: tuple[float, ...], labels: Labels = ()) -> None:  # noqa: A002 - prometheus_client's word
        self.family = Family(name, help, labels)
        self.bounds = bounds
        self.cells: dict[Labels, Cell] = {} if labels else {(): Cell(bounds)}

    def cell(self, labels: Labels = ()) -> Cell:
        """For who observes with the same labels again and again."""
        cell = self.cells.get(labels)
        if cell is None:
            labels = _bounded(labels, len(self.cells))
            cell = self.cells.setdefault(labels, Cell(self.bounds))
        return cell

    def observe(self, labels: Labels, value: float) -> None:
        self.cell(labels).observe(value)


Merge = Literal["sum", "max", "min"]
"""What all workers together say, of what each of them says."""


class Gauge:
    """Goes up and down, and is set anew each time it is told."""

    __slots__ = ("family", "merge", "values")

    def __init__(self, name: str, help: str, merge: Merge, labels: Labels = ()) -> None:  # noqa: A002 - prometheus_client's word
        self.family = Family(name, help, labels)
        self.merge = merge
        self.values: dict[Labels, float] = {}

    def set(self, value: float, labels: Labels = ()) -> None:
        if labels in self.values or len(self.values) < MAX_SERIES:
            self.values[labels] = value

    def replace(self, values: Mapping[Labels, float]) -> None:
        """These, and nobody else any more; the first MAX_SERIES."""
        self.values = dict(list(values.items())[:MAX_SERIES])


@dataclass(slots=True)
class Families:
    """All that one process counts."""

    counters: list[Counter] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)

    def counter(self, name: str, help: str, *labels: str) -> Counter:  # noqa: A002 - prometheus_client's word
        self.counters.append(Counter(name, help, labels))
        return self.counters[-1]

    def histogram(self, name: str, help: str, bounds: tuple[float, ...], *labels: str) -> Histogram:  # noqa: A002 - prometheus_client's word
        self.histograms.append(Histogram(name, help, bounds, labels))
        return self.histograms[-1]

    def gauge(self, name: str, help: str, merge: Merge, *labels: str) -> Gauge:  # noqa: A002 - prometheus_client's word
        self.gauges.append(Gauge(name, help, merge, labels))
        return self.gauges[-1]


def _bounded(labels: Labels, known: int) -> Labels:
    return labels if known < MAX_SERIES else (OTHER,) * len(labels)
