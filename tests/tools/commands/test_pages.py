"""What is shown, once and again: for people on a terminal, for a pipe, for programs."""

from __future__ import annotations

import io
import json

import click
import pytest

from tools.commands.pages import Note, Page, Sheet, show


class Looks:
    """Gives another page each time; ^C comes after `most` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 1, status: int = 0) -> None:
        self.count = 0
        self.slept: list[float] = []
        self._most = most
        self._status = status
        monkeypatch.setattr("tools.commands.pages.time.sleep", self._sleep)

    def __call__(self) -> Page:
        self.count += 1
        sheet = Sheet(("name", "count"), [("a\x1b[2J", str(self.count))], right=("count",))
        return Page([sheet, Note("ill\u202e", bad=True)], {"count": self.count, "never": float("inf")}, self._status)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.count >= self._most:
            raise KeyboardInterrupt


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    show(Looks(monkeypatch), as_json=False, every=None)
    assert capsys.readouterr().out == "name      count\na\\x1b[2J      1\nill\\u202e\n"
    show(Looks(monkeypatch), as_json=True, every=None)
    assert json.loads(capsys.readouterr().out) == {"count": 1, "never": None}


def test_again_and_again_for_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    looks = Looks(monkeypatch, most=3)
    show(looks, as_json=False, every=1.5)
    assert looks.slept == [1.5, 1.5, 1.5]
    assert capsys.readouterr().out.count("name") == 3


def test_again_and_again_as_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    show(Looks(monkeypatch, most=3), as_json=True, every=1.0)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["count"] for line in lines] == [1, 2, 3]


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other screen while it is watched, the last page on this one."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    show(Looks(monkeypatch, most=2), as_json=False, every=1.0)
    written = terminal.getvalue()
    assert "\x1b[?1049h" in written
    _, _, after = written.partition("\x1b[?1049l")
    assert "a\\x1b[2J" in after
    assert "\x1b[2J" not in written.replace("a\\x1b[2J", "")
    assert "ill\\u202e" in after


def test_the_status_of_what_was_seen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for every in (None, 1.0):
        with pytest.raises(click.exceptions.Exit) as ended:
            show(Looks(monkeypatch, status=1), as_json=False, every=every)
        assert ended.value.exit_code == 1
