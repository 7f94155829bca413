"""Numbers, waits and tables as people read them."""

from __future__ import annotations

import json
import math

import pytest

from tools.commands import tables


def test_plain_columns_are_aligned_without_trailing_blanks() -> None:
    assert tables.plain(("name", "now"), [("a", "1"), ("longer", "22")], right=("now",)) == [
        "name    now",
        "a         1",
        "longer   22",
    ]
    assert tables.plain(("name", "note"), [("a", "")]) == ["name  note", "a"]


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_json({"wait": math.inf, "rows": [(1.0, math.nan, "jürgen")]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"wait": None, "rows": [[1.0, None, "jürgen"]]}
    assert out.isascii()


def test_a_terminal_gets_a_drawn_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tables.print_table(("name", "now"), [("[red]a[/red]", "1")], right=("now",))
    out = capsys.readouterr().out
    assert "[red]a[/red]" in out
    assert "─" in out
