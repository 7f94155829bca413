"""The last policies that were valid, on disk: a restart while the folder is broken starts from them.

All texts of the folder are in one file, which one rename replaces: whoever reads it sees one state. It is JSON, and
holds the texts as they were written: what `${NAME}` stood for is not in it. Several workers may write at once: they
take turns, and who finds its version there writes nothing.

Owns the file. Whether the texts still make a snapshot is for `policyfile` to find out.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

from smtpgate.document import DocumentError, Problem
from smtpgate.drivers.policytext import FolderText

FILE_NAME: Final = "policies.last-good.json"
# Of the file's form; another one is not read.
FORM: Final = 1
# Octets. A folder at every bound of policytext would be some gigabytes, and no folder is.
MAX_FILE: Final = 256 * 1024 * 1024


class LastGood:
    """The file in `state_dir` for the policies of `folder`.

    The folder's path is written down too: policies of another place are not this one's, however good they were.
    """

    def __init__(self, state_dir: Path, folder: Path) -> None:
        self._directory = state_dir
        self._folder = os.path.abspath(folder)
        self.path = state_dir / FILE_NAME

    def __repr__(self) -> str:
        return f"<LastGood {self.path}>"

    def save(self, version: str, text: FolderText) -> bool:
        """Write unless this version is there: True if it was written. Blocks for the disk. Raises OSError."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Goes with the descriptor, also when the process is killed.
            fcntl.flock(directory, fcntl.LOCK_EX)
            found = self._found()
            if found is not None and (found["version"], found["folder"]) == (version, self._folder):
                return False
            self._write(_encode(version, self._folder, text))
            # The rename itself is safe only when the directory is (fsync(2)).
            os.fsync(directory)
        finally:
            os.close(directory)
        return True

    def load(self) -> FolderText | None:
        """What was saved last for this folder; None if nothing was.

        Raises DocumentError for a file that cannot be used; it is replaced at the next `save`.
        """
        try:
            found = _read(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._fault(f"cannot be read: {error.strerror}") from None
        if found is None:
            raise self._fault("is not a file of last good policies")
        return _text(found) if found["folder"] == self._folder else None

    def _found(self) -> dict[str, Any] | None:
        try:
            return _read(self.path)
        except OSError:
            return None

    def _write(self, octets: bytes) -> None:
        # One name is enough under the lock, and leaves at most one file behind when the disk is full.
        fresh = self._directory / f".{FILE_NAME}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            # A reply may name a host, a set a customer: not everybody's to read, whatever the umask was then.
            os.fchmod(descriptor, 0o600)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        os.replace(fresh, self.path)

    def _fault(self, message: str) -> DocumentError:
        return DocumentError([Problem(str(self.path), 1, 1, (), message)])


def _encode(version: str, folder: str, text: FolderText) -> bytes:
    value = {
        "form": FORM,
        "version": version,
        "folder": folder,
        "files": [{"name": name, "text": _as_text(octets)} for name, octets in text.files],
        "set_files": [{"name": name, "text": _as_text(octets)} for name, octets in text.set_files.items()],
    }
    return json.dumps(value, indent=1).encode("ascii")


def _read(path: Path) -> dict[str, Any] | None:
    """The file's value; None where it is no such file. Raises OSError."""
    with path.open("rb") as file:
        octets = file.read(MAX_FILE + 1)
    try:
        value = json.loads(octets)
        well_formed = value["form"] == FORM and isinstance(value["version"], str)
        _text(value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return value if well_formed and isinstance(value["folder"], str) else None


def _text(value: dict[str, Any]) -> FolderText:
    return FolderText(tuple(map(_pair, value["files"])), dict(map(_pair, value["set_files"])))


def _pair(entry: dict[str, Any]) -> tuple[str, bytes]:
    name, text = entry["name"], entry["text"]
    if not isinstance(name, str):
        raise TypeError(name)
    return name, _as_octets(text)


# Octets that are no UTF-8 can only stand in a comment of a set file, and are kept.
def _as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _as_octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
