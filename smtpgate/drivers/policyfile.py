"""The policies folder, read as it changes.

Owns when a folder is read, and that what is applied is one state of it and not two. What the files say is
`smtpgate.snapshot`'s matter. A folder that cannot be read or does not make a snapshot changes nothing: whoever was
handed the last good one keeps it, and the fault is told once for each state of the folder. With a `LastGood` a
restart meanwhile starts from it, too.

A change is read when two looks in a row see the same, so that a file half-written, or one of two files, is not
taken for the whole; in a storm of writes, after MAX_UNSETTLED looks. That is within 1.5 s of the last write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import gevent

from smtpgate.clock import Clock, SystemClock
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers import policytext
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.policytext import FolderText, Look
from smtpgate.routing.model import BackendSettings
from smtpgate.routing.poolspec import SideFiles
from smtpgate.snapshot import Snapshot, build, version_of

# Seconds between two looks; policies take effect within 2 s.
POLL_INTERVAL: Final = 0.5
# Looks that a folder in motion may keep us waiting.
MAX_UNSETTLED: Final = 3


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """How things stand, for metrics and health checks.

    version: the snapshot in force, "" before there is one. loaded: Unix seconds since when it is. valid: the folder,
    as it was when last looked at, is what is in force. problems: why not.
    """

    version: str = ""
    loaded: float = 0.0
    valid: bool = False
    problems: tuple[Problem, ...] = ()


class PolicyFolder:
    """`path`, whose *.yaml files in name order, and the *.txt files that their sets name, are one snapshot.

    apply: handed each new snapshot; must not wait. loaded: told after it. failed: told of a state of the folder
    that cannot be applied. backend: how to speak to pools that do not say. environ: for `${NAME}` in the files.
    side: looks into the files that pools name; None where nobody speaks to backends. current: a snapshot that is in
    force already. keep: where the texts of each snapshot go, for the next start; not_kept: told, once in a row, why
    they do not.
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
        current: Snapshot | None = None,
        keep: LastGood | None = None,
        not_kept: Callable[[str], None] = lambda reason: None,
        clock: Clock | None = None,
        side: SideFiles | None = None,
    ) -> None:
        self._path = path
        self._apply = apply
        self._loaded = loaded
        self._failed = failed
        self._backend = backend
        self._environ = os.environ if environ is None else environ
        self._keep = keep
        self._not_kept = not_kept
        self._clock = clock or SystemClock()
        self._side = side
        self._last: Look = ()
        # The look that needs no further reading; None while what was read may have been in motion.
        self._done: Look | None = None
        self._waited = 0
        self._current = current
        self._status = FolderStatus() if current is None else FolderStatus(current.version_hash, self._clock.now())
        self._told = ""
        self._told_not_kept = ""

    @classmethod
    def check(
        cls,
        path: Path,
        *,
        backend: BackendSettings | None = None,
        environ: Mapping[str, str] | None = None,
        side: SideFiles | None = None,
    ) -> Snapshot:
        """The folder as it is now, applied nowhere. Raises DocumentError."""
        found: list[Snapshot] = []
        cls(path, found.append, backend=backend, environ=environ, side=side).load()
        return found[0]

    @property
    def status(self) -> FolderStatus:
        return self._status

    def load(self) -> None:
        """Read and apply for the first time. Raises DocumentError, and `poll` does not tell that one again."""
        self._last = self._look()
        try:
            text = self._read()
            snapshot = self._build(text)
        except OSError as error:
            raise self._refused(self._unreadable(error)) from None
        except DocumentError as error:
            raise self._refused(error) from None
        self._install(snapshot, text)

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
        if read := self._refresh():
            self._waited = 0  # else it changed while it was read: the next look reads it again
        # Whatever is written from now on has a later time than a settled look: the time between two looks is
        # longer than the tick in which a file system counts.
        self._done = look if read and settled else None

    def run(self, clock: Clock) -> None:
        """Poll for ever."""
        while True:
            clock.sleep(POLL_INTERVAL)
            self.poll()

    def _refresh(self) -> bool:
        """Read and apply. False: nothing was learnt of the folder's state, it must be read again."""
        try:
            text = self._read()
            if self._look() != self._last:
                return False
            if self._current is not None and _version(text) == self._current.version_hash:
                self._good_again(self._current)
                return True
            # Thousands of limits take a second or two. Sessions go on meanwhile: the interpreter changes threads
            # every 5 ms, and nothing that is built is anybody else's yet.
            snapshot = gevent.get_hub().threadpool.apply(self._build, (text,))
        except OSError as error:
            self._tell(self._unreadable(error))
            return False
        except DocumentError as error:
            self._tell(error)
            return True
        self._install(snapshot, text)
        return True

    def _look(self) -> Look:
        return policytext.look(self._path)

    def _read(self) -> FolderText:
        return policytext.read(self._path)

    def _build(self, text: FolderText) -> Snapshot:
        return _build(text, self._path, self._backend, self._environ, self._side)

    def _install(self, snapshot: Snapshot, text: FolderText) -> None:
        self._current = snapshot
        self._told = ""
        self._status = FolderStatus(snapshot.version_hash, self._clock.now(), valid=True)
        self._apply(snapshot)
        self._loaded(snapshot)
        if self._keep is not None:
            self._save(self._keep, snapshot.version_hash, text)

    def _save(self, keep: LastGood, version: str, text: FolderText) -> None:
        try:
            # Sessions go on while the disk takes its time.
            gevent.get_hub().threadpool.apply(keep.save, (version, text))
            reason = ""
        except OSError as error:
            reason = f"{keep.path}: cannot be written: {error.strerror}"
        if reason and reason != self._told_not_kept:
            self._not_kept(reason)
        self._told_not_kept = reason

    def _good_again(self, current: Snapshot) -> None:
        """The files are those that are in force; worth telling only after a fault."""
        self._status = replace(self._status, valid=True, problems=())
        if self._told:
            self._told = ""
            self._loaded(current)

    def _tell(self, error: DocumentError) -> None:
        if str(error) != self._told:
            self._failed(self._refused(error))

    def _refused(self, error: DocumentError) -> DocumentError:
        """`error`, noted down as the folder's state."""
        self._told = str(error)
        self._status = replace(self._status, valid=False, problems=error.problems)
        return error

    def _unreadable(self, error: OSError) -> DocumentError:
        where = str(error.filename or self._path)
        return DocumentError([Problem(where, 1, 1, (), f"cannot be read: {error.strerror}")])


