"""The command of tools/faultmatrix: every fault in every phase, played before the real proxy, as one table.

The cells are those of tests/faults, which pytest runs too. Owns the choice and the showing; refuses to know how a
fault is injected.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import click
from faults.cells import Cell, Result, Seen
from faults.matrix import CELLS, DIFFERENCES, run_all
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PLAIN_WIDTH: Final = 150  # characters of the table in a file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", metavar="WORD,WORD", help="Cells whose name has one of these words.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write every cell there.")
@click.option("--list", "listing", is_flag=True, help="Tell the names, and play nothing.")
def main(only: str, target: Path | None, listing: bool) -> None:
    """Play the fault matrix, and print what was injected, heard and committed. The status is 1 if a cell failed."""
    chosen = choose(CELLS, only)
    if not chosen:
        raise click.BadParameter(f"no cell has {only!r} in its name; --list tells them", param_hint="--only")
    if listing:
        for cell in chosen:
            click.echo(cell.id)
        return
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    began = time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="smtpgate-faults-") as folder:
        for result in run_all(chosen, Path(folder)):
            results.append(result)
            if sys.stderr.isatty():
                click.echo(f"\r{len(results)} of {len(chosen)}", nl=len(results) == len(chosen), err=True)
    show(results, console, time.monotonic() - began)
    if target is not None:
        target.write_text(json.dumps([as_json(result) for result in results], indent=1))
    sys.exit(any(result.faults for result in results))


def choose(cells: Sequence[Cell], only: str) -> list[Cell]:
    """Those whose id holds one of the comma-separated words; all, without words."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    return [cell for cell in cells if not words or any(word in cell.id for word in words)]


def show(results: Sequence[Result], console: Console, seconds: float) -> None:
    """The table, what differs from the matrix's text on purpose, what failed and why, and the sum."""
    differences = list(dict.fromkeys(result.cell.differs for result in results if result.cell.differs))
    table = Table(title="Fault matrix", title_justify="left", show_lines=False)
    for name in ("injected", "phase", "client was told", "session", "backend has", "log", "result"):
        table.add_column(name, overflow="fold")
    for row, members in groupby(results, lambda result: result.cell.row):
        table.add_section()
        table.add_row(f"[bold]{escape(row)}[/]")
        for result in members:
            table.add_row(*_line(result, differences))
    console.print(table)
    for number, name in enumerate(differences, 1):
        console.print(f"({number}) {DIFFERENCES[name]}", markup=False)
    for result in results:
        for fault in result.faults:
            console.print(f"fail: {result.cell.id}: {fault}", markup=False, soft_wrap=True)
        if result.skipped:
            console.print(f"not played: {result.cell.id}: {result.skipped}", markup=False, soft_wrap=True)
    passed, skipped = sum(result.passed for result in results), sum(bool(result.skipped) for result in results)
    failed = len(results) - passed - skipped
    console.print(f"{len(results)} cells: {passed} pass, {failed} fail, {skipped} not played; {seconds:.0f} s")
    console.print(ledger(results))


def ledger(results: Sequence[Result]) -> str:
    """The invariant over all cells: told 250 <= committed <= told 250 + told that nobody knows."""
    seen = [result.seen for result in results if result.seen is not None]
    told = sum(_told_250(one) for one in seen)
    committed = sum(one.committed for one in seen)
    unheard = sum(one.committed for one in seen if not _told_250(one))
    return f"messages told 250: {told}, committed: {committed}, of these with the answer lost: {unheard}"


def _told_250(seen: Seen) -> bool:
    """Whether the message was; what the session heard of its own end comes behind it."""
    words = [word for word in seen.told if word != "closed" and not word.startswith("421")]
    return words[-1:] == ["250"]


def as_json(result: Result) -> dict[str, Any]:
    """One cell for a machine."""
    cell, seen = result.cell, result.seen
    return {
        "id": cell.id,
        "row": cell.row,
        "phase": cell.phase.value,
        "injected": cell.injected,
        "expected": asdict(cell.expected),
        "seen": None if seen is None else {**asdict(seen), "events": sorted(seen.events)},
        "differs": DIFFERENCES.get(cell.differs),
        "result": _verdict(result),
        "faults": result.faults,
        "seconds": round(result.seconds, 3),
    }


def _line(result: Result, differences: Sequence[str]) -> list[str]:
    cell, seen = result.cell, result.seen
    mark = f" ({differences.index(cell.differs) + 1})" if cell.differs else ""
    colour = {"pass": "green", "fail": "red"}.get(_verdict(result), "yellow")
    told = [", ".join(seen.told) or "-", seen.session, str(seen.committed)] if seen is not None else ["", "", ""]
    log = "; ".join(filter(None, [seen.outcome, seen.note])) if seen is not None else ""
    shown = [cell.injected, cell.phase.value, *told, log]
    return [*map(escape, shown), f"[{colour}]{_verdict(result)}[/]{mark}"]


def _verdict(result: Result) -> str:
    if result.skipped:
        return "not played"
    return "pass" if result.passed else "fail"


if __name__ == "__main__":
    main(prog_name="faultmatrix")
