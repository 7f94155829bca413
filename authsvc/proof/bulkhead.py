"""How many login attempts one process works on at a time, who is next, and the threads that hashing runs in.

Owns the bounds, and the threads. `at_once` attempts are between looking at a limit and charging it, so that parallel
guesses overshoot a limit by less than that. Hashing runs in gevent's thread pool: argon2 releases the GIL, and the
other greenlets go on. Its threads are nicer than the one that answers, which else waits for its share of the CPU
among them. Refuses to know how turns are taken (`turns`).
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from gevent.threadpool import ThreadPool

from smtpgate.drivers.turns import OverloadError, Turns, network_of

__all__ = ["AT_ONCE", "MAX_WAIT", "NICE", "WAITING", "Bulkhead", "OverloadError", "network_of"]

# An argon2id computation has 4 lanes (passwords.PROFILE), so that a few keep any number of cores busy; each holds
# 64 MiB.
AT_ONCE: Final = max(2, min(4, os.cpu_count() or 1))
# All together are 32 computations of 0.2 s, 6 s on one core: within the 10 s that our proxy waits for an answer.
WAITING: Final = 32 - AT_ONCE
# Seconds in the queue. Where others take the processor, computations take longer than that: who has waited so long is
# told to come back, while there is still somebody who hears it.
MAX_WAIT: Final = 6.0
# What nice(1) adds by default. Measured with 200 remembered logins a second beside 16 guessers on two cores: their
# median is 2 ms, and 500 ms with threads of equal rights.
NICE: Final = 10

T = TypeVar("T")


class Bulkhead(Turns):
    """One for each process, made after the fork."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING, max_wait: float = MAX_WAIT) -> None:
        super().__init__(at_once=at_once, waiting=waiting, max_wait=max_wait)
        self._threads = ThreadPool(at_once)

    def run(self, work: Callable[..., T], *args: object) -> T:
        """`work(*args)` in a thread of the pool, within `attempt()`. What it raises is raised here.

        work: hardly anything but the computation. Who holds the interpreter's lock at NICE, and has to wait for the
        processor, makes the thread that answers wait with it.
        """
        result: T = self._threads.apply(_nicely, (work, args))
        return result

    def close(self) -> None:
        """End the threads."""
        self._threads.kill()


def _nicely(work: Callable[..., T], args: tuple[object, ...]) -> T:
    """In a thread of the pool. argon2's own threads, one a lane, inherit the niceness."""
    # Elsewhere than on Linux niceness belongs to the whole process. Nobody may make it less.
    if sys.platform == "linux":
        thread = _thread.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))
    return work(*args)
