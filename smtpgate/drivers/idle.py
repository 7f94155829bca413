"""Connections to backends that rest between two clients.

Owns how long and how many: a connection is kept for the pool's `reuse.idle`, up to `reuse.max_idle` for each backend
and way of speaking to it, until it is `reuse.age` old or has carried `reuse.messages`. One that is readable while it
rests has ended, or says what nobody asked for: it is closed when it would be used. Refuses to decide which connection
may be another client's at all: that is `drivers.backends` and `session.link`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import gevent

from smtpgate.clock import Clock
from smtpgate.routing.model import BackendSettings, ReuseSpec
from smtpgate.session.link import BackendLink, LinkLost

# Of one process, whatever the pools say: a tenth of its sessions (listener.MAX_SESSIONS).
MAX_KEPT: Final = 1000
# Connections that have rested too long are looked for so often; one may rest this much longer.
SWEEP_INTERVAL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Way:
    """What a connection must have in common with the one that is wanted. pool: "" for a bare address.

    Its hash is made once: that of all settings takes longer than the rest of a look-up.
    """

    pool: str
    backend: str
    host: str
    port: int
    settings: BackendSettings
    reuse: ReuseSpec
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (self.pool, self.backend, self.host, self.port, self.settings, self.reuse)
        object.__setattr__(self, "_hash", hash(values))  # frozen from here on

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Kept:
    """A connection that rests. made: when it was connected; since: when it began to rest, both monotonic seconds.
    messages: that it carried.
    """

    link: BackendLink
    made: float
    messages: int
    since: float

    def spent(self, reuse: ReuseSpec, now: float) -> bool:
        return now - self.since >= reuse.idle or now - self.made >= reuse.age


class IdleLinks:
    """The resting connections of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # The last to come is the first to go, so that a quiet hour lets the others end (as HAProxy and nginx do).
        self._kept: dict[Way, deque[Kept]] = {}
        self._count = 0
        self._sweeper: gevent.Greenlet[[], None] | None = None

    def __len__(self) -> int:
        return self._count

    def counts(self) -> dict[tuple[str, str], int]:
        """By pool and backend."""
        counts: dict[tuple[str, str], int] = {}
        for way, those in self._kept.items():
            key = way.pool, way.backend
            counts[key] = counts.get(key, 0) + len(those)
        return counts

    def take(self, way: Way) -> Kept | None:
        """One that goes this way and still rests; those found ended are closed."""
        while those := self._kept.get(way):  # looked up anew: a goodbye may wait, and a sweep come by meanwhile
            kept = those.pop()
            self._count -= 1
            if not those:
                del self._kept[way]
            try:
                kept.link.check_silent("while it rested")
            except LinkLost:
                kept.link.close()
                continue
            if not kept.spent(way.reuse, self._clock.monotonic()):
                return kept
            _part(kept)
        return None

    def put(self, way: Way, link: BackendLink, made: float, messages: int) -> bool:
        """Let a connection rest. False: it may not, and is the caller's to close."""
        now = self._clock.monotonic()
        reuse, those, kept = way.reuse, self._kept.get(way), Kept(link, made, messages, now)
        if messages >= reuse.messages or kept.spent(reuse, now):
            return False
        if self._count >= MAX_KEPT or (reuse.max_idle <= len(those) if those else reuse.max_idle <= 0):
            return False
        if those is None:
            those = self._kept[way] = deque()
        those.append(kept)
        self._count += 1
        if self._sweeper is None:
            self._sweeper = gevent.spawn(self._sweep)
        return True

    def retain(self, wanted: Callable[[Way], bool]) -> None:
        """Close all whose way is no longer wanted. The goodbyes are said in the background: this does not wait."""
        gone = [way for way in self._kept if not wanted(way)]
        parting = list(itertools.chain.from_iterable(self._kept.pop(way) for way in gone))
        self._count -= len(parting)
        if parting:
            gevent.spawn(_part_all, parting)

    def close(self) -> None:
        """Close all, as `retain`."""
        self.retain(lambda way: False)

    def _sweep(self) -> None:
        try:
            while self._kept:
                gevent.sleep(SWEEP_INTERVAL)
                now = self._clock.monotonic()
                parting: list[Kept] = []
                for way, those in list(self._kept.items()):
                    spent = [kept for kept in those if kept.spent(way.reuse, now)]
                    parting += spent
                    self._count -= len(spent)
                    left = deque(kept for kept in those if not kept.spent(way.reuse, now))
                    if left:
                        self._kept[way] = left
                    else:
                        del self._kept[way]
                _part_all(parting)
        finally:
            self._sweeper = None


def _part_all(parting: list[Kept]) -> None:
    for kept in parting:
        _part(kept)


def _part(kept: Kept) -> None:
    """Say goodbye: a backend that is left without QUIT logs a lost connection."""
    kept.link.quit()
    kept.link.close()
