"""Octets in, lines out.

Owns what has been received and not yet consumed, and the one rule of line ends: a line ends in CRLF (RFC 5321
section 2.3.8). A line that ends in a bare LF is a fault, at whichever octet the input was cut, unless the
caller takes it for a line (`bare_newline: normalize`). Remembers how far it has searched, so that a line
arriving octet by octet is searched once. Refuses to know what a line means.
"""

from __future__ import annotations

import enum
from typing import Final

CR: Final = 0x0D


class LineFault(enum.Enum):
    """Why there is no line. Nothing behind a faulty line is to be trusted."""

    TOO_LONG = "line too long"
    BARE_LF = "bare LF"


class LineBuffer:
    """A buffer that is read by lines or by counted octets. `len()` is what it holds.

    It holds no more than the caller lets in: a caller that reads only when it is told to, and stops at a
    fault, has the longest line plus one read in memory.
    """

    # One immutable piece, and how far it is consumed: a text is handed out as it was read, without a copy.
    __slots__ = ("_data", "_searched", "_start")

    def __init__(self) -> None:
        self._data = b""
        self._start = 0
        self._searched = 0  # no LF before this index

    def __len__(self) -> int:
        return len(self._data) - self._start

    def append(self, data: bytes) -> None:
        """More octets have come. Cheap while what is left is less than a line, as it is when nothing more could be
        taken.
        """
        if self._start == len(self._data):
            self._data, self._start, self._searched = data, 0, 0
        else:
            self._data = self._data[self._start :] + data
            self._searched -= self._start
            self._start = 0

    def starts_with(self, word: bytes) -> bool:
        """Whether the octets begin with `word`, given in upper case; letters are compared without case."""
        return self._data[self._start : self._start + len(word)].upper() == word

    def take_line(self, limit: int, *, bare_lf: bool = False) -> bytes | LineFault | None:
        """The next line without its CRLF; None while its end has not arrived.

        limit: octets of the longest line, CRLF included. A fault is decided by the first `limit` octets
        alone, so that it does not depend on how much has arrived. bare_lf: a bare LF ends a line as CRLF does. A bare
        CR never does; it is left in the line.
        """
        data, start = self._data, self._start
        end = data.find(b"\n", self._searched, start + limit)
        if end < 0:
            self._searched = min(len(data), start + limit)
            return LineFault.TOO_LONG if len(data) >= start + limit else None
        crlf = end > start and data[end - 1] == CR
        if not crlf and not bare_lf:
            return LineFault.BARE_LF
        self._drop(end + 1)
        return data[start : end - crlf]

    def take(self, count: int) -> bytes:
        """Up to `count` octets."""
        data, start = self._data, self._start
        end = min(len(data), start + count)
        self._drop(end)
        if start == 0 and end == len(data):
            return data  # compiled, a slice of all is a copy
        return data[start:end]

    def take_all(self) -> bytes:
        """Everything."""
        return self.take(len(self))

    def clear(self) -> None:
        self._drop(len(self._data))

    def _drop(self, end: int) -> None:
        """Everything before `end` is consumed; a piece that is used up is let go."""
        if end == len(self._data):
            self._data, end = b"", 0
        self._start = self._searched = end
