"""PURE. Lines over time as the geometry of an SVG: where paths, ticks and labels go.

Owns numbers and scales. Colours and words are the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Units of the drawing; the page scales it to its width.
WIDTH: Final = 480
HEIGHT: Final = 168
LEFT: Final = 44
RIGHT: Final = 10
TOP: Final = 10
BOTTOM: Final = 24
# Lines across; as many as fit without a crowd.
MOST_TICKS: Final = 4
# Seconds.
SPANS: Final = (60.0, 180.0, 600.0)


@dataclass(frozen=True, slots=True)
class Tick:
    """One label of an axis. at: where on it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One series. path: the value of an SVG path's `d`. last: its newest value, most: its largest."""

    name: str
    path: str
    last: float
    most: float


@dataclass(frozen=True, slots=True)
class Plot:
    """x, y: ticks of the two axes."""

    lines: tuple[Line, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]


def draw(times: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], span: float) -> Plot | None:
    """times: Unix seconds, rising. series: name and a value for each time, 0 or more. span: seconds that the whole
    width stands for, with the newest time at its end; one of SPANS as long as that is enough. None
    where there are not two times to draw a line between.
    """
    if len(times) < 2:
        return None
    span = next((some for some in SPANS if times[-1] - times[0] <= some), span)
    step, top = scale(max((max(values) for _, values in series), default=0.0))
    end = times[-1]

    def x(time: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, 1.0 - (end - time) / span), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, value / top), 1)

    lines = []
    for name, values in series:
        points = [f"{x(time):g} {y(value):g}" for time, value in zip(times, values, strict=True)]
        lines.append(Line(name, "M" + "L".join(points), values[-1], max(values)))
    minutes = round(span / 60)
    third = max(1, minutes // 3)
    across = tuple(
        Tick(x(end - ago * 60), f"-{ago} min" if ago else "now")
        for ago in range(minutes // third * third, -1, -third)
    )
    up = tuple(Tick(y(step * at), short(step * at)) for at in range(round(top / step) + 1))
    return Plot(tuple(lines), across, up)


def scale(most: float) -> tuple[float, float]:
    """(the distance of two ticks, the top one) for values up to `most`: 1, 2 or 5 of some power of ten."""
    if most <= 0.0 or not math.isfinite(most):
        return 1.0, 1.0
    raw = most / MOST_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    # 1.0000000001 of the raw distance is as good as it: floats.
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return step, step * math.ceil(most / step * (1 - 1e-9))


def short(value: float) -> str:
    """A number on an axis: 0.05, 12, 1.5k, 20M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
