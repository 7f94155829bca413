"""How many login attempts one process works on at a time, who is next, and the threads that hashing runs in.

Owns two bounds and a turn. `at_once` attempts are between looking at a limit and charging it, so that parallel
guesses overshoot a limit by less than that. `waiting` more may queue. Who is next goes by turns among the networks
that wait, so that a stranger's thousand guesses cost a user elsewhere the wait of one; and when the queue is full it
is the newest attempt of the network with the most that is told to come back (fair queueing that drops from the
fattest flow, as in RFC 8290 section 4.1). Hashing runs in gevent's thread pool: argon2 releases the GIL, and the
other greenlets go on. Its threads are nicer than the one that answers, which else waits for its share of the CPU
among them.
"""

from __future__ import annotations

import _thread
import ipaddress
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

# An argon2id computation has 4 lanes (passwords.PROFILE), so that a few keep any number of cores busy; each holds
# 64 MiB.
AT_ONCE: Final = max(2, min(4, os.cpu_count() or 1))
# All together are 32 computations of 0.2 s, 6 s on one core: within the 10 s that our proxy waits for an answer.
WAITING: Final = 32 - AT_ONCE
# Seconds in the queue. Where others take the processor, computations take longer than that: who has waited so long is
# told to come back, while there is still somebody who hears it.
MAX_WAIT: Final = 6.0
# Bits of an IPv6 address that are one network: what one customer is given (RFC 6177), and Dovecot's
# PENALTY_IPV6_MASK_BITS. An IPv4 address is one by itself.
IPV6_PREFIX: Final = 48
# What nice(1) adds by default. Measured with 200 remembered logins a second beside 16 guessers on two cores: their
# median is 2 ms, and 500 ms with threads of equal rights.
NICE: Final = 10

T = TypeVar("T")


class OverloadError(Exception):
    """As many attempts wait as may, or this one has waited for MAX_WAIT. Nothing was done for it."""


def network_of(client: str) -> str:
    """The network whose attempts share turns. client: an address, or "unix:", which is one of its own."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, IPV6_PREFIX), strict=False))


class Bulkhead:
    """One for each process, made after the fork. A slot is free only while nobody waits."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING, max_wait: float = MAX_WAIT) -> None:
        self._max_wait = max_wait
        self._threads = ThreadPool(at_once)
        self._free = at_once
        self._most = waiting
        self._waiting = 0
        # By network, the one whose turn is next first; True is a slot, False is overload.
        self._queues: dict[str, deque[AsyncResult[bool]]] = {}

    @contextmanager
    def attempt(self, network: str) -> Iterator[None]:
        """Wait for a slot and hold it. Raises OverloadError, at once or while it waits."""
        self._enter(network)
        try:
            yield
        finally:
            self._leave()

    def run(self, work: Callable[..., T], *args: object) -> T:
        """`work(*args)` in a thread of the pool, within `attempt()`. What it raises is raised here."""
        result: T = self._threads.apply(_nicely, (work, args))
        return result

    def close(self) -> None:
        """End the threads."""
        self._threads.kill()

    def _enter(self, network: str) -> None:
        if self._free > 0:
            self._free -= 1
            return
        self._make_room(network)
        turn: AsyncResult[bool] = AsyncResult()
        self._queues.setdefault(network, deque()).append(turn)
        self._waiting += 1
        try:
            granted = turn.wait(self._max_wait)
        except BaseException:
            # This greenlet was ended while it waited; a slot may just have been given to it.
            if not turn.ready():
                self._drop(network, turn)
            elif turn.value:
                self._leave()
            raise
        if not turn.ready():
            self._drop(network, turn)
            raise OverloadError(f"no turn within {self._max_wait:g} s")
        if not granted:
            raise OverloadError(f"{self._most} attempts wait, most of them from {network}")

    def _make_room(self, network: str) -> None:
        """Raises OverloadError if the queue is full and no network waits with more than this one would."""
        if self._waiting < self._most:
            return
        longest = max(self._queues, key=lambda name: len(self._queues[name]), default=network)
        if len(self._queues.get(longest, ())) <= len(self._queues.get(network, ())) + 1:
            raise OverloadError(f"{self._waiting} attempts wait; at most {self._most} may")
        newest = self._queues[longest][-1]
        self._drop(longest, newest)
        newest.set(False)

    def _leave(self) -> None:
        """Give the slot to the next network's oldest attempt."""
        network = next(iter(self._queues), None)
        if network is None:
            self._free += 1
            return
        queue = self._queues[network]
        turn = queue[0]
        self._drop(network, turn)
        if queue:
            self._queues[network] = self._queues.pop(network)
        turn.set(True)

    def _drop(self, network: str, turn: AsyncResult[bool]) -> None:
        queue = self._queues[network]
        queue.remove(turn)
        self._waiting -= 1
        if not queue:
            del self._queues[network]


def _nicely(work: Callable[..., T], args: tuple[object, ...]) -> T:
    """In a thread of the pool. argon2's own threads, one a lane, inherit the niceness."""
    # Elsewhere than on Linux niceness belongs to the whole process. Nobody may make it less.
    if sys.platform == "linux":
        thread = _thread.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))
    return work(*args)
