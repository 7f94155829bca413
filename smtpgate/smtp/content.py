"""The octets of one message, from the buffer into events.

Owns how much is read: DATA's text to its end, a BDAT chunk to its size, and how much of what is refused
already. A reader takes from the buffer what is its own and leaves the rest there, where it is commands.
Refuses to know replies and states; what octets may be passed on is for `datascan` to say.
"""

from __future__ import annotations

from typing import Final

from smtpgate.smtp.datascan import ChunkScanner, DataScanner
from smtpgate.smtp.events import Bdat, Body, BodyEnd, BodyFault, BodyFaulted, Event
from smtpgate.smtp.lines import LineBuffer

MAX_DISCARDED: Final = 64 * 1024 * 1024
"""Octets of a message, or of a chunk, that are read although it is refused already; then it is enough. More
than the message limits of the large providers (25 to 50 MB), so that an honest client hears its reply."""


class TextReader:
    """DATA's text. max_size: octets of the largest message, None for any. normalize: mend bare CR and LF."""

    __slots__ = ("_scanner", "_told")

    def __init__(self, max_size: int | None, *, normalize: bool = False) -> None:
        self._scanner = DataScanner(max_size, normalize=normalize)
        self._told = False

    @property
    def excess(self) -> BodyFault | None:
        """The fault of a message that has been read for too long in spite of it."""
        return self._scanner.fault if self._scanner.discarded > MAX_DISCARDED else None

    def read(self, buffer: LineBuffer) -> list[Event]:
        """Consume the buffer: Body, BodyFaulted and BodyEnd, as far as they have come."""
        events: list[Event] = []
        if not buffer:
            return events
        scanner = self._scanner
        scanned = scanner.feed(buffer.take_all())
        if scanned.text:
            events.append(Body(scanned.text, last=scanned.rest is not None and scanner.fault is None))
        if scanner.fault is not None and not self._told:
            self._told = True
            events.append(BodyFaulted(scanner.fault))
        if scanned.rest is not None:
            buffer.append(scanned.rest)
            events.append(BodyEnd(scanner.size, last=True, fault=scanner.fault))
        return events


class ChunkReader:
    """The chunks of one message (RFC 3030): begin() each, then read() until its BodyEnd. Arguments as above."""

    __slots__ = ("_chunk", "_left", "_scanner", "_told")

    def __init__(self, max_size: int | None, *, normalize: bool = False) -> None:
        self._scanner = ChunkScanner(max_size, normalize=normalize)
        self._chunk = Bdat(0, last=False)
        self._left = 0
        self._told = False

    @property
    def excess(self) -> BodyFault | None:
        """The fault of a message that has been read, or would have to be, for too long in spite of it."""
        return self._scanner.fault if self._scanner.discarded + self._left > MAX_DISCARDED else None

    def begin(self, chunk: Bdat) -> list[Event]:
        """The next octets are this chunk's: the chunk, behind the news of its fault where its size alone is one."""
        self._chunk, self._left = chunk, chunk.size
        self._scanner.begin(chunk.size)
        return [*self._news(), chunk]

    def read(self, buffer: LineBuffer) -> list[Event]:
        """Consume what is the chunk's: Body, BodyFaulted and BodyEnd, as far as they have come."""
        scanner, chunk = self._scanner, self._chunk
        data = buffer.take(self._left)
        self._left -= len(data)
        text = scanner.feed(data)
        if not self._left:
            text += scanner.end(last=chunk.last)
        events: list[Event] = []
        if text:
            events.append(Body(text))
        events += self._news()
        if not self._left:
            events.append(BodyEnd(scanner.size, chunk.last, scanner.fault))
        return events

    def _news(self) -> list[Event]:
        """The message's fault, once."""
        fault = self._scanner.fault
        if fault is None or self._told:
            return []
        self._told = True
        return [BodyFaulted(fault)]


class SkipReader:
    """A chunk that is refused before it is read: its octets must not be taken for commands."""

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        self._left = size

    @property
    def done(self) -> bool:
        return self._left == 0

    def read(self, buffer: LineBuffer) -> None:
        """Consume what is the chunk's."""
        self._left -= len(buffer.take(self._left))
