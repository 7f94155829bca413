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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """right: the columns of numbers."""
    if sys.stdout.isatty():
        Console().print(drawn(columns, rows, right=right))
        return
    for line in plain(columns, rows, right=right):
        click.echo(line)


def drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """The table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # As Text: a value with brackets is no markup.
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def visible(text: str) -> str:
    """Control and bidirectional characters, with which a client could steer a terminal, as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """The table as lines of aligned text."""
    rows = [[visible(cell) for cell in row] for row in rows]
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
    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=True))


def finite(value: Any) -> Any:
    """`value` with None for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
