"""The text of a message, in whole chunks: where it ends, and whether it may be passed on.

What leaves a scanner has CR and LF only as CRLF, no NUL, and nothing behind its end, so that no reader
further on can see another end of data in it (reference/security.md section 0, SMTP smuggling). The end is
CRLF.CRLF and nothing else (RFC 5321 section 4.1.1.4); it is looked for even after a fault, because a message
that is refused early leaves its rest to be read as commands.

A bare CR or LF is a fault, or is mended where the listener says `bare_newline: normalize`: a bare LF becomes
CRLF, a bare CR a space, and dots are stuffed anew for the lines that result. The end is looked for in the octets
as they came: mending can neither make nor hide one.

No Python runs per line or per octet: a chunk costs one search for a dot at a line's start and one look at its
line ends, both at once where it is long (`lineends`). All answers depend on the octets alone, never on where they
were cut.

Refuses to know commands, replies and limits other than the message's size.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from typing import Final, NamedTuple

from smtpgate.smtp import lineends
from smtpgate.smtp.events import BodyFault

CRLF: Final = b"\r\n"
DOT_AT_LINE_START: Final = b"\r\n."
STUFFED_DOT: Final = b"\r\n.."
END_OF_DATA: Final = b"\r\n.\r\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Scanned(NamedTuple):
    """What became of one piece of DATA's text.

    text: what may be passed on, dots still stuffed. rest: the octets behind the end of data, which are
    commands; None while the end has not come.
    """

    text: bytes
    rest: bytes | None


class DataScanner:
    """One DATA text (RFC 5321 section 4.1.1.4). After the end it must not be fed again.

    max_size: octets of the largest message (RFC 1870), None for any. normalize: mend bare CR and LF instead of
    refusing them. size: octets so far as they are passed on, stuffed dots and the terminator not among them.
    fault: the first fault in the order of the octets. discarded: octets read, but not passed on because of it.
    """

    __slots__ = ("_guard", "_held", "_lead", "_normalize")

    def __init__(self, max_size: int | None, *, normalize: bool = False) -> None:
        self._guard = _Guard(max_size, mended=normalize)
        self._normalize = normalize
        # The start of the text counts as after a CRLF: the scan begins with one that is never handed out.
        self._held = CRLF
        self._lead = len(CRLF)

    @property
    def size(self) -> int:
        return self._guard.size

    @property
    def fault(self) -> BodyFault | None:
        return self._guard.fault

    @property
    def discarded(self) -> int:
        return self._guard.discarded

    def feed(self, data: bytes) -> Scanned:
        """Scan the next octets. At most the 4 last ones, which may begin the end of data, are held back."""
        if self._held:
            data = self._held + data
        found = lineends.look(data)
        # Where dots are stuffed anew they are first taken away, whatever the line ends are.
        if found is not None and found.crlf and not found.lone and not (self._normalize and found.dots):
            return Scanned(self._pass(data, found.dots), None)
        # Each of the two is told "no" by a search that is several times as fast as its own: for a lone octet (most of
        # base64 has no dot), and from behind (most of a text is not its end).
        dot = data.find(DOT_AT_LINE_START) if b"." in data else -1
        end = data.find(END_OF_DATA, dot) if dot >= 0 and data.rfind(END_OF_DATA, dot) >= 0 else -1
        if end >= 0:
            text, rest = data[: end + len(CRLF)], data[end + len(END_OF_DATA) :]
        else:
            cut = len(data) - (_held_back(data) or self._waits_for_a_dot(data))
            text, rest, self._held = data[:cut], None, data[cut:]
        if not text:
            return Scanned(b"", rest)
        lead, self._lead = self._lead, 0
        stuffed = dot >= 0
        if self._normalize:
            mended = _normalized(text, stuffed=stuffed)
            stuffed = stuffed or mended is not text
            text = mended
        dots = text.count(DOT_AT_LINE_START) if stuffed else 0
        return Scanned(self._guard.judge(text, lead=lead, dots=dots), rest)

    def _pass(self, data: bytes, dots: int) -> bytes:
        """Octets that have neither a bare CR or LF nor the end; `dots` CRLF among them are followed by a dot."""
        held = _held_back(data)
        text, self._held = (data[:-held], data[-held:]) if held else (data, b"")
        lead, self._lead = self._lead, 0
        stuffed = dots - (self._held[: len(DOT_AT_LINE_START)] == DOT_AT_LINE_START)
        return self._guard.judge(text, lead=lead, dots=stuffed, clean=True)

    def _waits_for_a_dot(self, data: bytes) -> bool:
        """A bare LF at the end of `data` begins a line: a dot that follows it must be stuffed."""
        return self._normalize and data.endswith(b"\n")


class ChunkScanner:
    """The chunks of one BDAT message (RFC 3030): the same promise, without terminator and dots.

    Call begin(), feed() and end() for each chunk. A CR at a chunk's end is held back until the next octet is
    known. Arguments and attributes as in DataScanner.
    """

    __slots__ = ("_guard", "_held", "_max_size", "_normalize")

    def __init__(self, max_size: int | None, *, normalize: bool = False) -> None:
        self._guard = _Guard(max_size, mended=normalize)  # begin() is first, but does not know what mending adds
        self._max_size = max_size
        self._normalize = normalize
        self._held = b""

    @property
    def size(self) -> int:
        return self._guard.size + len(self._held)

    @property
    def fault(self) -> BodyFault | None:
        return self._guard.fault

    @property
    def discarded(self) -> int:
        return self._guard.discarded

    def begin(self, size: int) -> None:
        """A chunk of `size` octets follows. One that makes the message too big is a fault before it is
        read."""
        if self.fault is None and self._max_size is not None and self.size + size > self._max_size:
            self._guard.fault = BodyFault.TOO_BIG

    def feed(self, data: bytes) -> bytes:
        """The octets that may be passed on."""
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        return self._pass(data[: len(data) - len(self._held)])

    def end(self, *, last: bool) -> bytes:
        """The chunk has been read. A CR that nothing follows any more is a bare one; what may be passed on of it."""
        if not last:
            return b""
        held, self._held = self._held, b""
        return self._pass(held)

    def _pass(self, text: bytes) -> bytes:
        return self._guard.judge(_normalized_lines(text) if self._normalize else text)


class DotStuffer:
    """Makes DATA's text of plain content (RFC 5321 section 4.5.2): a dot at a line's start is doubled."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = CRLF  # the last two octets; the start counts as after a CRLF

    def feed(self, data: bytes) -> bytes:
        """`data`, stuffed."""
        joined = self._tail + data
        stuffed = joined.replace(DOT_AT_LINE_START, STUFFED_DOT)[len(self._tail) :]
        self._tail = joined[-len(CRLF) :]
        return stuffed

    def end(self) -> bytes:
        """The terminator, with the CRLF that the text lacks."""
        return b".\r\n" if self._tail == CRLF else END_OF_DATA


