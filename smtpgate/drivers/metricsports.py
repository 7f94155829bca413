"""What is counted of the backends, and of the store of the limits.

Owns what is counted there; what is done is theirs. Nothing is added to what a caller sees.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.metrics import SHORT
from smtpgate.drivers.metricsvalues import Families
from smtpgate.routing.model import Failover
from smtpgate.session.ports import (
    Attending,
    BackendRefused,
    Backends,
    DialFailed,
    Lease,
    PoolTarget,
    Seeker,
    Target,
)
from smtpgate.smtp.replies import Reply

# Seconds. A Redis beside us answers in 0.2 ms, and is given up after 50.
STORE: Final[tuple[float, ...]] = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
# The pool and backend of an answer's Auth-Server, which may be any address.
DIRECT: Final = "_direct"
# Of a try that came to no backend, or to one that is not named.
NOBODY: Final = ""


class StoreCounts:
    """Of a store in Redis; one that is this process' memory decides in 2 us, and never fails."""

    def __init__(self, families: Families) -> None:
        self.seconds = families.histogram(
            "smtpgate_store_duration_seconds", "Of a decision in the limits' store.", STORE
        ).cell()
        self.failures = families.counter(
            "smtpgate_store_failures_total", "Decisions that the store gave no answer for, at once or in time."
        )


class BackendCounts:
    """What becomes of the search for backends, in all listeners of a process."""

    def __init__(self, families: Families, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        self.leases = families.counter(
            "smtpgate_backend_leases_total",
            "Sessions that were given a backend: on a new connection, on one that was kept; or failed to connect.",
            "pool",
            "backend",
            "result",
        )
        self.refused = families.counter(
            "smtpgate_pool_refused_total", "Sessions for whom a pool had no backend.", "pool"
        )
        self.seconds = families.histogram(
            "smtpgate_backend_lease_duration_seconds",
            "From the question for a backend to its connection, with the wait in the pool's queue.",
            SHORT,
            "pool",
        )


class CountedBackends:
    """A `session.ports.Backends`."""

    def __init__(self, backends: Backends, counts: BackendCounts) -> None:
        self._backends = backends
        self._counts = counts

    def check(self, target: Target) -> None:
        self._backends.check(target)

    def plan(self, target: Target) -> Failover:
        return self._backends.plan(target)

    def unavailable(self, target: Target) -> Reply:
        return self._backends.unavailable(target)

    def lease(
        self, target: Target, seeker: Seeker, tried: Collection[str], deadline: Deadline, attending: Attending
    ) -> Lease:
        counts = self._counts
        pool = target.pool if isinstance(target, PoolTarget) else DIRECT
        began = counts.monotonic()
        try:
            lease = self._backends.lease(target, seeker, tried, deadline, attending)
        except BackendRefused:
            # A pool that nobody has configured is auth_http's word, and no label.
            counts.refused.add((pool if self._known(target) else NOBODY,))
            raise
        except DialFailed as failed:
            counts.leases.add((*_where(pool, failed.backend), "failed"))
            raise
        counts.seconds.observe((pool,), counts.monotonic() - began)
        counts.leases.add((*_where(pool, lease.backend), "kept" if lease.greeted else "new"))
        return lease

    def _known(self, target: Target) -> bool:
        try:
            self._backends.check(target)
        except BackendRefused:
            return False
        return True


def _where(pool: str, label: str) -> tuple[str, str]:
    """Pool and backend of a backend's label: those of a fallback have its name before them."""
    if pool == DIRECT:
        return DIRECT, NOBODY
    fallback, slash, backend = label.partition("/")
    return (fallback, backend) if slash else (pool, label)
