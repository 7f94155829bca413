"""Numbers and sentences as people read them."""

from __future__ import annotations

import math

import pytest

from smtpgate.explain.wording import number, rate, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.5, "1.5"),
        (10.0, "10"),
        (2000.0, "2000"),
        (0.0004, "0"),
        (1.23456, "1.235"),
        (math.inf, "never"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0s"),
        (2.54, "2.5s"),
        (59.0, "59s"),
        (60.0, "1m"),
        (90.4, "1m30s"),
        (3725.0, "1h2m"),
        (86_400.0 + 5, "1d5s"),
        (math.inf, "never"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (10.0, "10/1s"),
        (0.5, "30/1m"),
        (0.008333333, "30/1h"),  # 5/10m, with the nine decimals that Redis keeps
        (0.023148148, "2000/1d"),
        (0.000011574, "1/1d"),
        (0.000001, "0.086/1d"),
    ],
)
def test_rate(per_second: float, text: str) -> None:
    assert rate(per_second) == text
