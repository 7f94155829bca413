"""Messages that are kept while they are sent: in memory first, then in one temporary file that has no name.

Owns where the file is and what bounds it. Refuses to know why a message is kept. A crash leaves nothing behind: the
kernel frees an unlinked file with its last descriptor.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import Final

READ_SIZE: Final = 65536  # as drivers.stream reads

MAX_OCTETS: Final = 1 << 30
"""Where the listener's SIZE sets no bound: a client that never ends its text must not fill the disk."""


class TemporarySpool:
    """A Spool. memory: octets until the file is made, in the folder that TMPDIR names (tempfile.gettempdir)."""

    def __init__(self, memory: int) -> None:
        self._file = SpooledTemporaryFile(max_size=max(memory, 1))  # noqa: SIM115 - close() does; 0 would mean "never"
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises OSError: ENOSPC where the disk is full, EFBIG above MAX_OCTETS."""
        self._size += len(data)
        if self._size > MAX_OCTETS:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._file.seek(0, os.SEEK_END)  # chunks() may have been read in between
        self._file.write(data)

    def chunks(self) -> Iterator[bytes]:
        """All of it from the beginning. Nothing may be written before the last piece is taken. Raises OSError."""
        self._file.seek(0)
        while piece := self._file.read(READ_SIZE):
            yield piece

    def close(self) -> None:
        """Forget it. May be called twice."""
        with suppress(OSError):  # what the disk has no room for is not needed any more
            self._file.close()
