"""Circles of references, which nothing but the garbage collector frees.

A worker's collector hardly ever passes (smtpgate/drivers/garbage.py). What stands in a circle stays, and what it
holds stays with it: an exception that was kept in a variable holds the session that has seen it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

OURS: Final = str(Path(__file__).resolve().parents[2] / "smtpgate")


@contextmanager
def nothing_left_to_the_collector() -> Iterator[None]:
    """Fails where an object or a frame of smtpgate could not be freed with its last reference."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        found = [words for one in gc.garbage if (words := _ours(one))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert found == [], found


def _ours(one: object) -> str:
    if isinstance(one, FrameType):
        code = one.f_code
        return f"{code.co_qualname}:{one.f_lineno}" if code.co_filename.startswith(OURS) else ""
    kind = type(one)
    return kind.__qualname__ if str(kind.__module__).startswith("smtpgate.") else ""
