from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.users import usersyaml
from authsvc.users.model import User
from authsvc.users.userfile import UserFile
from smtpgate.document import DocumentError

CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"


def text_of(*names: str) -> bytes:
    return ("users:\n" + "".join(f'  "{name}": {{cram_md5: "{CRAM_MD5}"}}\n' for name in names)).encode()


class Watched:
    """A UserFile and what it reported."""

    def __init__(self, path: Path, users: dict[str, User] | None = None) -> None:
        self.loaded: list[int] = []
        self.failed: list[str] = []
        self.file = UserFile(
            path,
            usersyaml.form(),
            loaded=self.loaded.append,
            failed=lambda error: self.failed.append(str(error)),
            users=users,
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    path.write_bytes(text_of("test"))
    return path


def test_an_edit_takes_effect_once_it_is_settled(path: Path) -> None:
    watched = Watched(path)
    watched.file.load()
    assert watched.file.find("test") is not None
    path.write_bytes(text_of("test", "new"))
    watched.file.poll()
    assert watched.file.find("new") is None
    watched.file.poll()
    assert watched.file.find("new") is not None
    assert (watched.loaded, watched.failed) == ([1, 2], [])


def test_a_file_half_written_is_not_taken(path: Path) -> None:
    path.write_bytes(text_of("test", "new"))
    watched = Watched(path)
    watched.file.load()
    path.write_bytes(text_of("test"))
    watched.file.poll()
    path.write_bytes(text_of("test", "new", "newer"))
    watched.file.poll()
    assert watched.file.find("new") is not None
    watched.file.poll()
    assert watched.loaded == [2, 3]


def test_names_are_exact(path: Path) -> None:
    watched = Watched(path)
    watched.file.load()
    assert [watched.file.find(name) for name in ("Test", "test ", "tes", "")] == [None] * 4


def test_an_edit_of_the_same_length_within_the_clocks_tick_is_seen(path: Path) -> None:
    watched = Watched(path)
    watched.file.load()
    path.write_bytes(text_of("tess"))
    watched.file.poll()
    watched.file.poll()
    assert watched.file.find("test") is None
    assert watched.file.find("tess") is not None


def test_nothing_new_is_not_reported(path: Path) -> None:
    watched = Watched(path)
    watched.file.load()
    for _ in range(3):
        watched.file.poll()
    assert watched.loaded == [1]


def test_a_broken_edit_changes_nothing_and_is_reported_once(path: Path) -> None:
    watched = Watched(path)
    watched.file.load()
    path.write_bytes(b"users: [\n")
    for _ in range(4):
        watched.file.poll()
    assert watched.file.find("test") is not None
    assert not watched.file.valid
    assert len(watched.failed) == 1
    assert watched.failed[0].startswith(f"{path}:2:1: ")
    path.write_bytes(text_of("test"))
    watched.file.poll()
    watched.file.poll()
    assert watched.file.valid
    assert watched.loaded == [1, 1]


def test_a_file_that_is_gone_changes_nothing_and_is_found_again(path: Path) -> None:
    watched = Watched(path)
    watched.file.load()
    moved = path.rename(path.with_suffix(".old"))
    for _ in range(3):
        watched.file.poll()
    assert watched.file.find("test") is not None
    assert watched.failed == [
        f"{path}:1:1: cannot be read: No such file or directory; expected a file that this user may read"
    ]
    assert not watched.file.valid
    moved.rename(path)
    watched.file.poll()
    watched.file.poll()
    assert watched.file.valid


def test_users_of_an_earlier_reading_serve_while_the_file_is_broken(path: Path) -> None:
    path.write_bytes(b"nonsense")
    watched = Watched(path, {"old": User("old")})
    with pytest.raises(DocumentError):
        watched.file.load()
    watched.file.poll()
    assert watched.file.find("old") == User("old")
    assert not watched.file.valid
    path.write_bytes(text_of("test"))
    watched.file.poll()
    watched.file.poll()
    assert watched.file.find("old") is None
    assert watched.file.valid


def test_run_looks_often_enough_for_an_edit_to_be_in_force_within_two_seconds(path: Path, clock) -> None:
    watched = Watched(path)

    class StopError(Exception):
        pass

    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise StopError

    clock.sleep = sleep
    with pytest.raises(StopError):
        watched.file.run(clock)
    assert pauses == [0.5] * 3
    assert watched.loaded == [1]
