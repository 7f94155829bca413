"""What the folder said before, and what it says that is not in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authsvc.console.edits import HIDDEN, MAX_LINES, Edits, compared, shown
from smtpgate.document import DocumentError
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.policyfile import FolderStatus, PolicyFolder
from smtpgate.drivers.policytext import FolderText, read

POLICIES = """\
version: 1
limits:
  msgs: {event: mail, rate: 10/1d, burst: 10, key: "{user}", deny: {reply: "450 4.7.1 slow"}}
routes: [{name: all, match: {}, pool: core}]
pools:
  core:
    smtp_auth: {user: proxy, password: hunter2}
    backends: [{name: mta1, addr: "127.0.0.1:10025"}]
"""


class Folder:
    """A policies folder, and what a follower of it would say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.status = FolderStatus()
        self.write(POLICIES)

    def write(self, text: str) -> str:
        """The version that is in force afterwards."""
        (self.path / "p.yaml").write_text(text)
        try:
            version = PolicyFolder.check(self.path).version_hash
        except DocumentError as error:
            self.status = replace(self.status, valid=False, problems=error.problems)
        else:
            self.status = FolderStatus(version, 1.0, valid=True)
        return self.status.version


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "policies")


@pytest.fixture
def edits(folder: Folder, tmp_path: Path, clock) -> Edits:
    return Edits(folder.path, tmp_path / "state", lambda: folder.status, clock)


def test_nothing_is_pending_while_the_folder_is_in_force(folder: Folder, edits: Edits) -> None:
    edits.note(folder.status.version)
    edits.note(folder.status.version)
    assert (edits.pending(), edits.last()) == (None, None)


def test_a_broken_edit_is_told_with_its_lines(folder: Folder, edits: Edits) -> None:
    edits.note(folder.status.version)
    folder.write(POLICIES.replace("burst: 10", "burst: ten").replace("hunter2", "hunter3"))
    pending = edits.pending()
    assert pending is not None
    assert len(pending.problems) == 1
    assert pending.problems[0].startswith(f"{folder.path}/p.yaml:3:")
    assert pending.lines is not None
    assert [line for line in pending.lines if line[:1] in "+-"] == [
        f"--- {folder.path}/p.yaml",
        f"+++ {folder.path}/p.yaml",
        '-  msgs: {event: mail, rate: 10/1d, burst: 10, key: "{user}", deny: {reply: "450 4.7.1 slow"}}',
        '+  msgs: {event: mail, rate: 10/1d, burst: ten, key: "{user}", deny: {reply: "450 4.7.1 slow"}}',
    ]
    assert "hunter" not in "".join(pending.lines)


def test_the_last_edit_is_told_by_its_meaning(folder: Folder, edits: Edits, clock) -> None:
    first = folder.status.version
    edits.note(first)
    clock.sleep(60.0)
    second = folder.write(POLICIES.replace("10/1d", "20/1d").replace("hunter2", "hunter3"))
    edits.note(second)
    last = edits.last()
    assert last is not None
    assert (last.time, last.old, last.new) == (clock.now(), first, second)
    told = {
        (change.section, change.name, field.path): (field.old, field.new)
        for change in last.changes
        for field in change.fields
    }
    assert told == {
        ("limits", "msgs", "rate"): ('"10/1d"', '"20/1d"'),
        ("pools", "core", "smtp_auth.password"): (HIDDEN, HIDDEN),
    }
    assert edits.last() is last


def test_a_start_with_a_broken_folder_compares_with_what_was_kept(
    folder: Folder, edits: Edits, tmp_path: Path
) -> None:
    version = folder.status.version
    LastGood(tmp_path / "state", folder.path).save(version, read(folder.path))
    folder.write("version: 2\n")
    edits.note(version)
    pending = edits.pending()
    assert pending is not None
    assert pending.lines is not None
    assert "-version: 1" in pending.lines
    assert "+version: 2" in pending.lines


def test_without_a_text_of_what_is_in_force_there_are_problems_alone(folder: Folder, edits: Edits) -> None:
    version = folder.status.version
    folder.write("version: 2\n")
    edits.note(version)
    pending = edits.pending()
    assert pending is not None
    assert (len(pending.problems), pending.lines) == (1, None)
    assert edits.last() is None


def test_files_that_come_and_go() -> None:
    old = FolderText((("a.yaml", b"x\n"),), {"vip.txt": b"ann\n"})
    new = FolderText((("b.yaml", b"y\n"),), {"vip.txt": b"ann\nbob\n"})
    assert list(compared(old, new)) == [
        "--- a.yaml", "+++ none", "@@ -1 +0,0 @@", "-x",
        "--- none", "+++ b.yaml", "@@ -0,0 +1 @@", "+y",
        "--- vip.txt", "+++ vip.txt", "@@ -1 +1,2 @@", " ann", "+bob",
    ]  # fmt: skip


def test_comparisons_are_bounded() -> None:
    many = b"".join(b"line %d\n" % at for at in range(2000))
    lines = list(compared(FolderText((("a.yaml", b""),)), FolderText((("a.yaml", many),))))
    assert (len(lines), lines[-1]) == (MAX_LINES + 1, f"... more than {MAX_LINES} lines")
    huge = FolderText((("a.yaml", b"x" * (1 << 20)),))
    assert list(compared(FolderText((("a.yaml", b""),)), huge)) == [
        "a.yaml differs, and is too long to be compared line by line"
    ]


def test_what_may_be_a_password_is_hidden_in_every_form() -> None:
    text = b"""\
pools:
  core:
    smtp_auth:
      user: proxy
      password: >-
        hunter2

        hunter2
      after: seen
    flow: {user: proxy, password_file: hunter2}
    "PassWord": hunter2
    seen: too
"""
    assert shown(text) == [
        "pools:",
        "  core:",
        "    smtp_auth:",
        "      user: proxy",
        "      " + HIDDEN,
        "        " + HIDDEN,
        HIDDEN,
        "        " + HIDDEN,
        "      after: seen",
        "    " + HIDDEN,
        "    " + HIDDEN,
        "    seen: too",
    ]


def test_an_edit_that_comes_during_a_comparison_is_the_last_one(folder: Folder, tmp_path: Path, clock) -> None:
    first = folder.status.version
    third: list[str] = []

    def run(work: Callable[[], object]) -> None:
        work()
        if not third:
            third.append(folder.write(POLICIES.replace("10/1d", "30/1d")))
            own.note(third[0])

    own = Edits(folder.path, tmp_path / "state", lambda: folder.status, clock, run)
    own.note(first)
    second = folder.write(POLICIES.replace("10/1d", "20/1d"))
    own.note(second)
    told = [own.last() for _ in range(2)]
    assert [(one.old, one.new) for one in told if one is not None] == [(first, second), (second, third[0])]
