"""lineends: what numpy finds in a piece is what a loop over its octets finds, wherever its blocks are cut."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpgate.smtp.datascan import DataScanner
from smtpgate.smtp.lineends import BARE, BLOCK, LONG, Found, Looker, look

LINE = b"x" * 62 + b"\r\n"
FILLER = LINE * (LONG // len(LINE))
texts = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"\0"])).map(b"".join)


def oracle(data: bytes) -> Found:
    """Octet by octet, with nothing but regular expressions."""
    if re.search(rb"(?<!\r)\n|\r(?!\n|\Z)", data):
        return BARE
    return Found(True, len(re.findall(rb"\r\n(?=\.)", data)), b"\r\n.\r" in data)


@given(texts, st.integers(1, 9))
@example(b"\r\n\r", 1)
@example(b"\r\n.\r\n", 2)
@example(b"\r", 1)
@example(b"\n", 3)
def test_blocks_of_any_length_find_what_a_look_at_each_octet_finds(data: bytes, block: int) -> None:
    looker = Looker(block)
    assert looker.look(data) == oracle(data)
    # What one piece left in the scratch memory is nothing to the next.
    assert looker.look(data) == oracle(data)
    assert looker.look(b"a\r\n.b\r\n" * 3) == Found(True, 3)


@pytest.mark.parametrize("mark", [b"\r", b"\n", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r\n..\r\n"])
@pytest.mark.parametrize("offset", range(-6, 4))
def test_marks_at_a_blocks_end(mark: bytes, offset: int) -> None:
    data = b"a" * (BLOCK + offset) + mark + b"a" * 3
    assert look(data) == oracle(data)
    assert look(data[:-3]) == oracle(data[:-3])


def test_short_pieces_are_left_to_others() -> None:
    assert look(b"a" * (LONG - 1)) is None
    assert look(b"a" * LONG) == Found(True)


def test_no_thread_comes_with_it() -> None:
    # Workers are forked from the process that loads it.
    program = (
        "import os; from smtpgate.smtp.lineends import AVAILABLE; print(AVAILABLE, *os.listdir('/proc/self/task'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    available, *threads = done.stdout.split()
    assert available == "True"
    assert len(threads) == 1


@given(texts, texts, st.booleans(), st.sampled_from([None, LONG, LONG + 70, 2 * LONG]))
@example(b"\r\n.\r\n", b"", False, None)
@example(b"\r\n.", b"\r\n", True, None)
@example(b"\r\n.x", b"\r\n.", False, LONG + 70)
def test_a_scanner_says_the_same_of_long_pieces_and_of_short_ones(
    first: bytes, second: bytes, normalize: bool, max_size: int | None
) -> None:
    wire = first + FILLER + second
    long, short = (DataScanner(max_size, normalize=normalize) for _ in range(2))
    scanned = long.feed(wire)
    text, rest = b"", None
    for at in range(0, len(wire), 1000):
        piece = short.feed(wire[at : at + 1000])
        text += piece.text
        if piece.rest is not None:
            rest = piece.rest + wire[at + 1000 :]
            break
    assert (long.fault, long.size) == (short.fault, short.size)
    assert scanned.rest == rest
    if long.fault is None:
        assert scanned.text == text
