"""What the policies folder said before, and what it says now that is not in force.

Owns the texts that comparisons need: of the policies in force and of those before them, since this process began. An
edit that is valid is in force within 2 s, so an edit is pending only while it is broken; then its problems are told
and the lines that differ. Lines that may hold a password are not shown.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from smtpgate.clock import Clock
from smtpgate.document import DocumentError
from smtpgate.drivers import policytext
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.drivers.policytext import FolderText
from smtpgate.explain.difference import Change, FieldChange, differences, read_side
from smtpgate.snapshot import version_of

# Lines of one comparison that are shown, and changes.
MAX_LINES: Final = 400
MAX_CHANGES: Final = 200
# Octets of a file that is compared line by line: difflib takes a second for twice as much.
MAX_COMPARED: Final = 512 * 1024
HIDDEN: Final = "(not shown: it may hold a password)"

_SECRET = re.compile(r"password|passwd|pass\b|secret", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pending:
    """The folder as it is now, where it is not in force. problems: "file:line:column: what, expected". lines: a
    unified diff, from what is in force to the folder; None where what is in force is not known as text.
    """

    problems: tuple[str, ...]
    lines: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class LastEdit:
    """The edit that led to what is in force. time: Unix seconds; old, new: versions."""

    time: float
    old: str
    new: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class _Text:
    version: str
    time: float
    text: FolderText


class Edits:
    """folder: of policies. state_dir: knows what is in force where the folder did not at the start. status: of the
    folder. run: does slow work beside the requests.
    """

    def __init__(
        self,
        folder: Path,
        state_dir: Path | None,
        status: Callable[[], FolderStatus],
        clock: Clock,
        run: Callable[[Callable[[], object]], object] = lambda work: work(),
    ) -> None:
        self._folder = folder
        self._state_dir = state_dir
        self._status = status
        self._clock = clock
        self._run = run
        self._now: _Text | None = None
        self._before: _Text | None = None
        self._last: LastEdit | None = None

    def note(self, version: str) -> None:
        """Policies of this version are in force from now on. Reads their text; never raises for what it finds."""
        if self._now is not None and self._now.version == version:
            return
        text = self._folder_text()
        if text is None or version_of(text.files, text.set_files) != version:
            text = self._kept_text(version)
        self._before, self._last = self._now, None
        self._now = None if text is None else _Text(version, self._clock.now(), text)

    def pending(self) -> Pending | None:
        """None while the folder is in force as it is."""
        status = self._status()
        if status.valid:
            return None
        problems = tuple(str(problem) for problem in status.problems)
        text = self._folder_text()
        if text is None or self._now is None:
            return Pending(problems, None)
        old, new = self._now.text, text
        lines: list[str] = []
        self._run(lambda: lines.extend(compared(old, new)))
        return Pending(problems, tuple(lines))

    def last(self) -> LastEdit | None:
        """None where there was none since this process began."""
        before, now = self._before, self._now
        if before is None or now is None:
            return None
        if self._last is not None:
            return self._last
        changes: list[Change] = []
        self._run(lambda: changes.extend(self._differences(before, now)))
        last = LastEdit(now.time, before.version, now.version, tuple(changes[:MAX_CHANGES]))
        # A comparison takes a while: the next edit may have come meanwhile, and this is not the last one any more.
        if self._before is before and self._now is now:
            self._last = last
        return last

    def _differences(self, before: _Text, now: _Text) -> Iterator[Change]:
        try:
            old, new = (
                read_side(one.text.files, one.text.set_files, os.environ, self._folder) for one in (before, now)
            )
        except DocumentError:
            return  # a variable that it needs is gone: both were valid
        for change in differences(old, new):
            yield replace(change, fields=tuple(map(_without_secret, change.fields)))

    def _folder_text(self) -> FolderText | None:
        try:
            return policytext.read(self._folder)
        except (OSError, DocumentError):
            return None

    def _kept_text(self, version: str) -> FolderText | None:
        if self._state_dir is None:
            return None
        try:
            text = LastGood(self._state_dir, self._folder).load()
        except DocumentError:
            return None
        if text is None or version_of(text.files, text.set_files) != version:
            return None
        return text


def compared(old: FolderText, new: FolderText) -> Iterator[str]:
    """A unified diff of the folder's files, at most MAX_LINES lines, without passwords."""
    count = 0
    before, after = (dict(text.files) | dict(text.set_files) for text in (old, new))
    for name in sorted(before.keys() | after.keys()):
        first, second = before.get(name, b""), after.get(name, b"")
        if first == second:
            continue
        if max(len(first), len(second)) > MAX_COMPARED:
            yield f"{name} differs, and is too long to be compared line by line"
            continue
        for line in difflib.unified_diff(
            shown(first), shown(second), name if name in before else "none", name if name in after else "none", n=2
        ):
            if count == MAX_LINES:
                yield f"... more than {MAX_LINES} lines"
                return
            count += 1
            yield line.rstrip("\n")


def shown(octets: bytes) -> list[str]:
    """The lines of a file. Those with a key that may be a password, and what stands deeper below them, are HIDDEN."""
    lines = []
    below: int | None = None
    for line in octets.decode("utf-8", "replace").splitlines():
        indent = len(line) - len(line.lstrip(" "))
        if below is not None and line.strip() and indent <= below:
            below = None
        if below is None and _SECRET.search(line):
            below = indent
        lines.append(line if below is None else " " * indent + HIDDEN)
    return lines


def _without_secret(field: FieldChange) -> FieldChange:
    if not _SECRET.search(field.path):
        return field
    return replace(field, old=field.old and HIDDEN, new=field.new and HIDDEN)
