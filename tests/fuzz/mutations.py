"""Octets like those of a corpus: what hypothesis mutates, and shrinks where an invariant breaks."""

from __future__ import annotations

from functools import reduce
from itertools import chain
from typing import Final

from fuzz.targets import seeds
from hypothesis import strategies as st

# What parsers stumble over: line ends of all kinds, NULs, look-alikes, numbers that int() takes.
SPLINTERS: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b".", b"\r\n.", b"\r\n.\r\n", b"\n.\n", b"\r\r\n", b" ", b"\t", b"<", b">", b'"',
    b"\\", b"=", b"+", b"@", b":", b"%", b"-", b"0", b"+5", b"1_0", b"\xd9\xa3", b"99999999999999999999", b"\x85",
    b"\xe2\x80\xa8", b"\xc4\xb1", b"\xff", b"{", b"}", b"[", b"&", b"*", b"LAST", b"BDAT ", b"DATA\r\n", b"250-",
)  # fmt: skip

Edit = tuple[int, int, bytes]


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """A seed of the target, with some of its octets replaced by splinters, or by pieces of other seeds."""
    kept = seeds(name)
    pieces = sorted({line for seed in kept for line in chain([seed[:40]], seed.splitlines(keepends=True))})
    splinter = st.sampled_from(SPLINTERS) | st.sampled_from(pieces) | st.binary(max_size=3)
    edit = st.tuples(st.integers(0, 400), st.integers(0, 6), splinter)
    return st.builds(
        lambda seed, edits: reduce(_edited, edits, seed), st.sampled_from(kept), st.lists(edit, max_size=6)
    )


def _edited(data: bytes, edit: Edit) -> bytes:
    at, length, splinter = edit
    at = min(at, len(data))
    return data[:at] + splinter + data[at + length :]
