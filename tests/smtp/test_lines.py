from __future__ import annotations

import pytest

from smtpgate.smtp.lines import LineBuffer, LineFault


def filled(octets: bytes) -> LineBuffer:
    buffer = LineBuffer()
    buffer.append(octets)
    return buffer


def test_lines_come_one_at_a_time_without_their_crlf() -> None:
    buffer = filled(b"EHLO a\r\n\r\nNOOP\r\nQU")
    assert [buffer.take_line(100) for _ in range(4)] == [b"EHLO a", b"", b"NOOP", None]
    assert len(buffer) == 2
    buffer.append(b"IT\r\n")
    assert buffer.take_line(100) == b"QUIT"
    assert len(buffer) == 0


def test_a_line_arriving_octet_by_octet() -> None:
    buffer = LineBuffer()
    taken = []
    for octet in b"a\rb\r\r\n":
        buffer.append(bytes([octet]))
        taken.append(buffer.take_line(100))
    assert taken == [None, None, None, None, None, b"a\rb\r"]


@pytest.mark.parametrize("octets", [b"\n", b"NOOP\n", b"NOOP\nQUIT\r\n", b"\rNOOP\n"])
def test_a_bare_lf_is_a_fault_at_every_cut(octets: bytes) -> None:
    end = octets.index(b"\n") + 1
    for cut in range(len(octets) + 1):
        buffer = filled(octets[:cut])
        early = buffer.take_line(100)
        assert early is (LineFault.BARE_LF if cut >= end else None)
        buffer.append(octets[cut:])
        assert buffer.take_line(100) is LineFault.BARE_LF


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"123456\r\n", b"123456"),
        (b"1234567\r\n", LineFault.TOO_LONG),
        (b"12345678", LineFault.TOO_LONG),
        (b"1234567\r", LineFault.TOO_LONG),
        (b"1234567", None),
        (b"1234567\n", LineFault.BARE_LF),
        (b"12345678\n", LineFault.TOO_LONG),
    ],
)
def test_the_limit_counts_the_crlf(octets: bytes, expected: bytes | LineFault | None) -> None:
    """nginx's smtp_client_buffer: with 128, a line of 128 octets passes and one of 129 does not."""
    assert filled(octets).take_line(8) == expected
    grown = LineBuffer()
    found: bytes | LineFault | None = None
    for octet in octets:
        grown.append(bytes([octet]))
        found = grown.take_line(8)
        if found is not None:
            break
    assert found == expected


@pytest.mark.parametrize(
    ("octets", "lines"),
    [
        (b"NOOP\nQUIT\r\n", [b"NOOP", b"QUIT", None]),
        (b"\n\r\n\n", [b"", b"", b"", None]),
        (b"a\r\r\nb\rc\n", [b"a\r", b"b\rc", None]),
        (b"1234567\n", [b"1234567", None]),
        (b"12345678\n", [LineFault.TOO_LONG]),
        (b"12345678\r\n", [LineFault.TOO_LONG]),
    ],
)
def test_a_bare_lf_ends_a_line_where_the_caller_takes_it(
    octets: bytes, lines: list[bytes | LineFault | None]
) -> None:
    for cut in range(len(octets) + 1):
        buffer, taken = filled(octets[:cut]), list[bytes | LineFault | None]()
        while isinstance(line := buffer.take_line(8, bare_lf=True), bytes):
            taken.append(line)
        buffer.append(octets[cut:])
        while isinstance(line := buffer.take_line(8, bare_lf=True), bytes):
            taken.append(line)
        assert [*taken, line] == lines, cut


def test_a_higher_limit_finds_what_a_lower_one_did_not() -> None:
    buffer = filled(b"AUTH PLAIN AAAA\r\n")
    assert buffer.take_line(8) is LineFault.TOO_LONG
    assert buffer.take_line(100) == b"AUTH PLAIN AAAA"


def test_starts_with_compares_ascii_letters_only() -> None:
    assert filled(b"auth plain").starts_with(b"AUTH ")
    assert not filled(b"aut").starts_with(b"AUTH ")
    assert not filled(b"auth").starts_with(b"AUTH ")
    assert not filled("aut\u0127 ".encode()).starts_with(b"AUTH ")


def test_octets_are_taken_by_count() -> None:
    buffer = filled(b"BDAT 3\r\nabcQUIT\r\n")
    assert buffer.take_line(100) == b"BDAT 3"
    assert buffer.take(3) == b"abc"
    assert buffer.take(0) == b""
    assert buffer.take_line(100) == b"QUIT"
    buffer.append(b"xy")
    assert buffer.take(9) == b"xy"
    assert buffer.take_all() == b""


def test_clear_forgets_everything() -> None:
    buffer = filled(b"half a line")
    assert buffer.take_line(100) is None
    buffer.clear()
    buffer.append(b"NOOP\r\n")
    assert buffer.take_line(100) == b"NOOP"
