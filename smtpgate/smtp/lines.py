"""Octets in, lines out.

Owns what has been received and not yet consumed, and the one rule of line ends: a line ends in CRLF (RFC 5321
section 2.3.8). A line that ends in a bare LF is a fault, at whichever octet the input was cut. Remembers how
far it has searched, so that a line arriving octet by octet is searched once. Refuses to know what a line
means.
"""

from __future__ import annotations

import enum


class LineFault(enum.Enum):
    """Why there is no line. Nothing behind a faulty line is to be trusted."""

    TOO_LONG = "line too long"
    BARE_LF = "bare LF"


class LineBuffer:
    """A buffer that is read by lines or by counted octets. `len()` is what it holds.

    It holds no more than the caller lets in: a caller that reads only when it is told to, and stops at a
    fault, has the longest line plus one read in memory.
    """

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        self._data += data

    def starts_with(self, word: bytes) -> bool:
        """Whether the octets begin with `word`, given in upper case; letters are compared without case."""
        return self._data[: len(word)].upper() == word

    def take_line(self, limit: int) -> bytes | LineFault | None:
        """The next line without its CRLF; None while its end has not arrived.

        limit: octets of the longest line, CRLF included. A fault is decided by the first `limit` octets
        alone, so that it does not depend on how much has arrived.
        """
        data = self._data
        end = data.find(b"\n", self._searched, limit)
        if end < 0:
            self._searched = min(len(data), limit)
            return LineFault.TOO_LONG if len(data) >= limit else None
        if data[end - 1 : end] != b"\r":
            return LineFault.BARE_LF
        line = bytes(data[: end - 1])
        self._drop(end + 1)
        return line

    def take(self, count: int) -> bytes:
        """Up to `count` octets."""
        taken = bytes(self._data[:count])
        self._drop(len(taken))
        return taken

    def take_all(self) -> bytes:
        """Everything."""
        return self.take(len(self._data))

    def clear(self) -> None:
        self._drop(len(self._data))

    def _drop(self, count: int) -> None:
        del self._data[:count]
        self._searched = 0
