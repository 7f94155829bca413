from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textoracle import first_fault, mended, normalize_oracle, oracle

from smtpgate.smtp.datascan import ChunkScanner, DataScanner, DotStuffer
from smtpgate.smtp.events import BodyFault

BARE, NUL, BIG = BodyFault.BARE_NEWLINE, BodyFault.NUL, BodyFault.TOO_BIG


def splits(octets: bytes) -> Iterator[list[bytes]]:
    yield [octets]
    yield [octets[i : i + 1] for i in range(len(octets))]
    for at in range(1, len(octets)):
        yield [octets[:at], octets[at:]]


def scan(
    pieces: Sequence[bytes], max_size: int | None = None, *, normalize: bool = False
) -> tuple[bytes, bytes | None, DataScanner]:
    """The text handed out, what is behind the end, and the scanner."""
    scanner = DataScanner(max_size, normalize=normalize)
    text = b""
    for number, piece in enumerate(pieces):
        scanned = scanner.feed(piece)
        assert not (scanned.text and scanner.fault), "text was handed out with a fault"
        text += scanned.text
        if scanned.rest is not None:
            return text, scanned.rest + b"".join(pieces[number + 1 :]), scanner
    return text, None, scanner


@pytest.mark.parametrize(
    ("wire", "text", "rest", "size"),
    [
        (b".\r\n", b"", b"", 0),
        (b".\r\nQUIT\r\n", b"", b"QUIT\r\n", 0),
        (b"a\r\n.\r\n", b"a\r\n", b"", 3),
        (b"\r\n.\r\n", b"\r\n", b"", 2),
        (b"a\r\n.\r\n.\r\n", b"a\r\n", b".\r\n", 3),
        (b"..\r\n.\r\n", b"..\r\n", b"", 3),
        (b"..a\r\n..\r\n...\r\n.\r\n", b"..a\r\n..\r\n...\r\n", b"", 11),
        (b"a\r\n.b\r\n.\r\n", b"a\r\n.b\r\n", b"", 6),
        (b"a..b\r\n.\r\n", b"a..b\r\n", b"", 6),
        (b"a\r\n. \r\n.\r\n", b"a\r\n. \r\n", b"", 6),
        (b"a\x85.\x85\r\n.\r\n", b"a\x85.\x85\r\n", b"", 6),
        (b"a\x0b\x0c\x1c\x1d\x1e.\r\n.\r\n", b"a\x0b\x0c\x1c\x1d\x1e.\r\n", b"", 9),
    ],
)
def test_the_end_and_the_size_at_every_split(wire: bytes, text: bytes, rest: bytes, size: int) -> None:
    for pieces in splits(wire):
        got, behind, scanner = scan(pieces)
        assert (got, behind, scanner.size, scanner.fault) == (text, rest, size, None), pieces


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (b"\n.\r\n\r\n.\r\n", BARE),
        (b".\n\r\n.\r\n", BARE),
        (b".\rX\r\n.\r\n", BARE),
        (b"a\n.\r\nMAIL FROM:<s@s>\r\n.\r\n", BARE),
        (b"a\r.\r\nb\r\n.\r\n", BARE),
        (b"a\r\r\n.\r\n", BARE),
        (b"a\r\n\r.\r\n.\r\n", BARE),
        (b"a\rb\nc\r\n.\r\n", BARE),
        (b"a\n\rb\r\n.\r\n", BARE),
        (b"a\r\0\n.\r\n\r\n.\r\n", BARE),
        (b"a\0\r\n.\r\n", NUL),
        (b"\0\n\r\n.\r\n", NUL),
        (b"\n\0\r\n.\r\n", BARE),
    ],
)
def test_a_fault_is_the_same_at_every_split_and_told_with_the_end(wire: bytes, fault: BodyFault) -> None:
    for pieces in splits(wire):
        got, behind, scanner = scan(pieces)
        assert (behind, scanner.fault) == (b"", fault), pieces
        assert b"\0" not in got
        assert got.replace(b"\r\n", b"").count(b"\r") == got.replace(b"\r\n", b"").count(b"\n") == 0


@pytest.mark.parametrize(
    ("wire", "max_size", "fault"),
    [
        (b"12345678\r\n.\r\n", 10, None),
        (b"123456789\r\n.\r\n", 10, BIG),
        (b"..3456789\r\n.\r\n", 10, None),
        (b"..34\r\n..78\r\n.\r\n", 10, None),
        (b"..34\r\n..789\r\n.\r\n", 10, BIG),
        (b"1234567890\n\r\n.\r\n", 10, BARE),  # the octet that is one too many is itself a fault
        (b"12345678901\n\r\n.\r\n", 10, BIG),
        (b"123456789\n12\r\n.\r\n", 10, BARE),
        (b"1234567890\0\n\r\n.\r\n", 11, NUL),
        (b"1234567890\r\n\n.\r\n\r\n.\r\n", 11, BIG),
        (b"..3456789\r\n\n\r\n.\r\n", 10, BARE),
    ],
)
def test_the_first_fault_in_the_order_of_octets_wins(wire: bytes, max_size: int, fault: BodyFault | None) -> None:
    for pieces in splits(wire):
        _, behind, scanner = scan(pieces, max_size)
        assert (behind, scanner.fault) == (b"", fault), pieces


