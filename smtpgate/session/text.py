"""The text of one message on its way into one backend: as DATA, or as BDAT chunks (RFC 3030).

Owns what differs between the two, from the start to the commit. What a client said in chunks goes on in chunks where
the backend has CHUNKING, and becomes DATA elsewhere; what it said as DATA stays DATA. Refuses to know replacements.

In both forms the commit comes after everything else: until it is sent the message is not delivered, and what the
backend had to say before has been heard. The last octets of a text may leave together with it, in one packet.
"""

from __future__ import annotations

from typing import Final, Protocol

from smtpgate.session.link import BackendLink
from smtpgate.smtp.datascan import DotStuffer
from smtpgate.smtp.encode import FINAL_DOT
from smtpgate.smtp.replies import Reply

MAX_TAIL: Final = 16 * 1024
"""Octets of the last piece of a text, at most, that wait for its end, to go with it in one write: what Linux has room
for in a socket (tcp_wmem), so that such a write is taken as a whole."""

READY: Final = Reply(354, ("Start mail input",))
"""In the name of a backend that takes chunks, and has no word for it; no client hears it."""


class Text(Protocol):
    """Calls come in order: start, write*, settle, commit. All raise LinkLost.

    refused: the backend has said already that it will not have it.
    """

    @property
    def refused(self) -> bool: ...

    def start(self) -> Reply:
        """354 once the text may come; any other reply is the backend's refusal."""

    def write(self, data: bytes, *, last: bool = False) -> None:
        """A piece of the text as the client's form has it; blocks while the backend is slow. last: no other follows,
        so that it may wait for the commit.
        """

    def settle(self) -> Reply | None:
        """Before the commit: the backend's refusal of what it has read, if there is one."""

    def commit(self) -> Reply:
        """End the message; the backend's final reply. LinkLost now leaves its outcome unknown."""


def open_text(link: BackendLink, *, chunked: bool) -> Text:
    """The form for a message that the client sends in chunks, or as DATA."""
    if not chunked:
        return DataText(link, None)
    return ChunkedText(link) if link.extensions.chunking else DataText(link, DotStuffer())


class DataText:
    """DATA. stuffer: makes its text of plain content; None where the dots are stuffed already."""

    refused: Final = False  # a backend that refuses a text before its end is left at once

    def __init__(self, link: BackendLink, stuffer: DotStuffer | None) -> None:
        self._link = link
        self._stuffer = stuffer
        self._tail = b""  # the last piece, for the commit

    def start(self) -> Reply:
        return self._link.start_data()

    def write(self, data: bytes, *, last: bool = False) -> None:
        text = data if self._stuffer is None else self._stuffer.feed(data)
        if last and len(text) <= MAX_TAIL:
            self._tail = text
        else:
            self._link.write_body(text)

    def settle(self) -> Reply | None:
        self._link.check_silent("before the end of the text")
        return None

    def commit(self) -> Reply:
        return self._link.end_data(FINAL_DOT if self._stuffer is None else self._stuffer.end(), self._tail)


class ChunkedText:
    """BDAT, a chunk for each piece as it comes: the client's own sizes say nothing to anybody else, and a piece can
    be sent on before the rest of its chunk has come.
    """

    def __init__(self, link: BackendLink) -> None:
        self._link = link
        self._refusal: Reply | None = None

    @property
    def refused(self) -> bool:
        return self._refusal is not None

    def start(self) -> Reply:
        self._link.check_silent("before its text")  # DATA would have found out, and nothing of the text is lost yet
        return READY

    def write(self, data: bytes, *, last: bool = False) -> None:
        if self._refusal is None:
            self._refusal = self._link.write_chunk(data)

    def settle(self) -> Reply | None:
        refusal = self._link.settle_chunks()
        self._refusal = self._refusal or refusal
        return self._refusal

    def commit(self) -> Reply:
        return self._link.end_chunks()
