from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from authsvc.users import files
from authsvc.users.files import edit_file
from smtpgate.document import DocumentError, read_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_bytes(b"old\n")
    return path


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_no_more_is_read_than_shows_that_it_is_too_much(path: Path) -> None:
    assert [read_file(path, limit) for limit in (2, 3, 4, 5)] == [b"old", b"old\n", b"old\n", b"old\n"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r":1:1: cannot be read: No such file or directory; expected a file that"):
        read_file(tmp_path / "none")


def test_the_file_is_replaced_and_not_written_into(path: Path, clock) -> None:
    with path.open("rb") as reader:
        edit_file(path, lambda text: text + b"new\n", clock)
        assert reader.read() == b"old\n"
    assert path.read_bytes() == b"old\nnew\n"
    assert left(path.parent) == ["users"]


def test_mode_and_owner_stay(path: Path, clock) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    edit_file(path, lambda text: b"new\n", clock)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_a_symbolic_link_stays_one(path: Path, clock, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "users"
    link.symlink_to(path)
    edit_file(link, lambda text: b"new\n", clock)
    assert link.is_symlink()
    assert path.read_bytes() == b"new\n"


def test_nothing_is_written_where_nothing_changes(path: Path, clock) -> None:
    before = path.stat().st_ino
    edit_file(path, lambda text: text, clock)
    assert path.stat().st_ino == before


def test_a_change_that_fails_leaves_all_as_it_was(path: Path, clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(text: bytes) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        edit_file(path, change, clock)

    def replace(source: str, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        edit_file(path, lambda text: b"new\n", clock)
    assert path.read_bytes() == b"old\n"
    assert left(path.parent) == ["users"]


def test_another_program_is_waited_for(path: Path, clock) -> None:
    held = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    sleep = clock.sleep

    def release_after_a_second(seconds: float) -> None:
        sleep(seconds)
        if clock.time > 1001.0:
            fcntl.flock(held, fcntl.LOCK_UN)

    clock.sleep = release_after_a_second
    edit_file(path, lambda text: b"new\n", clock)
    os.close(held)
    assert path.read_bytes() == b"new\n"
    assert clock.time == pytest.approx(1001.0, abs=2 * files.LOCK_INTERVAL)


def test_another_program_is_not_waited_for_for_ever(path: Path, clock) -> None:
    held = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(TimeoutError, match="is locked by another program"):
        edit_file(path, lambda text: b"new\n", clock)
    os.close(held)
    assert path.read_bytes() == b"old\n"
    assert clock.time == pytest.approx(1000.0 + files.LOCK_TIMEOUT, abs=2 * files.LOCK_INTERVAL)
