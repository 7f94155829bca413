"""Which backend of a pool takes the next session, as a pure decision.

Owns, for one process: the counts of sessions, what is known of each backend's health, and the order in which backends
may be asked. `balance` chooses among equals, `health` counts what speaks for and against one. The caller acts: it
connects, gives the slot back with `release` whatever came of it, and reports what it learnt.

The order, each only where all before it are tried by this session, or not there:

1. primaries that are healthy, and a half-open one as far as one session at a time,
2. backups in the same state,
3. those that the breaker has ejected, primaries before backups,
4. those whose probes fail, primaries before backups.

So a pool is never all out: with nobody healthy, a backend that is thought dead is tried before a client is refused
(Envoy's panic mode, Haraka's rule). Backends that are draining, off or edited away are never asked.

Knows no clock, no chance and no socket: times are monotonic seconds, and arguments. Greenlets switch only at IO, so
every call here is atomic without a lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from smtpgate.routing.balance import Load, choose
from smtpgate.routing.model import BackendSpec, BackendView, PoolSpec
from smtpgate.routing.slot import Slot

# The ranks of the order above; odd ones are backups.
_HEALTHY: Final = 0
_EJECTED: Final = 2
_DOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to this backend. It is counted already. trial: the one session that may try a half-open backend."""

    backend: BackendSpec
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """All that could serve are at max_conns: ask again when one of them was released. Nothing was counted."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody may be asked now. Nothing was counted.

    reason: "empty" (no backend of the pool takes sessions), "tried" (this session tried them all), "full" (each one
    that it has not tried is at its max_conns, and it may not wait, or not longer), "down" (a healthy one was asked
    for, and there is none).
    """

    reason: Literal["empty", "tried", "full", "down"]


