"""Memory that the workers of one proxy share, and who of them leads.

Owns the layout and its safety: the arbiter makes an anonymous file before it forks, each area of it has one writer,
who holds a lock that the kernel gives back when the process dies, and a reader that meets a write half done sees
nothing new. Nobody ever waits. Refuses to know what is written: the values are JSON.

Area 0 is the leader's, whoever that is; each worker has one of the others.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import tempfile
import zlib
from typing import Any, Final

from smtpgate.units import MAX_WORKERS

LEADER: Final = 0
# While the proxy reloads, the old workers drain beside the new ones.
AREAS: Final = 1 + 2 * MAX_WORKERS
# Some 250 octets a backend: room for four thousand. Pages that nobody has written cost nothing.
AREA_SIZE: Final = 1 << 20
_HEADER: Final = struct.Struct("=QII")  # how often it was written, octets, their CRC-32
MAX_VALUE: Final = AREA_SIZE - _HEADER.size


class NodeFile:
    """The file, as the arbiter makes it and the workers inherit it. Raises OSError."""

    def __init__(self) -> None:
        try:
            self.fd = os.memfd_create("smtpgate", os.MFD_CLOEXEC)
        except (AttributeError, OSError):  # not Linux, or forbidden: a file that has no name any more is as good
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, AREAS * AREA_SIZE)

    def close(self) -> None:
        os.close(self.fd)


class Board:
    """One worker's view of the file. Without a file it is alone: it leads, and there is nothing to read.

    Made after the fork: locks are a process's own (fcntl(2)), and so are the areas.
    """

    def __init__(self, file: NodeFile | None) -> None:
        self._file = file
        self._memory = None if file is None else mmap.mmap(file.fd, AREAS * AREA_SIZE)
        self._seen = [0] * AREAS
        self._leads = file is None
        self._own = self._claim()
        if self._own is not None:
            self.publish({})  # what the last worker there had to say

    @property
    def leads(self) -> bool:
        return self._leads

    def lead(self) -> bool:
        """Try to become the leader; costs a system call as long as another one is."""
        self._leads = self._leads or self._lock(LEADER)
        return self._leads

    def resign(self) -> None:
        """Let another one lead."""
        if self._leads and self._file is not None:
            self._leads = False
            fcntl.lockf(self._file.fd, fcntl.LOCK_UN, 1, LEADER)

    def publish(self, value: Any, *, as_leader: bool = False) -> bool:
        """Replace what this worker has to say, or the leader. False: it has no area, or that is too small."""
        area = LEADER if as_leader else self._own
        if self._memory is None or area is None or (as_leader and not self._leads):
            return self._file is None
        octets = json.dumps(value, separators=(",", ":")).encode()
        if len(octets) > MAX_VALUE:
            return False
        start = area * AREA_SIZE
        text = start + _HEADER.size
        written, _, _ = _HEADER.unpack_from(self._memory, start)
        self._memory[text : text + len(octets)] = octets
        _HEADER.pack_into(self._memory, start, written + 1, len(octets), zlib.crc32(octets))
        return True

    def news(self) -> list[tuple[int, Any]]:
        """(area, value) of all that others have written since the last call."""
        if self._memory is None:
            return []
        found = []
        for area in range(AREAS):
            if area == self._own or (area == LEADER and self._leads):
                continue
            start = area * AREA_SIZE
            header = _HEADER.unpack_from(self._memory, start)
            written, length, crc = header
            if written == self._seen[area] or length > MAX_VALUE:
                continue
            octets = self._memory[start + _HEADER.size : start + _HEADER.size + length]
            if zlib.crc32(octets) == crc:  # else it is being written now: the next look will see it
                self._seen[area] = written
                found.append((area, json.loads(octets)))
        return found

    def _claim(self) -> int | None:
        if self._file is None:
            return None
        return next((area for area in range(1, AREAS) if self._lock(area)), None)

    def _lock(self, area: int) -> bool:
        assert self._file is not None
        try:
            fcntl.lockf(self._file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, area)
        except OSError:
            return False
        return True
