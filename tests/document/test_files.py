"""What is read of a path, and how the operating system's refusals are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpgate.document import DocumentError, read_file
from smtpgate.document.reader import MAX_TEXT


def test_the_octets_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xff\r\n\0")
    assert read_file(path) == b"\xef\xbb\xbfa: \xff\r\n\0"


@pytest.mark.parametrize(("size", "read"), [(0, 0), (MAX_TEXT, MAX_TEXT), (MAX_TEXT + 5, MAX_TEXT + 1)])
def test_no_more_than_the_loader_needs_to_refuse_it(tmp_path: Path, size: int, read: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"x" * size)
    assert len(read_file(path)) == read


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.yaml", "No such file or directory"),
        (".", "Is a directory"),
        ("a.yaml/b.yaml", "Not a directory"),
        ("loop.yaml", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_refusal_names_the_file(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "a.yaml").touch()
    os.symlink("loop.yaml", tmp_path / "loop.yaml")
    with pytest.raises(DocumentError) as caught:
        read_file(tmp_path / name)
    expected = f"{tmp_path / name}:1:1: cannot be read: {reason}; expected a file that this user may read"
    assert str(caught.value) == expected
