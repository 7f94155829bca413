"""One backend of a pool in one process, and what changes about it: its sessions, its health, its weight.

Owns when it takes sessions at all (policy, operator, edits) and what it starts anew with when it is back. Refuses to
know the others of its pool: who is chosen, and whether one may be ejected, is `pool`'s.
"""

from __future__ import annotations

from typing import Literal

from smtpgate.routing.balance import WEIGHT_SCALE, Load
from smtpgate.routing.health import Breaker, Health
from smtpgate.routing.model import BackendSpec, BackendView, State


class Slot:
    """set_at: when the policy gave it its present state. warm_from: when slow start began, None when it is over.
    leaving: it was edited away, and is kept until its last session ends. drained_by: whose order keeps sessions from
    it, "" for nobody's.
    """

    __slots__ = ("backend", "breaker", "drained_by", "health", "leaving", "load", "set_at", "warm_from")

    def __init__(self, backend: BackendSpec, now: float) -> None:
        self.backend = backend
        self.load = Load(backend.name)
        self.leaving = False
        self.drained_by = ""
        self.health = Health(now)
        self.breaker = Breaker(now)
        self.set_at = now
        self.warm_from: float | None = None

    @property
    def active(self) -> bool:
        return self.backend.state is State.ACTIVE and not self.leaving and not self.drained_by

    @property
    def has_room(self) -> bool:
        return self.backend.max_conns is None or self.load.conns < self.backend.max_conns

    def edit(self, backend: BackendSpec, now: float) -> None:
        """Go on as the edited `backend`, which has the same name.

        Another address is another machine, and one that was gone may have changed meanwhile: nothing is known of
        them. What probes say of one that was drained or off still holds.
        """
        before, self.backend = self.backend, backend
        self.load.current = 0
        if self.leaving or (before.host, before.port) != (backend.host, backend.port):
            self.health = Health(now)
            self._begin_anew(now)
        elif before.state is not backend.state:
            self._begin_anew(now)
        self.leaving = False

    def _begin_anew(self, now: float) -> None:
        self.breaker = Breaker(now)
        self.set_at = self.warm_from = now

    def leave(self, now: float) -> None:
        if not self.leaving:
            self.leaving, self.set_at = True, now

    def drain(self, by: str, now: float) -> bool:
        """Whether that is news. One that is given back begins as one that the policy has made active again."""
        if by == self.drained_by:
            return False
        if not (by and self.drained_by):
            self._begin_anew(now)
        self.drained_by = by
        return True

    def weigh(self, slow_start: float, now: float) -> None:
        """Slow start, as HAProxy's: linear, from one step of the scale to the whole weight."""
        self.load.weight = full = self.backend.weight * WEIGHT_SCALE
        if self.warm_from is None:
            return
        elapsed = now - self.warm_from
        if slow_start == 0 or elapsed >= slow_start:
            self.warm_from = None
        else:
            # Another worker's clock reading may be a little ahead of ours: elapsed may be negative.
            self.load.weight = max(1, int(full * elapsed / slow_start))

    def view(self, slow_start: float, now: float) -> BackendView:
        self.weigh(slow_start, now)
        name, conns, weight = self.backend.name, self.load.conns, self.load.weight / WEIGHT_SCALE
        if self.leaving:
            return BackendView(name, "drain", "removed from the policy", self.set_at, conns, 0.0, "policy")
        if self.backend.state is State.OFF:
            return BackendView(name, "off", "set in the policy", self.set_at, conns, 0.0, "policy")
        if self.backend.state is State.DRAIN:
            return BackendView(name, "drain", "set in the policy", self.set_at, conns, 0.0, "policy")
        if self.drained_by:
            return BackendView(name, "drain", f"drained by {self.drained_by}", self.set_at, conns, 0.0, "operator")
        health, breaker = self.health, self.breaker
        if not health.up:
            return BackendView(name, "down", health.reason, health.since, conns, weight, "probe", breaker.failures)
        if breaker.is_open:
            return BackendView(name, "open", breaker.reason, breaker.since, conns, weight, "sessions")
        state: Literal["up", "backup"] = "backup" if self.backend.backup else "up"
        since = max(health.since, breaker.since, self.set_at)
        return BackendView(name, state, "", since, conns, weight, "", breaker.failures)

    def __repr__(self) -> str:
        if self.leaving:
            return f"{self.backend.name} {self.load.conns}"
        cap = "" if self.backend.max_conns is None else f"/{self.backend.max_conns}"
        words = [f"{self.backend.name} {self.load.conns}{cap}"]
        words += ["backup"] * self.backend.backup
        words += [self.backend.state.value] * (self.backend.state is not State.ACTIVE)
        words += ["drained"] * bool(self.drained_by)
        words += ["down"] * (not self.health.up) + ["open"] * self.breaker.is_open
        return " ".join(words)
