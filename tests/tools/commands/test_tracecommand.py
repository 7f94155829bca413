"""`gatectl trace`: which lines of a log are a session's, and how they look."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpgate.drivers.journal import open_journal
from tools.commands.gatectl import gatectl

SESSION, OTHER, MESSAGE = "1f2e3d4c5b6a7988", "ffffffffffffffff", "7a7b7c7d7e7f7a7b"


def write(path: Path, style: str = "json", *, last: bool = True) -> Path:
    """A log of two sessions, in between each other."""
    with path.open("w") as out:
        journal = open_journal(style, "info", out)
        journal.info("policies_loaded", version="abc")
        journal.info("auth", session=SESSION, user="ann", result=235)
        journal.warning("denied", session=OTHER, limit=SESSION[:4], subject=f"not {SESSION}")
        journal.info(
            "transaction", session=SESSION, transaction=MESSAGE, sender="a\x1b[2J\u202e@b.test", backend=None
        )
        if last:
            journal.info("session", session=SESSION, end="said QUIT")
            journal.info("session", session=OTHER, end="said QUIT")
    return path


def trace(*arguments: str, given: str | None = None, status: int = 0) -> list[str]:
    done = CliRunner().invoke(gatectl, ["trace", *arguments], input=given)
    assert done.exit_code == status, done.output
    return done.stdout.splitlines()


def test_a_session_is_its_lines_in_order(tmp_path: Path) -> None:
    log = write(tmp_path / "log")
    lines = [line.split(" ", 1)[1] for line in trace(SESSION, "--log", str(log))]
    assert lines == [
        "auth             user=ann result=235",
        f"transaction      transaction={MESSAGE} sender=a\\x1b[2J\\u202e@b.test",
        "session          end=said QUIT",
    ]


def test_a_log_of_text(tmp_path: Path) -> None:
    lines = trace(SESSION, "--log", str(write(tmp_path / "log", "text")))
    assert [line.split()[2] for line in lines] == ["auth", "transaction", "session"]
    assert lines[0].endswith(f'info auth session="{SESSION}" user="ann" result=235')


def test_from_a_pipe_and_from_an_archive(tmp_path: Path) -> None:
    log = write(tmp_path / "log")
    shown = trace(SESSION, "--log", str(log))
    assert trace(SESSION, given=log.read_text()) == shown
    # Containers put something in front.
    assert trace(SESSION, given="".join(f"proxy-1  | {line}\n" for line in log.read_text().splitlines())) == shown
    archive = tmp_path / "log.gz"
    archive.write_bytes(gzip.compress(log.read_bytes()))
    assert trace(SESSION, "--log", str(archive)) == shown


def test_one_message_of_it(tmp_path: Path) -> None:
    (line,) = trace(MESSAGE, "--log", str(write(tmp_path / "log")))
    assert " transaction " in line


def test_lines_for_programs(tmp_path: Path) -> None:
    lines = trace(SESSION, "--json", "--log", str(write(tmp_path / "log")))
    assert [json.loads(line)["event"] for line in lines] == ["auth", "transaction", "session"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_following_it_to_its_end(tmp_path: Path, style: str) -> None:
    log = write(tmp_path / "log", style, last=False)

    def more() -> None:
        time.sleep(0.1)
        with log.open("a") as out:
            out.write('{"event": "sess')
            out.flush()
            time.sleep(0.3)
            out.write('ion"}\n')
            open_journal(style, "info", out).info("session", session=SESSION, end="said QUIT")
            open_journal(style, "info", out).info("auth", session=SESSION)

    writer = threading.Thread(target=more)
    writer.start()
    lines = trace(SESSION, "--follow", "--log", str(log))
    writer.join()
    assert len(lines) == 3
    assert "QUIT" in lines[-1]


@pytest.mark.parametrize("way", ["renamed", "renamed and made later", "truncated"])
def test_following_it_through_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr("tools.commands.tracecommand.LOOK", 0.01)
    monkeypatch.setattr("tools.commands.tracecommand.FAREWELL", 0.2)
    log = write(tmp_path / "log", last=False)

    def rotate() -> None:
        time.sleep(0.1)
        with log.open("a") as out:
            if way == "truncated":
                out.truncate(0)
            else:
                log.rename(tmp_path / "log.1")
                if way == "renamed":
                    log.touch()
                time.sleep(0.1)  # the writer has not noticed yet
                open_journal("json", "info", out).info("auth", session=SESSION, user="late")
                time.sleep(0.3)
        with log.open("a") as out:
            open_journal("json", "info", out).info("auth", session=SESSION, user="new")
            open_journal("json", "info", out).info("session", session=SESSION, end="said QUIT")

    writer = threading.Thread(target=rotate)
    writer.start()
    lines = trace(SESSION, "--follow", "--log", str(log), "--json")
    writer.join()
    users = [json.loads(line).get("user") for line in lines]
    assert users == ["ann", None, *(["late"] if way != "truncated" else []), "new", None]


def test_nothing_of_it(tmp_path: Path) -> None:
    log = str(write(tmp_path / "log"))
    done = CliRunner().invoke(gatectl, ["trace", "0" * 16, "--log", log])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"{log}: has no line of {'0' * 16}; expected the id of a session or transaction\n"


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    done = CliRunner().invoke(gatectl, ["trace", SESSION, "--log", str(tmp_path / "gone")])
    assert (done.exit_code, done.stderr) == (2, f"{tmp_path}/gone: cannot be read: No such file or directory\n")