class _Guard:
    """Counts a message's octets, and finds its first fault. mended: all that it gets has CR and LF only as CRLF."""

    __slots__ = ("_max_size", "_mended", "discarded", "fault", "size")

    def __init__(self, max_size: int | None, *, mended: bool) -> None:
        self._max_size = max_size
        self._mended = mended
        self.size = 0
        self.discarded = 0
        self.fault: BodyFault | None = None

    def judge(self, text: bytes, *, lead: int = 0, dots: int = 0, clean: bool = False) -> bytes:
        """`text` without its first `lead` octets, or nothing from the first fault on.

        dots: so many of its octets only mark transparency, and do not count. clean: it is known to have CR and LF
        only as CRLF. No CRLF is cut by `text`'s ends.
        """
        limit = None if self._max_size is None else self._max_size - self.size + lead
        self.size += len(text) - lead - dots
        if self.fault is None:
            self.fault = _first_fault(text, len(text) - dots, limit, clean=clean or self._mended)
        if self.fault is None:
            return text[lead:] if lead else text
        self.discarded += len(text) - lead
        return b""


def _first_fault(text: bytes, size: int, limit: int | None, *, clean: bool) -> BodyFault | None:
    """The fault at the lowest octet. `size` is the text's without stuffed dots, `limit` what it may be."""
    found: list[tuple[int, BodyFault]] = []
    if not clean and not _only_crlf(text):
        bare = _BARE.search(text)
        assert bare is not None
        found.append((bare.start(), BodyFault.BARE_NEWLINE))
    if b"\0" in text:
        found.append((text.index(b"\0"), BodyFault.NUL))
    if limit is not None and size > limit:
        # The octet that is one too many: dots count only where there are more octets than dots explain.
        dotted = size < len(text)
        end = bisect_right(
            range(len(text) + 1),
            limit,
            key=lambda end: end - (text.count(DOT_AT_LINE_START, 0, end) if dotted else 0),
        )
        found.append((end - 1, BodyFault.TOO_BIG))
    return min(found, key=lambda fault: fault[0])[1] if found else None


def _normalized(text: bytes, *, stuffed: bool) -> bytes:
    """A piece of DATA's text, mended. stuffed: it has a dot after a CRLF, which marks transparency.

    Such a dot goes before the line ends change: ".LF" after a CRLF, as it stands, would become the end of data. Then
    the dots of all lines that result are stuffed, so that what leaves does not depend on where the text was cut.
    """
    plain = text.replace(DOT_AT_LINE_START, CRLF) if stuffed else text
    lines = _normalized_lines(plain)
    return text if lines is text else lines.replace(DOT_AT_LINE_START, STUFFED_DOT)


def _normalized_lines(text: bytes) -> bytes:
    """CRLF for each bare LF, a space for each bare CR; `text` itself where there are none.

    Each step is one pass in C over the whole piece. Behind the first only a bare CR is left as CR.
    """
    if _only_crlf(text):
        return text
    return text.replace(CRLF, b"\n").replace(b"\r", b" ").replace(b"\n", CRLF)


def _only_crlf(text: bytes) -> bool:
    """Whether CR and LF occur only as CRLF.

    The standard library's newline decoder notes in one pass, in C, which line ends it saw: measured, a
    quarter of the time that counting CR, LF and CRLF takes. Latin-1 gives one character an octet.
    """
    found = lineends.look(text)
    if found is not None:
        return found.crlf and not text.endswith(b"\r")
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(text.decode("latin-1"), final=True)
    return decoder.newlines in (None, "\r\n")


def _held_back(data: bytes) -> int:
    """How many octets at the end of `data` may begin the end of data."""
    for length in range(len(END_OF_DATA) - 1, 0, -1):
        if data.endswith(END_OF_DATA[:length]):
            return length
    return 0
