"""File descriptors: how many sessions they allow, and the one that is kept for telling a client that there are none.

Owns RLIMIT_NOFILE of this process and the reserve descriptor (reference/security.md F4). Without the reserve a full
process cannot accept, and so cannot refuse: clients would wait in the backlog for nothing.
"""

from __future__ import annotations

import os
import resource
import select
from collections.abc import Callable
from typing import Final, TypeVar

from gevent.monkey import get_original

T = TypeVar("T")

# What a process has open beside its sessions: listeners, Redis, name servers, files that are being read.
RESERVED: Final = 64
# The client's, the backend's, a question to the auth service, a spool or a look-up.
PER_SESSION: Final = 4

# gevent's own waits for its loop to come round, and the descriptor is needed now.
close_now: Final[Callable[[int], None]] = get_original("os", "close")
# gevent's makes and starts watchers, 15 us of them; the kernel's takes one.
KERNEL_POLL: Final[type[select.poll]] = get_original("select", "poll")


def sessions_for(wanted: int) -> int:
    """How many sessions there may be, at most `wanted`. Raises the soft limit as far as they need it and the hard
    limit allows. At least 1.
    """
    needed = RESERVED + PER_SESSION * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - RESERVED) // PER_SESSION))


class ReserveDescriptor:
    """One descriptor that is held open, to be lent where there is no other."""

    def __init__(self) -> None:
        self._held: int | None = None
        self._take()

    def lend(self, use: Callable[[], T]) -> T:
        """What `use` returns. While it runs one descriptor is free, and it must have closed what it opened."""
        if self._held is not None:
            close_now(self._held)
            self._held = None
        try:
            return use()
        finally:
            self._take()

    def _take(self) -> None:
        try:
            self._held = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._held = None  # another was faster: the next `lend` works where one has been closed by then

    def close(self) -> None:
        if self._held is not None:
            close_now(self._held)
            self._held = None
