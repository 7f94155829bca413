"""Tables and JSON for people and programs: drawn on a terminal, plain aligned text elsewhere."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Between the columns of plain text: awk and cut -c see a gap that no value of ours has.
_GAP: Final = "  "
_NEAR: Final = 1e-4
_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """right: the columns of numbers."""
    if sys.stdout.isatty():
        drawn = Table(box=box.SIMPLE_HEAD, header_style="bold")
        for column in columns:
            drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            # As Text: a value with brackets is no markup.
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    for line in plain(columns, rows, right=right):
        click.echo(line)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """The table as lines of aligned text."""
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    lines = []
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def print_json(value: Any) -> None:
    """One document. Infinity, which JSON does not have, is null."""
    click.echo(json.dumps(_finite(value), indent=2, ensure_ascii=True))


def number(value: float) -> str:
    """At most three decimals, and none that says nothing."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if math.isfinite(value) else "never"


def seconds(value: float) -> str:
    """A wait in its two largest units: 2.5s, 1m30s, 1d4h."""
    if not math.isfinite(value):
        return "never"
    if value < 60:
        return f"{number(round(value, 1))}s"
    parts = []
    left = round(value)
    for unit, size in _UNITS:
        if left >= size:
            parts.append(f"{left // size}{unit}")
        left %= size
    return "".join(parts[:2])


def rate(per_second: float) -> str:
    """A rate in the smallest unit in which it is a whole number: 0.5 -> 30/1m."""
    for unit, size in reversed(_UNITS):
        amount = per_second * size
        # Redis keeps nine decimals: a rate of 1/1d comes back as 0.9999936 a day.
        if round(amount) >= 1 and abs(amount - round(amount)) <= _NEAR * amount:
            return f"{round(amount)}/1{unit}"
    return f"{number(per_second * 86_400)}/1d"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
