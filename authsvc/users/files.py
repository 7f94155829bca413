"""Changing a file in a single step.

Owns that a file is replaced by renaming a complete one, so that nobody reads half of it, and that two programs that
change it do so one after the other. Refuses to know what files say.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.document import read_file
from smtpgate.document.reader import MAX_TEXT

# Seconds to wait for another program that is changing a file of the same folder; each takes some milliseconds.
LOCK_TIMEOUT: Final = 2.0
LOCK_INTERVAL: Final = 0.02


def edit_file(path: Path, change: Callable[[bytes], bytes], clock: Clock, limit: int = MAX_TEXT) -> None:
    """Replace what the file holds by `change` of it. The file keeps its mode, and its owner where we may say so; a
    symbolic link stays one. If the text is the same, nothing is written.

    Raises OSError (TimeoutError for the lock), DocumentError, and what `change` raises; the file is then as it was.
    """
    target = path.resolve()
    with _locked(target.parent, clock) as folder:
        text = read_file(target, limit)
        new = change(text)
        if new == text:
            return
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(handle, "wb") as file:
                _like(target, handle)
                file.write(new)
                file.flush()
                os.fsync(handle)
            os.replace(name, target)
        except BaseException:  # an ended process or greenlet, too, leaves no half file behind
            os.unlink(name)
            raise
        os.fsync(folder)


@contextmanager
def _locked(folder: Path, clock: Clock) -> Iterator[int]:
    """Holds the folder's lock, which leaves no file behind; gives its descriptor."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = Deadline(clock, LOCK_TIMEOUT)
        while True:
            try:
                # Without waiting in the kernel, where the other greenlets would wait too.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.expired:
                    raise TimeoutError(f"{folder} is locked by another program") from None
                clock.sleep(LOCK_INTERVAL)
        yield descriptor
    finally:
        os.close(descriptor)


def _like(model: Path, handle: int) -> None:
    """Mode and owner of `model` for the open file."""
    status = model.stat()
    os.fchmod(handle, status.st_mode & 0o7777)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(handle, status.st_uid, status.st_gid)
        except PermissionError:
            # Without root the file becomes ours; who may read it by its mode stays the same.
            pass
