from __future__ import annotations

import pytest

from smtpgate.smtp import content
from smtpgate.smtp.content import ChunkReader, SkipReader, TextReader
from smtpgate.smtp.events import Bdat, Body, BodyEnd, BodyFault, BodyFaulted
from smtpgate.smtp.lines import LineBuffer


def filled(octets: bytes) -> LineBuffer:
    buffer = LineBuffer()
    buffer.append(octets)
    return buffer


def test_text_to_its_end_and_no_further() -> None:
    reader, buffer = TextReader(None), filled(b"a\r\n.\r\nQUIT\r\n")
    assert reader.read(buffer) == [Body(b"a\r\n"), BodyEnd(3, last=True, fault=None)]
    assert buffer.take_line(100) == b"QUIT"


def test_text_with_a_fault_is_told_once_and_read_on() -> None:
    reader, buffer = TextReader(5), LineBuffer()
    seen = []
    for piece in (b"abc", b"", b"defg", b"more\nmore", b"\r\n.\r\n"):
        buffer.append(piece)
        seen.append(reader.read(buffer))
    fault = BodyFault.TOO_BIG
    assert seen == [[Body(b"abc")], [], [BodyFaulted(fault)], [], [BodyEnd(18, last=True, fault=fault)]]
    assert reader.excess is None


def test_a_refused_text_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_DISCARDED", 10)
    reader = TextReader(5)
    assert reader.read(filled(b"x" * 10)) == [BodyFaulted(BodyFault.TOO_BIG)]
    assert reader.excess is None
    assert reader.read(filled(b"x")) == []
    assert reader.excess is BodyFault.TOO_BIG


def test_chunks_to_their_size_and_no_further() -> None:
    reader, buffer = ChunkReader(None), filled(b"a\r")
    reader.begin(Bdat(2, last=False))
    assert reader.read(buffer) == [Body(b"a"), BodyEnd(2, last=False, fault=None)]
    reader.begin(Bdat(3, last=True))
    assert reader.read(buffer) == []
    buffer.append(b"\nbcQUIT\r\n")
    assert reader.read(buffer) == [Body(b"\r\nbc"), BodyEnd(5, last=True, fault=None)]
    assert buffer.take_line(100) == b"QUIT"


def test_an_empty_last_chunk_ends_the_message() -> None:
    reader = ChunkReader(None)
    reader.begin(Bdat(0, last=True))
    assert reader.read(LineBuffer()) == [BodyEnd(0, last=True, fault=None)]


def test_a_chunk_that_is_too_big_is_swallowed() -> None:
    reader, buffer = ChunkReader(3), filled(b"abcdNOOP\r\n")
    fault, chunk = BodyFault.TOO_BIG, Bdat(4, last=True)
    # The news comes before the chunk: no backend need be asked for a text that it will not get.
    assert reader.begin(chunk) == [BodyFaulted(fault), chunk]
    assert reader.read(buffer) == [BodyEnd(4, last=True, fault=fault)]
    assert buffer.take_line(100) == b"NOOP"


def test_a_refused_chunk_is_not_read_for_ever() -> None:
    reader = ChunkReader(None)
    reader.begin(Bdat(content.MAX_DISCARDED + 2, last=True))
    assert reader.excess is None
    assert reader.read(filled(b"\0")) == [BodyFaulted(BodyFault.NUL)]
    assert reader.excess is BodyFault.NUL


def test_a_skipped_chunk() -> None:
    reader, buffer = SkipReader(4), filled(b"ab")
    reader.read(buffer)
    assert not reader.done
    buffer.append(b"cdNOOP\r\n")
    reader.read(buffer)
    assert reader.done
    assert buffer.take_line(100) == b"NOOP"


def test_normalized_text_and_chunks() -> None:
    text, buffer = TextReader(None, normalize=True), filled(b"a\n.\rb\r\n.\r\nQUIT\r\n")
    assert text.read(buffer) == [Body(b"a\r\n.. b\r\n"), BodyEnd(8, last=True, fault=None)]
    assert buffer.take_line(100) == b"QUIT"
    reader, buffer = ChunkReader(None, normalize=True), filled(b"a\nb\rQUIT\r\n")
    reader.begin(Bdat(4, last=True))
    # The CR is known for a bare one when nothing follows it any more.
    assert reader.read(buffer) == [Body(b"a\r\nb "), BodyEnd(5, last=True, fault=None)]
    assert buffer.take_line(100) == b"QUIT"
