"""Who is next, where few things can be done at once and strangers ask for many.

Owns two bounds and a turn. `at_once` attempts are under way, `waiting` more may queue; behind an attempt its slot may
rest, so that all of them together never have more than a share of what they ask for. Who is next goes by turns
among the networks that wait, so that a stranger's thousand attempts cost somebody elsewhere the wait of one; and when
the queue is full it is the newest attempt of the network with the most that is told to come back (fair queueing that
drops from the fattest flow, as in RFC 8290 section 4.1). Refuses to know what is attempted.
"""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import gevent
from gevent.event import AsyncResult

# Bits of an IPv6 address that are one network: what one customer is given (RFC 6177), and Dovecot's
# PENALTY_IPV6_MASK_BITS. An IPv4 address is one by itself.
IPV6_PREFIX: Final = 48
# Seconds that a slot rests at most: what is slow by itself is not made slower by as many times.
MAX_REST: Final = 1.0


class OverloadError(Exception):
    """As many attempts wait as may, or this one has waited for too long. Nothing was done for it."""


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


class Turns:
    """For the greenlets of one process. A slot is free only while nobody waits. max_wait: seconds in the queue.
    rest: the seconds that a slot rests for each that an attempt has held it, MAX_REST at most in all.
    """

    def __init__(self, *, at_once: int, waiting: int, max_wait: float, rest: float = 0.0) -> None:
        self._max_wait = max_wait
        self._rest = rest
        self._free = at_once
        self._most = waiting
        self._waiting = 0
        # By network, the one whose turn is next first; True is a slot, False is overload.
        self._queues: dict[str, deque[AsyncResult[bool]]] = {}

    @contextmanager
    def attempt(self, network: str) -> Iterator[None]:
        """Wait for a slot and hold it. Raises OverloadError, at once or while it waits."""
        self._enter(network)
        began = time.monotonic()
        try:
            yield
        finally:
            rest = min(MAX_REST, self._rest * (time.monotonic() - began))
            if rest > 0.0:
                gevent.spawn_later(rest, self._leave)
            else:
                self._leave()

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
        except BaseException:  # this greenlet was ended while it waited; a slot may just have been given to it
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
