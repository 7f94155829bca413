"""`tools/faultmatrix` chooses, shows what differs, and ends with a status that says whether all is well."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from click.testing import CliRunner
from faults.cells import Cell, Expected, Phase, Result, Seen
from faults.matrix import CELLS
from rich.console import Console

from tools import faultmatrix

DELIVERED = Seen(("250",), "stays", 1, "delivered")
LOST = Seen(("451 4.4.2",), "stays", 0, "refused")
BACKEND = "backend-says-421"


def result(row: str, seen: Seen | None, *faults: str, skipped: str = "", differs: str = "") -> Result:
    cell = Cell(row, Phase.DOT, "a fault", "world", lambda world: DELIVERED, Expected("250"), differs)
    return Result(cell, seen, faults, 0.5, skipped)


def shown(results: Sequence[Result]) -> str:
    console = Console(file=io.StringIO(), width=150)
    faultmatrix.show(results, console, 2.0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_cells_are_chosen_by_words() -> None:
    assert len(faultmatrix.choose(CELLS, "")) == len(CELLS)
    chosen = {cell.row for cell in faultmatrix.choose(CELLS, f"{BACKEND}, clock-jump")}
    assert chosen == {"backend says 421", "clock jump"}
    assert faultmatrix.choose(CELLS, "no such thing") == []


def test_a_word_that_no_cell_has_is_a_clear_message() -> None:
    done = CliRunner().invoke(faultmatrix.main, ["--only", "nonesuch"])
    assert done.exit_code == 2
    assert "no cell has 'nonesuch' in its name; --list tells them" in done.output


def test_the_list_plays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faultmatrix, "run_all", None)
    done = CliRunner().invoke(faultmatrix.main, ["--list", "--only", BACKEND])
    assert done.exit_code == 0
    assert done.output.splitlines() == [cell.id for cell in CELLS if BACKEND in cell.id]


def test_the_table_hides_nothing() -> None:
    text = shown(
        [
            result("one", DELIVERED),
            result("one", LOST, "told: '451 4.4.2', expected 250"),
            result("two", None, skipped="needs root"),
            result("two", LOST, differs="unavailable"),
        ]
    )
    assert "fail: one-a-fault-after-dot: told: '451 4.4.2', expected 250" in text
    assert "not played: two-a-fault-after-dot: needs root" in text
    assert "4 cells: 2 pass, 1 fail, 1 not played; 2 s" in text
    assert "(1) A search for a backend that ends in vain" in text
    assert "messages told 250: 1, committed: 1, of these with the answer lost: 0" in text


@pytest.mark.parametrize(
    ("told", "committed", "sum_"),
    [
        (("250", "250", "354", "250"), 1, "messages told 250: 1, committed: 1, of these with the answer lost: 0"),
        (("250", "451 4.4.1"), 0, "messages told 250: 0, committed: 0, of these with the answer lost: 0"),
        (("250", "421 4.3.2"), 1, "messages told 250: 1, committed: 1, of these with the answer lost: 0"),
        (("closed",), 1, "messages told 250: 0, committed: 1, of these with the answer lost: 1"),
        (("451 4.4.2",), 1, "messages told 250: 0, committed: 1, of these with the answer lost: 1"),
    ],
)
def test_the_sum_tells_whose_answer_was_lost(told: tuple[str, ...], committed: int, sum_: str) -> None:
    assert faultmatrix.ledger([result("one", Seen(told, "stays", committed))]) == sum_


def test_a_cell_that_fails_says_so_to_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for seen, faults, status in ((DELIVERED, (), 0), (LOST, ("told: ...",), 1)):
        monkeypatch.setattr(faultmatrix, "run_all", lambda *_, s=seen, f=faults: [result("one", s, *f)])
        assert CliRunner().invoke(faultmatrix.main, ["--only", BACKEND]).exit_code == status


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (Seen(("250",), "stays", 1, "delivered"), ""),
        (Seen(("451 4.4.2",), "stays", 1, "delivered"), "told: '451 4.4.2', expected 250"),
        (Seen(("250",), "ends", 1, "delivered"), "session: 'ends', expected stays"),
        (Seen(("250",), "stays", 2, "delivered"), "committed: '2', expected 1"),
        (Seen(("250",), "stays", 1, "unknown"), "outcome: 'unknown', expected delivered"),
    ],
)
def test_an_expectation_is_held_against_all_that_was_seen(seen: Seen, fault: str) -> None:
    expected = Expected("250", committed=1, outcome="delivered")
    assert expected.differences(seen) == ([fault] if fault else [])
