"""Counting: what is added where, and what a crowd of labels comes to."""

from __future__ import annotations

import pytest

from smtpgate.drivers.metricsvalues import MAX_SERIES, OTHER, Counter, Gauge, Histogram


def test_a_counter_without_labels_is_there_from_the_beginning() -> None:
    counter = Counter("x_total", "X.")
    assert counter.values == {(): 0}
    counter.add()
    counter.add((), 2.5)
    assert counter.values == {(): 3.5}


def test_beyond_the_bound_all_is_counted_as_other() -> None:
    counter, histogram = Counter("x_total", "X.", ("a", "b")), Histogram("y", "Y.", (1.0,), ("a", "b"))
    for number in range(MAX_SERIES + 5):
        counter.add((str(number), "b"))
        histogram.observe((str(number), "b"), 0.5)
    counter.add(("0", "b"))
    assert len(counter.values) == len(histogram.cells) == MAX_SERIES + 1
    assert counter.values[OTHER, OTHER] == histogram.cells[OTHER, OTHER].counts[0] == 5
    assert counter.values["0", "b"] == 2


@pytest.mark.parametrize(
    ("value", "bucket"), [(-1.0, 0), (0.0, 0), (0.1, 0), (0.1000001, 1), (1.0, 1), (9.0, 2), (float("inf"), 2)]
)
def test_a_bucket_ends_with_its_bound(value: float, bucket: int) -> None:
    histogram = Histogram("x_seconds", "X.", (0.1, 1.0))
    histogram.observe((), value)
    cell = histogram.cells[()]
    assert cell.counts == [int(n == bucket) for n in range(3)]
    assert cell.sum == value


def test_a_gauge_is_what_it_was_last_told() -> None:
    gauge = Gauge("x", "X.", "sum", ("a",))
    gauge.set(1.0, ("one",))
    gauge.replace({("two",): 2.0})
    gauge.set(3.0, ("two",))
    assert gauge.values == {("two",): 3.0}
    gauge.replace({(str(n),): 1.0 for n in range(MAX_SERIES + 5)})
    gauge.set(1.0, ("one more",))
    assert len(gauge.values) == MAX_SERIES
