"""A backend's octets -> replies (RFC 5321 section 4.2).

Owns the framing of replies: where a line ends, which lines make one reply, and every bound on them. Refuses
to know what was asked; that is `client`.

Strict on purpose. A line that two parsers can read in two ways is how a reply slips onto the wrong command
(reference/security.md B1, B2), so a bare CR or LF, a change of code inside a reply or a control octet ends
the conversation. The parser remembers how far it has searched and looks at each octet once.
"""

from __future__ import annotations

import re
from typing import Final

from smtpgate.smtp.replies import Reply

MAX_REPLY_LINE: Final = 4096
"""Octets of one line with its CRLF. RFC 5321 section 4.5.3.1.5 says 512; nginx's proxy_buffer gives 4096."""

MAX_REPLY_LINES: Final = 100
"""Lines of one reply. Long EHLO lists have about 20; this is reference/security.md B2."""

SAMPLE_OCTETS: Final = 80
"""How much of an offending line an error quotes, escaped: one terminal line."""

# Reply-line of RFC 5321 section 4.2, with codes 2yz-5yz (1yz is not used by SMTP) and a text that may also
# hold octets above 127: servers put localised words there, and RFC 6531 section 3.7.4.2 allows UTF-8.
_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([\t -~\x80-\xff]*))?\r\n")


class BackendProtocolError(Exception):
    """The backend broke the protocol or went away. `reason` is printable ASCII, for the log only."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ReplyError(BackendProtocolError):
    """The octets are not an SMTP reply."""


class ReplyParser:
    """Feed it with `receive_data`, take replies from `next_reply` until that gives None.

    Holds at most what was fed since the last None plus one unfinished reply. After a ReplyError it raises the
    same error for ever: there is no way back into step with the peer.
    """

    __slots__ = ("_buffer", "_code", "_error", "_held", "_lines", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # no LF before this index
        self._code = 0  # of the unfinished reply, if there are lines of one
        self._lines: list[str] = []
        self._held = 0  # octets of the unfinished reply that have left the buffer
        self._error: str | None = None  # an exception would hold whoever has read it, and so ourselves

    @property
    def buffered(self) -> int:
        """Octets received that no reply handed out so far accounts for."""
        return self._held + len(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Store octets. Nothing is parsed here, so nothing is raised."""
        if self._error is None:
            self._buffer += data

    def next_reply(self) -> Reply | None:
        """The next complete reply, or None: read more. Octets that are not UTF-8 are kept by surrogateescape.

        Raises ReplyError.
        """
        if self._error is not None:
            raise ReplyError(self._error)
        try:
            return self._parse()
        except ReplyError as error:
            self._error = str(error)
            raise

    def _parse(self) -> Reply | None:
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._searched)) >= 0:
            match = _REPLY_LINE.match(buffer) if end < MAX_REPLY_LINE else None
            if match is None:
                raise ReplyError(_fault(bytes(buffer[: end + 1])))
            if len(self._lines) == MAX_REPLY_LINES:
                raise ReplyError(f"reply of more than {MAX_REPLY_LINES} lines")
            code, separator, text = int(match[1]), match[2], match[3] or b""
            if code != self._code and self._lines:
                raise ReplyError(f"reply changes its code from {self._code} to {code}: {_sample(match[0])}")
            del buffer[: end + 1]
            self._searched = 0
            self._lines.append(text.decode("utf-8", "surrogateescape"))
            if separator != b"-":
                reply = Reply(code, tuple(self._lines))
                self._lines.clear()
                self._held = 0
                return reply
            self._code = code
            self._held += end + 1
        if len(buffer) >= MAX_REPLY_LINE:
            # The LF is still to come, so the line is longer than what is here.
            raise ReplyError(_fault(bytes(buffer)))
        self._searched = len(buffer)
        return None


def _fault(line: bytes) -> str:
    """Why a line, with its line end if that has come, is not a reply line."""
    if len(line) > MAX_REPLY_LINE or not line.endswith(b"\n"):
        return f"reply line of more than {MAX_REPLY_LINE} octets: {_sample(line)}"
    if not line.endswith(b"\r\n"):
        return f"reply line ends in a bare LF, expected CRLF: {_sample(line)}"
    text = line[:-2]
    if b"\r" in text:
        return f"bare CR in a reply line: {_sample(line)}"
    if re.match(rb"[2-5][0-9]{2}", text) is None:
        return f"reply line without a code from 200 to 599: {_sample(line)}"
    if text[3:4] not in (b" ", b"-"):
        return f"reply code followed by neither space nor hyphen: {_sample(line)}"
    return f"control octet in a reply line: {_sample(line)}"


def _sample(data: bytes) -> str:
    """The start of the octets, escaped to printable ASCII."""
    return repr(data[:SAMPLE_OCTETS])