def load_or_last_good(
    path: Path,
    state_dir: Path | None,
    *,
    backend: BackendSettings | None = None,
    environ: Mapping[str, str] | None = None,
    side: SideFiles | None = None,
) -> tuple[Snapshot, DocumentError | None]:
    """For a start: the folder as it is now and None, or the last good one and what is wrong with the folder.

    Raises DocumentError where there is neither: the folder's problems, and why the last good policies, if there are
    any, do not help.
    """
    try:
        return PolicyFolder.check(path, backend=backend, environ=environ, side=side), None
    except DocumentError as error:
        broken = error
    if state_dir is None:
        raise broken
    keep = LastGood(state_dir, path)
    try:
        text = keep.load()
    except DocumentError as error:
        raise DocumentError([*broken.problems, *error.problems]) from None
    if text is None:
        raise broken
    try:
        return _build(text, path, backend, os.environ if environ is None else environ, side), broken
    except DocumentError as error:
        # Good they were for another version of this program, or with a variable that is gone.
        message = f"cannot be used in their place: {error.problems[0]}"
        raise DocumentError([*broken.problems, Problem(str(keep.path), 1, 1, (), message)]) from None


def _build(
    text: FolderText,
    path: Path,
    backend: BackendSettings | None,
    environ: Mapping[str, str],
    side: SideFiles | None,
) -> Snapshot:
    return build(text.files, environ, set_files=text.set_files, backend=backend, folder=str(path), side=side)


def _version(text: FolderText) -> str:
    return version_of(text.files, text.set_files)