class PoolState:
    """The state of one pool in one worker process.

    Built from a PoolSpec whose backend names are unique and whose weights are at least 1 (the loader sees to
    that). `repr()` tells all: `<PoolState core round_robin: mta1 2/200, mta2 0 open; leaving: mta3 1>`.

    Reports about a name that is not known are ignored: it was edited away while its session went on.
    """

    __slots__ = ("_drained", "_slots", "_spec")

    def __init__(self, spec: PoolSpec, now: float) -> None:
        self._spec = spec
        self._drained: Mapping[str, str] = {}
        # In the order of the spec; behind them those that leave.
        self._slots = {backend.name: Slot(backend, now) for backend in spec.backends}

    @property
    def spec(self) -> PoolSpec:
        return self._spec

    # --- sessions ---------------------------------------------------------------------------------------------

    def acquire(
        self,
        now: float,
        *,
        tried: Collection[str] = (),
        hash_key: str | None = None,
        chance: float = 0.0,
        may_wait: bool = True,
        anyone: bool = True,
    ) -> Open | Wait | Refuse:
        """Choose a backend that is not in `tried` (names) and is below its max_conns; count a session there.

        Every Open must be answered by one `release(backend.name)`, also when the connection fails. hash_key: the
        session's value of `spec.hash_key`, None where it has none. chance: drawn evenly from [0, 1).

        may_wait: False for a session that has waited for `spec.queue.wait` seconds, or finds `spec.queue.max` waiting
        already. A backup is not there for what the primaries have no room for: a session waits for a primary first
        (HAProxy's backups too are for failures only), but goes to a backup rather than be refused. anyone: False for
        the healthy only, for a session that another pool may take.
        """
        may_wait = may_wait and self._spec.queue.wait > 0 and self._spec.queue.max > 0
        ranks = self._ranks(now, tried)
        busy = False
        for rank in sorted(ranks):
            healthy = rank < _EJECTED
            if not healthy and (busy or not anyone):
                break  # where those that could serve are only busy, one that is thought dead would not help
            room = [slot.load for slot in ranks[rank] if slot.has_room]
            if room:
                return self._open(choose(self._spec.balance, room, hash_key, chance), now)
            if healthy and may_wait:
                return Wait()
            busy = busy or healthy
        if ranks and not (anyone or busy):
            return Refuse("down")
        if ranks:
            return Wait() if may_wait else Refuse("full")
        return Refuse("tried" if self.takers else "empty")

    def _ranks(self, now: float, tried: Collection[str]) -> dict[int, list[Slot]]:
        ranks: dict[int, list[Slot]] = {}
        for name, slot in self._slots.items():
            if slot.active and name not in tried:
                slot.weigh(self._spec.slow_start, now)
                ranks.setdefault(self._rank(slot, now), []).append(slot)
        return ranks

    def _rank(self, slot: Slot, now: float) -> int:
        if not slot.health.up:
            rank = _DOWN
        elif not slot.breaker.is_open:
            rank = _HEALTHY
        else:
            trial = slot.has_room and slot.breaker.may_try(self._spec.breaker, now)
            rank = _HEALTHY if trial else _EJECTED
        return rank + slot.backend.backup

    def _open(self, load: Load, now: float) -> Open:
        slot = self._slots[load.name]
        load.conns += 1
        trial = slot.breaker.may_try(self._spec.breaker, now)
        if trial:
            slot.breaker.try_one(self._spec.breaker, now)
        return Open(slot.backend, trial)

    def release(self, name: str, *, trial: bool = False) -> None:
        """A session on backend `name` is over. One that was edited away is forgotten with its last session.

        trial: as the session's Open had it; the next one may try if this one has told nothing of the backend. Raises
        ValueError when there is no such session: a slot given back twice would admit one session too many for as
        long as the process lives.
        """
        slot = self._slots.get(name)
        if slot is None or slot.load.conns == 0:
            pool = self._spec.name
            raise ValueError(f"pool {pool}: {name} released without a session; expected one release an acquire")
        slot.load.conns -= 1
        if trial:
            slot.breaker.tried()
        if slot.leaving and slot.load.conns == 0:
            del self._slots[name]

    def conns(self, name: str) -> int:
        """Sessions on backend `name` now; 0 for a name that is not known."""
        slot = self._slots.get(name)
        return slot.load.conns if slot else 0

    # --- what was learnt; each returns whether the backend's state changed by it -----------------------------------

    def connect_failed(self, name: str, now: float) -> bool:
        """No connection, or no greeting and handshake. Counts fully."""
        slot = self._slots.get(name)
        if slot is None:
            return False
        slot.breaker.connect_failed()
        return self._judge(slot, now)

    def connected(self, name: str) -> None:
        """A connection was made: connect failures are no longer in a row."""
        if name in self._slots:
            self._slots[name].breaker.connected()

    def session_failed(self, name: str, network: str, now: float) -> bool:
        """A backend that was connected failed its session. network: the client's, e.g. "192.0.2.0/24"."""
        slot = self._slots.get(name)
        if slot is None:
            return False
        slot.breaker.session_failed(network, self._spec.breaker)
        return self._judge(slot, now)

    def served(self, name: str, now: float) -> bool:
        """A message was taken: the breaker forgets, and closes if it was half-open."""
        slot = self._slots.get(name)
        return slot is not None and self._back(slot, slot.breaker.served(self._spec.breaker, now), now)

    def probed(self, name: str, up: bool, reason: str, now: float) -> bool:
        """A probe's result; it counts towards rise or fall. reason: why it failed."""
        slot = self._slots.get(name)
        return slot is not None and self._back(slot, slot.health.probed(up, reason, self._spec.health, now), now)

    def told(self, name: str, up: bool, reason: str, since: float, *, passive: bool = False) -> bool:
        """What another worker of this node has found: of its probes, or, with `passive`, of its breaker.

        May be told again and again: what is known already changes nothing. An ejection elsewhere opens this breaker
        as of `since`, within max_open, and this worker then tries by itself; one that was taken back closes it.
        """
        slot = self._slots.get(name)
        if slot is None:
            return False
        if not passive:
            return self._back(slot, slot.health.told(up, reason, since), since)
        if slot.breaker.knows(since):
            return False
        if up:
            return self._back(slot, slot.breaker.close(since), since)
        return self._may_eject(slot) and slot.breaker.open(reason, since)

    def _judge(self, slot: Slot, now: float) -> bool:
        """After a failure: eject, if there is reason to and the pool can spare it."""
        spec, breaker = self._spec.breaker, slot.breaker
        if breaker.is_open:
            # Of a backend on trial one failure is enough; before that it is known already.
            return breaker.half_open(spec, now) and breaker.open(breaker.reason, now)
        reason = breaker.due(spec)
        return reason != "" and self._may_eject(slot) and breaker.open(reason, now)

    def _may_eject(self, slot: Slot) -> bool:
        return slot.breaker.is_open or len(self._ejected()) < self._most_ejected()

    def _ejected(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if slot.active and slot.breaker.is_open]

    def _most_ejected(self) -> int:
        """max_open of those that may be asked, but at least one, as Envoy's: 30 % of three is not meant as none."""
        share = self._spec.breaker.max_open
        return max(1, round(share * 100) * self.takers // 100) if share > 0 else 0

    def _back(self, slot: Slot, changed: bool, now: float) -> bool:
        """Start slowly, if by this change it has come back."""
        if changed and slot.health.up and not slot.breaker.is_open:
            slot.warm_from = now
        return changed

    # --- orders, edits and views ------------------------------------------------------------------------------------

    def replace(self, spec: PoolSpec, now: float) -> None:
        """Go on with an edited spec. A backend is the same as before if its name is.

        Backends that stay keep their counts, so a lowered max_conns is reached as sessions end, and what is known of
        them, unless the address is another one. Those that are new, or active again, start slowly. Those that
        are gone take no new session and leave with their last; one that comes back finds its count again. The round
        robin starts anew, as after a reload of nginx, unless nothing has changed.
        """
        if spec == self._spec:
            return
        slots: dict[str, Slot] = {}
        for backend in spec.backends:
            slot = self._slots.get(backend.name)
            if slot is None:
                slot = Slot(backend, now)
                slot.warm_from = now
            else:
                slot.edit(backend, now)
            if spec.health.probe == "off":
                slot.health.told(True, "", now)  # nobody would ever find that it is up again
            slot.drain(self._drained.get(backend.name, ""), now)
            slots[backend.name] = slot
        for name, slot in self._slots.items():
            if name not in slots and slot.load.conns:
                slot.leave(now)
                slots[name] = slot
        self._slots, self._spec = slots, spec
        self._spare(now)

    def _spare(self, now: float) -> None:
        """There may be fewer now that take sessions: the first to be ejected come back, as far as max_open asks."""
        ejected = sorted(self._ejected(), key=lambda slot: slot.breaker.since)
        too_many = max(0, len(ejected) - self._most_ejected())
        for slot in ejected[:too_many]:
            self._back(slot, slot.breaker.close(now), now)

    def drain(self, drained: Mapping[str, str], now: float) -> bool:
        """An operator's orders, all of them: no new session for these backends (name -> who says so), whatever edits
        may come. Names that are not known yet are kept in mind. Whether anything has changed.
        """
        self._drained = drained
        changed = [slot.drain(drained.get(name, ""), now) for name, slot in self._slots.items()]
        self._spare(now)
        return any(changed)

    @property
    def takers(self) -> int:
        """Backends that may be asked, as policy and operator have it."""
        return sum(slot.active for slot in self._slots.values())

    def takes(self, name: str) -> bool:
        """Whether backend `name` is one of them."""
        return name in self._slots and self._slots[name].active

    def view(self, now: float) -> tuple[BackendView, ...]:
        """Every backend in the order of the policy, then those that leave."""
        return tuple(slot.view(self._spec.slow_start, now) for slot in self._slots.values())

    def __repr__(self) -> str:
        shown = [repr(slot) for slot in self._slots.values() if not slot.leaving]
        leaving = [repr(slot) for slot in self._slots.values() if slot.leaving]
        tail = f"; leaving: {', '.join(leaving)}" if leaving else ""
        return f"<PoolState {self._spec.name} {self._spec.balance.value}: {', '.join(shown)}{tail}>"
