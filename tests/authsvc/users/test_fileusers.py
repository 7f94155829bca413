from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authsvc.users import passwdfile, usersyaml
from authsvc.users.fileform import FileForm
from authsvc.users.fileusers import FileUsers
from authsvc.users.model import NotWritableError, StoreDownError, User

SSHA = "{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
SSHA2 = "{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=="
CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
TEST = User("test", (SSHA, CRAM_MD5), "gold", "bulk", enabled=False)

Open = Callable[[bytes], FileUsers]


@pytest.fixture(params=["yaml", "passwd"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock) -> FileUsers:
    path = tmp_path / "users"
    yaml = request.param == "yaml"
    path.write_bytes(b"# ours\nusers: {}\n" if yaml else b"# ours\n")
    return FileUsers(path, usersyaml.form() if yaml else passwdfile.form(), clock)


def test_a_user_is_added_changed_and_removed(store: FileUsers, tmp_path: Path) -> None:
    assert (store.find("test"), list(store.names())) == (None, [])
    store.put(TEST)
    store.put(User("a"))
    assert (store.find("test"), list(store.names())) == (TEST, ["test", "a"])
    assert (tmp_path / "users").read_bytes().startswith(b"# ours\n")
    store.put(User("test", (SSHA2,)))
    assert store.find("test") == User("test", (SSHA2,))
    assert store.remove("test")
    assert not store.remove("test")
    assert list(store.names()) == ["a"]


def test_names_are_exact(store: FileUsers) -> None:
    store.put(TEST)
    assert [store.find(name) for name in ("Test", "tes", "test ", "")] == [None] * 4
    assert not store.remove("Test")


def test_an_upgrade_takes_the_place_of_what_was_found_and_of_nothing_else(store: FileUsers) -> None:
    store.put(TEST)
    after = replace(TEST, passwords=(SSHA2, CRAM_MD5))
    assert not store.upgrade(replace(TEST, enabled=True), replace(after, enabled=True))
    assert not store.upgrade(User("other"), User("other", (SSHA,)))
    assert (store.find("test"), list(store.names())) == (TEST, ["test"])
    assert store.upgrade(TEST, after)
    assert store.find("test") == after
    assert not store.upgrade(TEST, after)


def test_the_order_of_forms_may_change_and_nothing_else(store: FileUsers) -> None:
    store.put(User("test", (CRAM_MD5, SSHA)))
    assert store.find("test") == User("test", (SSHA, CRAM_MD5))


def test_a_file_that_is_not_there_or_not_valid_gives_no_answer(store: FileUsers, tmp_path: Path) -> None:
    path = tmp_path / "users"
    for break_it in (lambda: path.write_bytes(b"nonsense"), path.unlink):
        break_it()
        for question in (
            lambda: store.find("test"),
            lambda: list(store.names()),
            lambda: store.put(TEST),
            lambda: store.remove("test"),
            lambda: store.upgrade(TEST, TEST),
        ):
            with pytest.raises(StoreDownError, match=r"users:1:1: "):
                question()


def test_what_the_form_refuses_is_not_written(store: FileUsers, tmp_path: Path) -> None:
    before = (tmp_path / "users").read_bytes()
    with pytest.raises(NotWritableError, match="with this change the file would not be valid: "):
        store.put(User("test", ("1234",)))
    assert (tmp_path / "users").read_bytes() == before


def test_an_editor_that_does_something_else_is_not_believed(tmp_path: Path, clock) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"a:\nb:\n")
    honest = passwdfile.form()
    careless = FileForm(honest.limit, honest.parse, lambda *_: b"a:\n", lambda *_: b"")
    store = FileUsers(path, careless, clock)
    for change in (lambda: store.put(TEST), lambda: store.remove("a")):
        with pytest.raises(NotWritableError, match="cannot make this change in the way the file is written; edit it"):
            change()
    assert path.read_bytes() == b"a:\nb:\n"


def test_a_folder_that_may_not_be_written(store: FileUsers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(NotWritableError, match="users: cannot be written: Permission denied"):
        store.put(TEST)
