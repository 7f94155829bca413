"""The line ends and dots of a long piece of text, many octets at a time.

A loop in C that looks at one octet after the other takes a third of all that a message of 10 MB costs. numpy compares
64 at once: the same answers in a third of that time, from some thousands of octets on. Where there is no numpy, or
not for this processor, nothing changes but the time.

Owns the scratch memory for that. Refuses to know what is done about what it finds, and where a message ends: it says
only that a piece has no place where it could.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

try:
    import numpy

    AVAILABLE = True
except (ImportError, RuntimeError):  # RuntimeError: it is there, and built for a newer processor
    AVAILABLE = False

LONG: Final = 16 * 1024
"""Octets from which on it pays. Measured: at 4 KiB numpy's own way to the loop costs what it saves."""

BLOCK: Final = 128 * 1024 + 64
"""Octets that are compared at once: they and what is found stay in a processor's second cache. A read, with what was
held back of the one before, is one block, or two."""

LF: Final = 0x0A


class Found(NamedTuple):
    """crlf: CR and LF occur only as CRLF, but that a CR may be the last octet; where it is False no more is told.
    dots: how many CRLF a dot follows. lone: one of these dots may be alone on its line.
    """

    crlf: bool
    dots: int = 0
    lone: bool = False


BARE: Final = Found(crlf=False)


class Looker:
    """Looks at pieces of any length, `block` octets at a time. No greenlet switches while it does: one for all."""

    def __init__(self, block: int = BLOCK) -> None:
        self._block = block
        self._CR, self._LF, self._DOT = (numpy.uint8(octet) for octet in b"\r\n.")
        # Of each octet of a block: whether it is CR, and whether LF follows it. In a text they are the same, up to
        # the last octet; so they are compared as a whole, and what an earlier block left behind the end of a shorter
        # one is the same in both.
        self._crs, self._lfs = bytearray(block), bytearray(block)
        self._cr, self._lf = _booleans(self._crs), _booleans(self._lfs)
        self._dot = _booleans(bytearray(block))

    def look(self, data: bytes) -> Found:
        """What there is in `data`."""
        if not data or data[0] == LF:
            return Found(not data)
        octets = numpy.frombuffer(data, numpy.uint8)
        dotted = b"." in data
        dots, lone = 0, False
        for start in range(0, len(data) - 1, self._block):
            length = min(self._block, len(data) - 1 - start)
            cr, lf = self._cr[:length], self._lf[:length]
            numpy.equal(octets[start : start + length], self._CR, out=cr)
            numpy.equal(octets[start + 1 : start + 1 + length], self._LF, out=lf)
            if self._crs != self._lfs:
                cr[:] = lf
                return BARE
            if dotted:
                found = self._dots(octets[start + 2 : start + 2 + length])
                dots += found
                lone = lone or (found > 0 and self._is_lone(data, start, length))
        return Found(True, dots, lone)

    def _dots(self, behind: Any) -> int:
        """How many LF of the block a dot follows. behind: the octets from the one after its first LF could be on."""
        dot = self._dot[: len(behind)]
        numpy.equal(behind, self._DOT, out=dot)
        numpy.logical_and(dot, self._lf[: len(behind)], out=dot)
        return int(numpy.count_nonzero(dot))

    def _is_lone(self, data: bytes, start: int, length: int) -> bool:
        """Whether a CR follows one of these dots."""
        if data.find(b"\n.\r", max(0, start + length - 2), start + length + 3) >= 0:
            return True  # over the block's end
        dot = self._dot[: max(0, length - 3)]
        numpy.logical_and(dot, self._cr[3:length], out=dot)
        return bool(dot.any())


def _booleans(memory: bytearray) -> Any:
    return numpy.frombuffer(memory, numpy.bool_)


_LOOKER: Final = Looker() if AVAILABLE else None


def look(data: bytes) -> Found | None:
    """What there is in `data`; None where another way is better: it is short, or there is no numpy."""
    if _LOOKER is None or len(data) < LONG:
        return None
    return _LOOKER.look(data)
