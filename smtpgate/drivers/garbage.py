"""When Python's garbage collector looks for circles, and among what.

While it looks the process stands still, and it looks at all that is alive and not out of its sight: behind some
thousand silent connections the others waited for up to 80 ms now and then. Nothing of a session needs it: sessions,
streams and greenlets are freed with the last reference to them. So whatever is there after some more sessions have
begun is put out of its sight. gc.freeze() joins two lists for that, 0.1 us however long they are, and what is freed
later leaves its list as ever.

Circles that were out of sight when they became garbage are found by a whole pass, which is made where sessions do not
explain the memory that is in use. It takes as long as ever, and nothing is known that needs it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Objects made, and not yet freed, until the collector looks for circles among the youngest. CPython's 700 is a dozen
# sessions; this is a hundred, whose circles take it 2 ms.
THRESHOLD: Final = 5000
# Sessions after which all are put out of sight: a sixth of those that make the collector look.
EVERY: Final = 16
# Octets by which a process may grow before a whole pass is made, besides what its sessions have: about what a worker
# has when it has begun. SECURITY.md has what a session takes, 26 KiB and in a handshake 71; the rest is a text on its
# way, TEXT_READ_SIZE of it.
GROWTH: Final = 64 << 20
OF_SESSION: Final = 320 << 10


def settle() -> None:
    """What has been loaded stays for good: the collector need not look at it again. It is 80,000 objects, in which a
    full collection finds nothing in 100 ms, while everybody waits. Nor does one come first: of what was loaded it
    would find thirty to be garbage.
    """
    gc.freeze()
    _, *older = gc.get_threshold()
    gc.set_threshold(THRESHOLD, *older)


def resident() -> int:
    """Octets of memory that this process has; proc(5). 0 where there is no such file."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


class Keeper:
    """What one worker does about garbage. memory: octets that the process has."""

    def __init__(self, memory: Callable[[], int] = resident) -> None:
        self._memory = memory
        self._began = 0
        self._explained = memory()
        settle()

    def session_begins(self) -> None:
        self._began += 1
        if self._began % EVERY == 0:
            gc.freeze()

    def look(self, sessions: int) -> bool:
        """Now and then, with how many sessions there are: whether the process has grown by more than these have, and
        a whole pass was made. What is left then is no garbage, and is not taken for it again.
        """
        if self._memory() <= self._explained + GROWTH + sessions * OF_SESSION:
            return False
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._explained = self._memory()
        return True
