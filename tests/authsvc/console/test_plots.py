"""Where lines and ticks go."""

from __future__ import annotations

import pytest

from authsvc.console.plots import Tick, draw, scale, short


def test_a_line_over_the_whole_width() -> None:
    plot = draw([0.0, 450.0, 900.0], [("a", [0.0, 5.0, 10.0]), ("b", [0.0, 0.0, 0.0])], 900.0)
    assert plot is not None
    first, second = plot.lines
    assert first.path == "M44 144L257 77L470 10"
    assert (first.last, first.most, second.path) == (10.0, 10.0, "M44 144L257 144L470 144")
    assert plot.x == (Tick(44.0, "-15 min"), Tick(186.0, "-10 min"), Tick(328.0, "-5 min"), Tick(470.0, "now"))
    assert [tick.text for tick in plot.y] == ["0", "5", "10"]
    assert [tick.at for tick in plot.y] == [144.0, 77.0, 10.0]


def test_a_short_time_takes_the_width_of_a_minute() -> None:
    plot = draw([0.0, 30.0], [("a", [1.0, 1.0])], 900.0)
    assert plot is not None
    assert plot.lines[0].path == "M257 10L470 10"
    assert [tick.text for tick in plot.x] == ["-1 min", "now"]


@pytest.mark.parametrize("times", [[], [1.0]])
def test_nothing_to_draw(times: list[float]) -> None:
    assert draw(times, [("a", [1.0] * len(times))], 900.0) is None


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0.0, (1.0, 1.0)), (1.0, (0.5, 1.0)), (3.0, (1.0, 3.0)), (7.0, (2.0, 8.0)), (10.0, (5.0, 10.0)),
     (0.04, (0.01, 0.04)), (199.0, (50.0, 200.0)), (1e9, (5e8, 1e9))],
)  # fmt: skip
def test_scale(most: float, expected: tuple[float, float]) -> None:
    assert scale(most) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.05, "0.05"), (12.0, "12"), (193.939, "194"), (1500.0, "1.5k"), (2e7, "20M"), (3e9, "3G")],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text
