"""What is known of one backend: by probes (Health), and by the sessions that it served or failed (Breaker).

Owns the counting and nothing else: who probes, when, and which backend takes a session are others' matters. Times are
monotonic seconds and arguments. Every method that learns something returns whether the state changed by it, so that a
driver can log one line a change.
"""

from __future__ import annotations

import math

from smtpgate.routing.model import BreakerSpec, HealthSpec


class Health:
    """Active: up until `fall` probes in a row fail, down until `rise` in a row succeed (HAProxy's words).

    A backend is taken to be up before its first probe: a proxy that starts serves at once.
    """

    __slots__ = ("_run", "reason", "since", "up")

    def __init__(self, now: float) -> None:
        self.up = True
        self.reason = ""
        self.since = now
        self._run = 0  # probes in a row that speak against `up`

    def probed(self, up: bool, reason: str, spec: HealthSpec, now: float) -> bool:
        """One probe's result. reason: why it failed."""
        if up is self.up:
            self._run = 0
            return False
        self._run += 1
        return self._run >= (spec.rise if up else spec.fall) and self._turn(up, reason, now)

    def told(self, up: bool, reason: str, since: float) -> bool:
        """The state that another prober has found, which has done the counting."""
        return up is not self.up and self._turn(up, reason, since)

    def _turn(self, up: bool, reason: str, since: float) -> bool:
        self.up, self.reason, self.since = up, "" if up else reason, since
        self._run = 0
        return True


class Breaker:
    """Passive: closed until sessions show that the backend fails, then open for `spec.open` seconds, then half-open:
    one session at a time tries, until one is served (closed) or fails (open again).

    Whether it may open (the pool's max_open) is the caller's matter: `due` says that it should.
    """

    __slots__ = ("_connects", "_networks", "_opened_at", "_sessions", "_trial_until", "is_open", "reason", "since")

    def __init__(self, now: float) -> None:
        self.is_open = False
        self.reason = ""
        self.since = now
        # When it last opened; what others tell of a time before is known already.
        self._opened_at = -math.inf
        self._trial_until = -math.inf
        self._forget()

    def _forget(self) -> None:
        self._connects = 0
        self._sessions = 0
        self._networks: set[str] = set()

    @property
    def failures(self) -> int:
        """Failures in a row that count now; none once it has opened."""
        return self._connects + self._sessions

    def connect_failed(self) -> None:
        self._connects += 1

    def connected(self) -> None:
        """A connection was made: failures to connect are no longer in a row."""
        self._connects = 0

    def session_failed(self, network: str, spec: BreakerSpec) -> None:
        """network: the client's. Only as many are remembered as `spec.min_clients` asks for."""
        self._sessions += 1
        if len(self._networks) < spec.min_clients:
            self._networks.add(network)

    def due(self, spec: BreakerSpec) -> str:
        """Why it should open, "" if it should not.

        Failed connects speak for themselves. A failed session may be its client's doing, so one client network alone
        ejects nobody (Stalwart's proxy counts in the same way).
        """
        if self._connects >= spec.connect:
            return f"{self._connects} failed connects in a row"
        if self._sessions >= spec.session and len(self._networks) >= spec.min_clients:
            return f"{self._sessions} failed sessions in a row, from {len(self._networks)} or more client networks"
        return ""

    def open(self, reason: str, now: float) -> bool:
        """Eject, or go on ejecting: `spec.open` begins anew."""
        changed = not self.is_open
        self._opened_at = now
        self._trial_until = -math.inf
        self._forget()
        if changed:
            self.is_open, self.reason, self.since = True, reason, now
        return changed

    def close(self, now: float) -> bool:
        """Take it back. Failures are counted from zero again; where it was closed, they go on."""
        if not self.is_open:
            return False
        self.is_open, self.reason, self.since = False, "", now
        self._forget()
        return True

    def served(self, spec: BreakerSpec, now: float) -> bool:
        """A message was taken. While it is open this may be a session from before, which proves nothing."""
        if self.half_open(spec, now):
            return self.close(now)
        self._forget()
        return False

    def half_open(self, spec: BreakerSpec, now: float) -> bool:
        return self.is_open and now >= self._opened_at + spec.open

    def knows(self, since: float) -> bool:
        """Whether an ejection at `since`, in another worker, has been acted upon."""
        return since <= self._opened_at

    def may_try(self, spec: BreakerSpec, now: float) -> bool:
        """Half-open, and no session is trying now."""
        return self.half_open(spec, now) and now >= self._trial_until

    def try_one(self, spec: BreakerSpec, now: float) -> None:
        # A client that logs in and then says nothing must not keep the backend out: its trial ends by itself.
        self._trial_until = now + spec.open

    def tried(self) -> None:
        """The session that tried is over; if it ended without a verdict, the next one may try."""
        self._trial_until = -math.inf
