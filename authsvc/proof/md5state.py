"""MD5 whose state can be stored and taken up again (RFC 1321), for `crammd5` alone.

Owns the compression function and the padding. hashlib does not let anyone load a state, and a state is what
Dovecot's {CRAM-MD5} hashes are. Not for any other use: MD5 is broken as a hash.
"""

from __future__ import annotations

import math
import struct
from typing import Final

BLOCK: Final = 64
DIGEST: Final = 16

State = tuple[int, int, int, int]

# RFC 1321 section 3.3.
INITIAL: Final[State] = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)

_MASK: Final = 0xFFFFFFFF
# RFC 1321 section 3.4: T[i], each round's rotations, and the order in which it reads the block's words.
_SINES: Final = tuple(int(abs(math.sin(i + 1)) * 2**32) for i in range(64))
_ROTATIONS: Final = tuple(
    s for row in ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)) for s in row * 4
)
_ORDER: Final = tuple(
    (factor * i + offset) % 16 for factor, offset in ((1, 0), (5, 1), (3, 5), (7, 0)) for i in range(16)
)


def compress(state: State, block: bytes) -> State:
    """The state after one more block of 64 octets."""
    words = struct.unpack("<16I", block)
    a, b, c, d = state
    for step in range(64):
        if step < 16:
            mixed = (b & c) | (~b & d)
        elif step < 32:
            mixed = (b & d) | (c & ~d)
        elif step < 48:
            mixed = b ^ c ^ d
        else:
            mixed = c ^ (b | (~d & _MASK))
        total = (a + mixed + _SINES[step] + words[_ORDER[step]]) & _MASK
        turn = _ROTATIONS[step]
        a, d, c = d, c, b
        b = (b + ((total << turn | total >> (32 - turn)) & _MASK)) & _MASK
    return (
        (state[0] + a) & _MASK,
        (state[1] + b) & _MASK,
        (state[2] + c) & _MASK,
        (state[3] + d) & _MASK,
    )


def finish(state: State, tail: bytes, *, before: int = 0) -> bytes:
    """The digest of a message whose first `before` octets led to `state` and whose rest is `tail`.

    `before` must be a multiple of BLOCK. `finish(INITIAL, data)` is plain MD5.
    """
    zeros = -(len(tail) + 9) % BLOCK
    length = (before + len(tail)) * 8 % 2**64
    padded = tail + b"\x80" + bytes(zeros) + struct.pack("<Q", length)
    for start in range(0, len(padded), BLOCK):
        state = compress(state, padded[start : start + BLOCK])
    return dump(state)


def dump(state: State) -> bytes:
    """A state as 16 octets, the form in which MD5 gives its digests."""
    return struct.pack("<4I", *state)


def load(octets: bytes) -> State:
    """The state that `dump` wrote. Raises struct.error if it is not 16 octets."""
    a, b, c, d = struct.unpack("<4I", octets)
    return a, b, c, d
