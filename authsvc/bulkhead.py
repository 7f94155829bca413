"""How many login attempts one process works on at a time, and the threads that their hashing runs in.

Owns two bounds. `at_once` attempts are between looking at a limit and charging it, so that parallel guesses
overshoot a limit by less than that. `waiting` more may queue; the next is told to come back. Hashing runs in
gevent's thread pool: argon2 releases the GIL, and the other greenlets go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

# 4 argon2id computations hold 256 MiB (passwords.PROFILE) and keep four cores busy.
AT_ONCE: Final = 4
# All together are 32 computations of 0.2 s, 6 s on one core: within the 10 s that our proxy waits for an answer.
WAITING: Final = 28

T = TypeVar("T")


class OverloadError(Exception):
    """As many attempts wait as may. Nothing was done for this one."""


class Bulkhead:
    """One for each process, made after the fork."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._slots = BoundedSemaphore(at_once)
        self._threads = ThreadPool(at_once)
        self._bound = at_once + waiting
        self._inside = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Wait for a slot and hold it. Raises OverloadError at once if too many wait."""
        if self._inside >= self._bound:
            raise OverloadError(f"{self._inside} attempts under way; at most {self._bound} allowed")
        self._inside += 1
        try:
            with self._slots:
                yield
        finally:
            self._inside -= 1

    def run(self, work: Callable[..., T], *args: object) -> T:
        """`work(*args)` in a thread of the pool, within `attempt()`. What it raises is raised here."""
        result: T = self._threads.apply(work, args)
        return result

    def close(self) -> None:
        """End the threads."""
        self._threads.kill()