def test_at_most_four_octets_are_held_back() -> None:
    scanner = DataScanner(None)
    held = []
    handed = 0
    for fed, octet in enumerate(b"y\r\n.y\r\n\r\n.\r", 1):
        handed += len(scanner.feed(bytes([octet])).text)
        held.append(fed - handed)
    assert held == [0, 1, 2, 3, 0, 1, 2, 1, 2, 3, 4]


def test_what_is_discarded_is_counted() -> None:
    _, behind, scanner = scan([b"ab\r\n", b"c\nd\r\n", b"ef\r\n.\r\n"])
    assert behind == b""
    assert scanner.discarded == len(b"\r\nc\nd\r\nef\r\n")  # the CRLF before was held back
    assert scanner.size == len(b"ab\r\nc\nd\r\nef\r\n")


# --- against a byte-at-a-time oracle -------------------------------------------------------------------------


PARTS = [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r\n..", b"a", b"bcd", b"\0", b"\x85", b"MAIL\r\n"]
WIRES = st.lists(st.sampled_from(PARTS), max_size=30).map(b"".join)


def cut(wire: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Pieces of these lengths, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(wire):
        length = lengths[turn % len(lengths)]
        pieces.append(wire[at : at + length])
        at, turn = at + length, turn + 1
    return pieces


@settings(max_examples=400)
@given(WIRES, st.lists(st.integers(1, 9), min_size=1, max_size=12), st.sampled_from([None, 5, 12]))
def test_any_chunking_gives_what_the_oracle_says(wire: bytes, lengths: list[int], max_size: int | None) -> None:
    wire += b"\r\n.\r\nQUIT\r\n"
    text, rest, size, fault = oracle(wire, max_size)
    got, behind, scanner = scan(cut(wire, lengths), max_size)
    assert (behind, scanner.size, scanner.fault) == (rest, size, fault)
    if text is not None:
        assert got == text


# --- normalize -----------------------------------------------------------------------------------------------


@settings(max_examples=600)
@given(WIRES, st.lists(st.integers(1, 9), min_size=1, max_size=12), st.sampled_from([None, 5, 12]))
def test_normalized_any_chunking_gives_what_the_oracle_says(
    wire: bytes, lengths: list[int], max_size: int | None
) -> None:
    wire += b"\r\n.\r\nQUIT\r\n"
    text, rest, size, fault = normalize_oracle(wire, max_size)
    got, behind, scanner = scan(cut(wire, lengths), max_size, normalize=True)
    assert (behind, scanner.size, scanner.fault) == (rest, size, fault)
    if text is not None:
        assert got == text


@pytest.mark.parametrize(
    ("wire", "text", "size"),
    [
        (b"a\nb\r\n.\r\n", b"a\r\nb\r\n", 6),
        (b"a\rb\r\n.\r\n", b"a b\r\n", 5),
        (b"a\r\r\n.\r\n", b"a \r\n", 4),
        (b"a\n\r\n.\r\n", b"a\r\n\r\n", 5),
        (b"a\n\rb\r\n.\r\n", b"a\r\n b\r\n", 7),
        # No end, and none after mending.
        (b"a\n.\nMAIL\r\n.\r\n", b"a\r\n..\r\nMAIL\r\n", 12),
        (b"a\n.\r\nMAIL\r\n.\r\n", b"a\r\n..\r\nMAIL\r\n", 12),
        (b"a\n..\n\r\n.\r\n", b"a\r\n...\r\n\r\n", 9),
        (b"a\r.\rb\r\n.\r\n", b"a . b\r\n", 7),
        (b"a\r\n.\rb\r\n.\r\n", b"a\r\n b\r\n", 7),
        # The dot after a CRLF marks transparency; left before a mended LF it would be the end.
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n", 8),
        (b"a\r\n..\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n", 9),
        (b".\nb\r\n.\r\n", b"\r\nb\r\n", 5),
        (b"\n.\r\n\r\n.\r\n", b"\r\n..\r\n\r\n", 7),
        (b"\n.\r\n.\r\n", b"\r\n..\r\n", 5),
    ],
)
def test_bare_newlines_are_mended_at_every_split(wire: bytes, text: bytes, size: int) -> None:
    for pieces in splits(wire):
        got, behind, scanner = scan(pieces, normalize=True)
        assert (got, behind, scanner.size, scanner.fault) == (text, b"", size, None), pieces


@pytest.mark.parametrize(
    ("wire", "max_size", "fault"),
    [
        (b"a\r\0\n.\r\n\r\n.\r\n", None, NUL),
        (b"a\n\0\r\n.\r\n", None, NUL),
        (b"1\n2\n3\r\n.\r\n", 9, None),  # as it leaves
        (b"1\n2\n3\r\n.\r\n", 8, BIG),
        (b"1\n.\n3\r\n.\r\n", 9, None),
        (b"1\n2\n3\0\r\n.\r\n", 7, NUL),
        (b"1\n2\n3\0\r\n.\r\n", 6, BIG),
    ],
)
def test_normalized_the_first_fault_in_the_order_of_octets_wins(
    wire: bytes, max_size: int | None, fault: BodyFault | None
) -> None:
    for pieces in splits(wire):
        _, behind, scanner = scan(pieces, max_size, normalize=True)
        assert (behind, scanner.fault) == (b"", fault), pieces


def test_a_bare_lf_is_held_back_until_its_line_begins() -> None:
    scanner = DataScanner(None, normalize=True)
    assert [scanner.feed(piece).text for piece in (b"a\n", b".", b"b")] == [b"a", b"\r\n..", b"b"]


# --- BDAT ----------------------------------------------------------------------------------------------------


def chunks(
    parts: Sequence[bytes], max_size: int | None = None, piece: int = 100, *, normalize: bool = False
) -> tuple[bytes, ChunkScanner]:
    scanner = ChunkScanner(max_size, normalize=normalize)
    text = b""
    for number, part in enumerate(parts, 1):
        scanner.begin(len(part))
        for at in range(0, len(part), piece):
            text += scanner.feed(part[at : at + piece])
        text += scanner.end(last=number == len(parts))
    return text, scanner


@pytest.mark.parametrize("piece", [1, 2, 100])
@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([b""], None),
        ([b"a\r\n.\r\nMAIL FROM:<s@s>\r\n"], None),
        ([b"a\r", b"\nb"], None),
        ([b"a\r", b"", b"\nb\r\n"], None),
        ([b"a\r", b"b"], BARE),
        ([b"a\r"], BARE),
        ([b"a\r", b""], BARE),
        ([b"a", b"\nb"], BARE),
        ([b"a\0"], NUL),
        ([b"\0\n"], NUL),
    ],
)
def test_chunks_are_guarded_across_their_borders(parts: list[bytes], fault: BodyFault | None, piece: int) -> None:
    text, scanner = chunks(parts, piece=piece)
    assert scanner.fault is fault
    assert scanner.size == len(b"".join(parts))
    if fault is None:
        assert text == b"".join(parts)


