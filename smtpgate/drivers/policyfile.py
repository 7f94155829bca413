"""The policies folder, read as it changes.

Owns looking at files: when a folder may be read, and that what is applied is one state of it and not two. What the
files say is `smtpgate.snapshot`'s matter. A folder that cannot be read or does not make a snapshot changes
nothing: whoever was handed the last good one keeps it, and the fault is told once for each state of the folder.

A change is read when two looks in a row see the same, so that a file half-written, or one of two files, is not
taken for the whole; in a storm of writes, after MAX_UNSETTLED looks. That is within 1.5 s of the last write.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from smtpgate.clock import Clock
from smtpgate.document import DocumentError, Problem
from smtpgate.document.reader import MAX_TEXT
from smtpgate.routing.model import BackendSettings
from smtpgate.snapshot import Snapshot, build, version_of

# Seconds between two looks; policies take effect within 2 s.
POLL_INTERVAL: Final = 0.5
# Looks that a folder in motion may keep us waiting.
MAX_UNSETTLED: Final = 3
# Files of one folder, of MAX_TEXT octets each.
MAX_FILES: Final = 256
SUFFIX: Final = ".yaml"

# What a look sees: of each file its name, device, inode, size and times, or why the folder cannot be seen.
Look = tuple[tuple[str, int, int, int, int, int], ...] | str


class PolicyFolder:
    """`path`, whose *.yaml files in name order are one snapshot.

    apply: handed each new snapshot; must not wait. loaded: told after it. failed: told of a state of the folder
    that cannot be applied. backend: how to speak to pools that do not say. environ: for `${NAME}` in the files.
    """

    def __init__(
        self,
        path: Path,
        apply: Callable[[Snapshot], None],
        loaded: Callable[[Snapshot], None] = lambda snapshot: None,
        failed: Callable[[DocumentError], None] = lambda error: None,
        *,
        backend: BackendSettings | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._path = path
        self._apply = apply
        self._loaded = loaded
        self._failed = failed
        self._backend = backend
        self._environ = os.environ if environ is None else environ
        self._last: Look = ()
        # The look that needs no further reading; None while what was read may have been in motion.
        self._done: Look | None = None
        self._waited = 0
        self._current: Snapshot | None = None
        self._told = ""

    @classmethod
    def check(
        cls,
        path: Path,
        *,
        backend: BackendSettings | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """The folder as it is now, applied nowhere. Raises DocumentError."""
        found: list[Snapshot] = []
        cls(path, found.append, backend=backend, environ=environ).load()
        return found[0]

    def load(self) -> None:
        """Read and apply for the first time. Raises DocumentError: there is no last good one yet."""
        self._last = self._look()
        try:
            files = self._read()
        except OSError as error:
            raise self._unreadable(error) from None
        self._install(self._build(files))

    def poll(self) -> None:
        """One look: costs a stat for each file while nothing changes. Never raises for what the folder holds."""
        look = self._look()
        if look == self._done:
            self._last = look
            self._waited = 0
            return
        settled = look == self._last
        self._last = look
        self._waited += 1
        if not settled and self._waited < MAX_UNSETTLED:
            return
        self._waited = 0
        final = self._refresh() and settled
        # Whatever is written from now on has a later time than a settled look: the time between two looks is
        # longer than the tick in which a file system counts.
        self._done = look if final else None

    def run(self, clock: Clock) -> None:
        """Poll for ever."""
        while True:
            clock.sleep(POLL_INTERVAL)
            self.poll()

    def _refresh(self) -> bool:
        """Read and apply. False: nothing was learnt of the folder's state, it must be read again."""
        try:
            files = self._read()
            if self._look() != self._last:
                return False
            if self._current is not None and version_of(files) == self._current.version_hash:
                self._good_again(self._current)
                return True
            snapshot = self._build(files)
        except OSError as error:
            self._tell(self._unreadable(error))
            return False
        except DocumentError as error:
            self._tell(error)
            return True
        self._install(snapshot)
        return True

    def _build(self, files: Sequence[tuple[str, bytes]]) -> Snapshot:
        return build(files, self._environ, backend=self._backend, folder=str(self._path))

    def _install(self, snapshot: Snapshot) -> None:
        self._current = snapshot
        self._told = ""
        self._apply(snapshot)
        self._loaded(snapshot)

    def _good_again(self, current: Snapshot) -> None:
        """The files are those that are in force; worth telling only after a fault."""
        if self._told:
            self._told = ""
            self._loaded(current)

    def _tell(self, error: DocumentError) -> None:
        if str(error) != self._told:
            self._told = str(error)
            self._failed(error)

    def _look(self) -> Look:
        try:
            found = []
            for name in self._names():
                status = os.stat(self._path / name)
                times = (status.st_mtime_ns, status.st_ctime_ns)
                found.append((name, status.st_dev, status.st_ino, status.st_size, *times))
            return tuple(found)
        except OSError as error:
            return f"{error.strerror}: {error.filename}"

    def _names(self) -> list[str]:
        """Hidden files are editors' and Kubernetes' own."""
        return sorted(name for name in os.listdir(self._path) if name.endswith(SUFFIX) and not name.startswith("."))

    def _read(self) -> list[tuple[str, bytes]]:
        """All files with their names for messages. Raises OSError, DocumentError."""
        names = self._names()
        if len(names) > MAX_FILES:
            message = f"the folder holds {len(names)} files"
            raise DocumentError([Problem(str(self._path), 1, 1, (), message, f"at most {MAX_FILES}")])
        # For messages and rules in the log: policies/limits.yaml reads better than conf/../policies/limits.yaml.
        return [(os.path.normpath(self._path / name), _text(self._path / name)) for name in names]

    def _unreadable(self, error: OSError) -> DocumentError:
        where = str(error.filename or self._path)
        return DocumentError([Problem(where, 1, 1, (), f"cannot be read: {error.strerror}")])


def _text(path: Path) -> bytes:
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DocumentError([Problem(str(path), 1, 1, (), "this is not a regular file")])
        # One octet more than the loader takes lets it tell that there are too many.
        return file.read(MAX_TEXT + 1)


def _open(path: str, flags: int) -> int:
    # Not to be kept waiting by a FIFO that is named like a policy.
    return os.open(path, flags | os.O_NONBLOCK)
