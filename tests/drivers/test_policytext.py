"""Which files of a folder are read, and how much of them. What becomes of them as they change: test_policyfile.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpgate.document import DocumentError
from smtpgate.document.reader import MAX_TEXT
from smtpgate.drivers import policytext
from smtpgate.drivers.policytext import MAX_FILES, MAX_SET_TEXT, FolderText


def refused(folder: Path) -> str:
    with pytest.raises(DocumentError) as caught:
        policytext.read(folder)
    return str(caught.value).removeprefix(f"{folder}")


def test_policies_in_order_and_sets_by_name(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "vip.txt", ".c.yaml", ".vip.txt", "README.md", "a.yaml~", "a.yml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "x").mkdir()
    text = policytext.read(tmp_path / "x" / "..")
    assert text == FolderText(
        ((f"{tmp_path}/a.yaml", b"a.yaml"), (f"{tmp_path}/b.yaml", b"b.yaml")), {"vip.txt": b"vip.txt"}
    )


def test_a_look_sees_sets_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    first = policytext.look(tmp_path)
    (tmp_path / "vip.txt").write_text("ann\n")
    second = policytext.look(tmp_path)
    assert [name for name, *_ in second] == ["a.yaml", "vip.txt"]  # type: ignore[misc]
    (tmp_path / "vip.txt").write_text("ann\nbob\n")
    assert len({first, second, policytext.look(tmp_path)}) == 3


def test_a_policy_is_cut_where_the_loader_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"#" * (MAX_TEXT + 10))
    ((_, octets),) = policytext.read(tmp_path).files
    assert len(octets) == MAX_TEXT + 1


def test_a_set_of_a_million_octets_and_more(tmp_path: Path) -> None:
    (tmp_path / "vip.txt").write_bytes(b"#" * (MAX_TEXT + 10))
    assert len(policytext.read(tmp_path).set_files["vip.txt"]) == MAX_TEXT + 10
    with (tmp_path / "vip.txt").open("wb") as file:
        os.truncate(file.fileno(), MAX_SET_TEXT + 1)
    assert refused(tmp_path) == (
        f"/vip.txt:1:1: the file has more than {MAX_SET_TEXT} octets; expected a shorter one, or several sets"
    )


def test_sets_count_as_files(tmp_path: Path) -> None:
    for i in range(MAX_FILES):
        (tmp_path / f"{i}.txt").write_text("")
    assert len(policytext.read(tmp_path).set_files) == MAX_FILES
    (tmp_path / "a.yaml").write_text("")
    assert refused(tmp_path) == f":1:1: the folder holds {MAX_FILES + 1} files; expected at most {MAX_FILES}"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vip.txt")
    assert refused(tmp_path) == "/vip.txt:1:1: this is not a regular file"
    with pytest.raises(NotADirectoryError):
        policytext.read(tmp_path / "vip.txt")
    with pytest.raises(FileNotFoundError):
        policytext.read(tmp_path / "nowhere")
    look = policytext.look(tmp_path / "nowhere")
    assert look == f"No such file or directory: {tmp_path}/nowhere"
