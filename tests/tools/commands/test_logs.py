"""A log as a file, with progress where somebody watches."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.commands.logs import opened
from tools.commands.outcomes import Configuration

LINES = [b"one\n", b"two\n", b"three"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["log", "log.gz"])
@pytest.mark.parametrize("task", ["", "replaying"])
@pytest.mark.parametrize("watched", [False, True])
def test_line_by_line(tmp_path: Path, name: str, task: str, watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    text = b"".join(LINES)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    errors = Terminal() if watched else io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    with opened(path, task=task) as file:
        assert list(iter(lambda: file.readline(100), b"")) == LINES
    assert ("replaying" in errors.getvalue()) == (watched and bool(task))


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_text("plain")
    with pytest.raises(Configuration, match=r"log\.gz: cannot be read: Not a gzipped file"), opened(path) as file:
        file.readline()


@pytest.mark.parametrize(
    ("broken", "told"),
    [(lambda octets: octets[:-12], "ended before"), (lambda octets: octets[:12] + b"\xff" * 40, "Error -3")],
    ids=["cut short", "damaged"],
)
def test_an_archive_that_is_broken(tmp_path: Path, broken: Callable[[bytes], bytes], told: str) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(broken(gzip.compress(b"".join(b"%d\n" % line for line in range(1000)))))
    with pytest.raises(Configuration, match=rf"log\.gz: cannot be read: .*{told}"), opened(path) as file:
        list(file)


def test_a_reader_of_the_output_that_is_gone_is_no_fault_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with pytest.raises(BrokenPipeError), opened(path):
        raise BrokenPipeError
