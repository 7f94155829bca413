"""The texts of a policies folder: which files belong to it, and their octets, bounded.

Owns looking at a folder and reading it once. What the texts say is `smtpgate.snapshot`'s matter, when to look and
what to do about it `policyfile`'s.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smtpgate.document import DocumentError, Problem
from smtpgate.document.reader import MAX_TEXT

# Files of one folder, of MAX_TEXT or MAX_SET_TEXT octets each.
MAX_FILES: Final = 256
# A set of half a million addresses: one value a line needs no YAML, and so not its bound.
MAX_SET_TEXT: Final = 16 * 1024 * 1024
POLICY_SUFFIX: Final = ".yaml"
SET_SUFFIX: Final = ".txt"

# What a look sees: of each file its name, device, inode, size and times, or why the folder cannot be seen.
Look = tuple[tuple[str, int, int, int, int, int], ...] | str


@dataclass(frozen=True, slots=True)
class FolderText:
    """files: (name for messages, text) of each *.yaml, in name order. set_files: name in the folder -> text, of each
    *.txt, which a set may name as its `file`.
    """

    files: tuple[tuple[str, bytes], ...] = field(repr=False)
    set_files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def look(folder: Path) -> Look:
    """What can be seen of the folder without reading it: two looks that differ are two states of it."""
    try:
        found = []
        for name in _names(folder):
            status = os.stat(folder / name)
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found.append((name, status.st_dev, status.st_ino, status.st_size, *times))
        return tuple(found)
    except OSError as error:
        return f"{error.strerror}: {error.filename}"


def read(folder: Path) -> FolderText:
    """All of the folder's files. Raises OSError, and DocumentError for what is no text of bounded size."""
    names = _names(folder)
    if len(names) > MAX_FILES:
        message = f"the folder holds {len(names)} files"
        raise DocumentError([Problem(str(folder), 1, 1, (), message, f"at most {MAX_FILES}")])
    # For messages and rules in the log: policies/limits.yaml reads better than conf/../policies/limits.yaml.
    policies = [name for name in names if name.endswith(POLICY_SUFFIX)]
    return FolderText(
        # One octet more than the loader takes lets it tell that there are too many.
        tuple((os.path.normpath(folder / name), _octets(folder / name, MAX_TEXT + 1)) for name in policies),
        {name: _set_text(folder / name) for name in names if name.endswith(SET_SUFFIX)},
    )


def _names(folder: Path) -> list[str]:
    """Hidden files are editors' and Kubernetes' own."""
    suffixes = (POLICY_SUFFIX, SET_SUFFIX)
    return sorted(name for name in os.listdir(folder) if name.endswith(suffixes) and not name.startswith("."))


def _set_text(path: Path) -> bytes:
    text = _octets(path, MAX_SET_TEXT + 1)
    if len(text) > MAX_SET_TEXT:
        message = f"the file has more than {MAX_SET_TEXT} octets"
        raise DocumentError([Problem(os.path.normpath(path), 1, 1, (), message, "a shorter one, or several sets")])
    return text


def _octets(path: Path, most: int) -> bytes:
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DocumentError([Problem(os.path.normpath(path), 1, 1, (), "this is not a regular file")])
        return file.read(most)


def _open(path: str, flags: int) -> int:
    # Not to be kept waiting by a FIFO that is named like a policy.
    return os.open(path, flags | os.O_NONBLOCK)
