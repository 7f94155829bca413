"""Which backend of a pool takes the next session, as a pure decision.

Owns the counts of sessions per backend and the two balance algorithms, both nginx's: smooth weighted round
robin, and least connections by weight with ties broken by that same round robin. The caller connects, and
gives the slot back with `release` whatever came of it.

Knows no clock, no socket and no failure: a backend that could not be reached is passed in as `tried` by the
session that found out. Greenlets switch only at IO, so every call here is atomic without a lock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from smtpgate.routing.model import BackendSpec, Balance, PoolSpec


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to this backend. It is counted already."""

    backend: BackendSpec


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody may be asked now. Nothing was counted.

    reason: "empty" (the pool has no backends), "tried" (this session tried them all), "full" (each one that
    it has not tried is at its max_conns).
    """

    reason: Literal["empty", "tried", "full"]


@dataclass(slots=True)
class _Slot:
    """What changes about a backend. conns: sessions now. current: nginx's current_weight."""

    conns: int = 0
    current: int = 0
    draining: bool = False


class PoolState:
    """The state of one pool in one worker process.

    Built from a PoolSpec whose backend names are unique and whose weights are at least 1 (the loader sees to
    that). `repr()` tells all: `<PoolState core round_robin: mta1 2/200, mta2 0; draining: mta3 1>`.
    """

    __slots__ = ("_slots", "_spec")

    def __init__(self, spec: PoolSpec) -> None:
        self._spec = spec
        self._slots = {backend.name: _Slot() for backend in spec.backends}

    @property
    def spec(self) -> PoolSpec:
        return self._spec

    def acquire(self, tried: Collection[str] = ()) -> Open | Refuse:
        """Choose a backend that is not in `tried` (names) and is below its max_conns; count a session there.

        Every Open must be answered by one `release(backend.name)`, also when the connection fails.
        """
        if not self._spec.backends:
            return Refuse("empty")
        full = False
        candidates: list[tuple[_Slot, BackendSpec]] = []
        for backend in self._spec.backends:
            if backend.name in tried:
                continue
            slot = self._slots[backend.name]
            if backend.max_conns is not None and slot.conns >= backend.max_conns:
                full = True
            else:
                candidates.append((slot, backend))
        if not candidates:
            return Refuse("full" if full else "tried")
        if self._spec.balance is Balance.LEAST_CONN:
            candidates = _least_loaded(candidates)
        slot, backend = _smooth_round_robin(candidates)
        slot.conns += 1
        return Open(backend)

    def release(self, name: str) -> None:
        """A session on backend `name` is over. One that was edited away is forgotten with its last session.

        Raises ValueError when there is no such session: a slot given back twice would admit one session too
        many for as long as the process lives.
        """
        slot = self._slots.get(name)
        if slot is None or slot.conns == 0:
            pool = self._spec.name
            raise ValueError(f"pool {pool}: {name} released without a session; expected one release an acquire")
        slot.conns -= 1
        if slot.draining and slot.conns == 0:
            del self._slots[name]

    def replace(self, spec: PoolSpec) -> None:
        """Go on with an edited spec. A backend is the same as before if its name is.

        Backends that stay keep their counts, so a lowered max_conns is reached as sessions end. Backends that
        are gone take no new session and drain; one that comes back finds its count again. The round robin
        starts anew, as after a reload of nginx, unless nothing has changed.
        """
        if spec == self._spec:
            return
        self._spec = spec
        names = [backend.name for backend in spec.backends]
        slots = {name: self._slots.get(name, _Slot()) for name in names}
        slots.update((name, slot) for name, slot in self._slots.items() if slot.conns)
        for name, slot in slots.items():
            slot.current = 0
            slot.draining = name not in names
        self._slots = slots

    def conns(self, name: str) -> int:
        """Sessions on backend `name` now; 0 for a name that is not known."""
        slot = self._slots.get(name)
        return slot.conns if slot else 0

    def __repr__(self) -> str:
        active = ", ".join(
            f"{b.name} {self._slots[b.name].conns}" + ("" if b.max_conns is None else f"/{b.max_conns}")
            for b in self._spec.backends
        )
        draining = ", ".join(f"{name} {slot.conns}" for name, slot in self._slots.items() if slot.draining)
        tail = f"; draining: {draining}" if draining else ""
        return f"<PoolState {self._spec.name} {self._spec.balance.value}: {active}{tail}>"


def _least_loaded(candidates: list[tuple[_Slot, BackendSpec]]) -> list[tuple[_Slot, BackendSpec]]:
    """All that share the lowest conns / weight. Compared by cross products: equal loads are exactly equal."""
    best = candidates[:1]
    for candidate in candidates[1:]:
        load = candidate[0].conns * best[0][1].weight
        lowest = best[0][0].conns * candidate[1].weight
        if load < lowest:
            best = [candidate]
        elif load == lowest:
            best.append(candidate)
    return best


def _smooth_round_robin(candidates: list[tuple[_Slot, BackendSpec]]) -> tuple[_Slot, BackendSpec]:
    """One step of nginx's smooth weighted round robin (ngx_http_upstream_get_peer).

    Every candidate gains its weight, the richest wins (the first of equals) and pays what all gained
    together. Over any run as long as the sum of weights each is chosen exactly weight times, and 10/10/2
    alternates instead of sending ten in a row.
    """
    for slot, backend in candidates:
        slot.current += backend.weight
    winner = max(candidates, key=lambda candidate: candidate[0].current)
    winner[0].current -= sum(backend.weight for _, backend in candidates)
    return winner
