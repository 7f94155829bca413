"""The last good policies on a real disk: written whole or not at all, by several at once, and read back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smtpgate.document import DocumentError
from smtpgate.drivers.lastgood import FILE_NAME, LastGood
from smtpgate.drivers.policytext import FolderText

ROOT = Path(__file__).parents[2]
TEXT = FolderText(
    (("policies/a.yaml", b"version: 1\n"), ("policies/b.yaml", "# jürgen ${SECRET}\n".encode())),
    {"vip.txt": b"ann@example.com\n# latin-1: \xe4\n"},
)


@pytest.fixture
def kept(tmp_path: Path) -> LastGood:
    return LastGood(tmp_path / "var" / "state", tmp_path / "policies")


def refused(kept: LastGood) -> str:
    with pytest.raises(DocumentError) as caught:
        kept.load()
    return str(caught.value)


def test_what_is_saved_is_loaded(kept: LastGood) -> None:
    assert kept.load() is None
    assert kept.save("v1", TEXT)
    assert kept.load() == TEXT
    newer = FolderText((("policies/a.yaml", b"version: 1\nmode: shadow\n"),))
    assert kept.save("v2", newer)
    assert kept.load() == newer


def test_the_file_is_for_its_owner_alone_and_readable(kept: LastGood) -> None:
    before = os.umask(0)
    try:
        kept.save("v1", TEXT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.path.parent.stat().st_mode) == 0o700
    assert json.loads(kept.path.read_text("ascii")) == {
        "form": 1,
        "version": "v1",
        "folder": str(kept.path.parents[2] / "policies"),
        "files": [
            {"name": "policies/a.yaml", "text": "version: 1\n"},
            {"name": "policies/b.yaml", "text": "# jürgen ${SECRET}\n"},
        ],
        "set_files": [{"name": "vip.txt", "text": "ann@example.com\n# latin-1: \udce4\n"}],
    }
    assert [path.name for path in kept.path.parent.iterdir()] == [FILE_NAME]


def test_a_version_is_written_once(kept: LastGood) -> None:
    kept.save("v1", TEXT)
    before = kept.path.stat()
    assert not kept.save("v1", TEXT)
    assert kept.path.stat() == before


def test_a_folder_that_is_there_keeps_its_mode(kept: LastGood) -> None:
    kept.path.parent.mkdir(parents=True, mode=0o755)
    before = stat.S_IMODE(kept.path.parent.stat().st_mode)
    kept.save("v1", TEXT)
    assert stat.S_IMODE(kept.path.parent.stat().st_mode) == before


def test_policies_of_another_folder_are_not_ours(kept: LastGood, tmp_path: Path) -> None:
    kept.save("v1", TEXT)
    other = LastGood(kept.path.parent, tmp_path / "others")
    assert other.load() is None
    assert other.save("v1", TEXT)
    assert kept.load() is None
    # The same folder, however it is written.
    assert LastGood(kept.path.parent, tmp_path / "x" / ".." / "others").load() == TEXT


def good() -> dict[str, Any]:
    return {"form": 1, "version": "v1", "folder": "/", "files": [], "set_files": []}


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
        b"[]",
        *(json.dumps({**good(), key: 7}).encode() for key in good()),
        json.dumps({**good(), "files": [{"name": 7, "text": ""}]}).encode(),
        json.dumps({**good(), "files": [{"name": "a", "text": None}]}).encode(),
        json.dumps({**good(), "files": ["a"]}).encode(),
        json.dumps({**good(), "set_files": [{"name": "a"}]}).encode(),
    ],
)
def test_a_file_that_cannot_be_used(kept: LastGood, octets: bytes) -> None:
    kept.path.parent.mkdir(parents=True)
    kept.path.write_bytes(octets)
    assert refused(kept) == f"{kept.path}:1:1: is not a file of last good policies"
    assert kept.save("v1", TEXT)
    assert kept.load() == TEXT


def test_a_file_that_cannot_be_read(kept: LastGood) -> None:
    kept.path.mkdir(parents=True)
    assert refused(kept) == f"{kept.path}:1:1: cannot be read: Is a directory"


def test_a_full_disk_leaves_what_was_there(kept: LastGood, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save("v1", TEXT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept.save("v2", FolderText(()))
    assert kept.load() == TEXT
    monkeypatch.undo()
    assert kept.save("v2", FolderText(()))
    assert [path.name for path in kept.path.parent.iterdir()] == [FILE_NAME]


def test_a_state_dir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(OSError, match="File exists"):
        LastGood(tmp_path / "state", tmp_path).save("v1", TEXT)


def test_several_processes_write_at_once(kept: LastGood) -> None:
    """Each writes fifty versions; whatever is read in between is one of them and whole."""
    program = (
        "import sys; from pathlib import Path\n"
        "from smtpgate.drivers.lastgood import LastGood\n"
        "from smtpgate.drivers.policytext import FolderText\n"
        "state, folder, me = sys.argv[1:]\n"
        "kept = LastGood(Path(state), Path(folder))\n"
        "for n in range(50):\n"
        "    kept.save(f'{me}-{n}', FolderText(((f'{me}-{n}', f'{me}-{n}\\n'.encode() * 1000),)))\n"
    )
    arguments = [
        sys.executable,
        "-W",
        "error",
        "-c",
        program,
        str(kept.path.parent),
        str(kept.path.parents[2] / "policies"),
    ]
    writers = [subprocess.Popen([*arguments, str(me)], cwd=ROOT) for me in range(3)]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        text = kept.load()
        if text is not None:
            ((name, octets),) = text.files
            assert octets == f"{name}\n".encode() * 1000
            reads += 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert reads > 0
    assert [path.name for path in kept.path.parent.iterdir()] == [FILE_NAME]
