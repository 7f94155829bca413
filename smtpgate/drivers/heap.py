"""The C library's heap, in a process that reads long texts.

glibc asks the kernel for each piece of memory above 128 KiB and gives it back with the piece; a text that is read by
the quarter of a megabyte has every page of it made anew, zeroed and unmade, three times over: half of its CPU. It
learns: after one piece of a size has been freed, pieces up to that size are kept and used again, and up to twice that
much stays when all are free (mallopt(3), "dynamic mmap threshold"). So it is shown one, once.

What MALLOC_MMAP_THRESHOLD_ and its like prescribe stays as it is, and another C library's malloc takes no notice.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 4 << 20
"""Octets of the piece: sixteen texts' worth of reads, and twice that may stay resident with nothing to do."""


def keep_pieces() -> None:
    """Once a process. None of the octets is touched, so it costs no memory."""
    bytes(KEPT)