def test_a_cr_at_a_chunks_end_is_held_and_counted() -> None:
    scanner = ChunkScanner(None)
    scanner.begin(2)
    assert scanner.feed(b"a\r") == b"a"
    scanner.end(last=False)
    assert (scanner.size, scanner.fault) == (2, None)


def test_a_chunk_that_makes_the_message_too_big_is_a_fault_before_it_is_read() -> None:
    scanner = ChunkScanner(10)
    scanner.begin(4)
    assert scanner.feed(b"123\r") == b"123"
    scanner.end(last=False)
    scanner.begin(6)
    assert scanner.fault is None
    assert scanner.feed(b"\n67890") == b"\r\n67890"
    scanner.end(last=False)
    scanner.begin(1)
    assert scanner.fault is BIG
    assert scanner.feed(b"x") == b""
    assert scanner.discarded == 1


@settings(max_examples=300)
@given(st.lists(WIRES, max_size=4), st.integers(1, 7))
def test_chunks_are_normalized_as_the_oracle_says(parts: list[bytes], piece: int) -> None:
    text, scanner = chunks(parts, piece=piece, normalize=True)
    whole = mended(b"".join(parts))
    assert scanner.fault is first_fault(whole, None)
    assert scanner.size == len(whole)
    if scanner.fault is None:
        assert text == whole


@pytest.mark.parametrize(
    ("parts", "max_size", "fault"),
    [
        ([b"1\n3\n"], 6, None),
        ([b"1\n3\n"], 5, BIG),  # the chunk itself would fit
        ([b"12\r", b"\n"], 4, None),
        ([b"12\n", b"4"], 4, BIG),
        ([b"12\r"], 3, None),
    ],
)
def test_what_normalizing_adds_to_a_chunk_counts(parts: list[bytes], max_size: int, fault: BodyFault | None) -> None:
    assert chunks(parts, max_size, normalize=True)[1].fault is fault


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\n.b\r\n..c", b"a\r\n..\r\n..b\r\n...c\r\n.\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n.\r\n"),
    ],
)
def test_stuffed_content_reads_back_as_it_was(content: bytes, wire: bytes) -> None:
    for pieces in splits(content):
        stuffer = DotStuffer()
        made = b"".join([stuffer.feed(piece) for piece in pieces]) + stuffer.end()
        assert made == wire, pieces
        _, rest, scanner = scan([made])
        assert (rest, scanner.fault) == (b"", None)
        assert scanner.size == len(content if content.endswith(b"\r\n") or not content else content + b"\r\n")
