"""A count beside each call, and nothing else that a caller could see."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext

import pytest
from fakes import ManualClock

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.metricsports import (
    DIRECT,
    NOBODY,
    BackendCounts,
    CountedBackends,
    counted_store,
)
from smtpgate.drivers.metricsvalues import Families
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import Charge, StoreUnavailable, Taken
from smtpgate.routing.model import Failover
from smtpgate.session.ports import AddressTarget, BackendRefused, DialFailed, PoolTarget, Seeker, Target
from smtpgate.smtp import replies

CHARGE = Charge("msgs:ann", 1.0, 10.0)
SEEKER = Seeker("192.0.2.7", None, "example.com")


class SlowStore:
    """A store that takes 30 ms, and may be away."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._buckets = MemoryBuckets(clock)
        self.away = False
        self.give = self._buckets.give
        self.release = self._buckets.release
        self.note = self._buckets.note
        self.seen = self._buckets.seen
        self.renew = self._buckets.renew
        self.configure = self._buckets.configure

    def take(self, charges: Collection[Charge], **how: object) -> Taken:
        self._clock.sleep(0.03)
        if self.away:
            raise StoreUnavailable("it is away")
        return self._buckets.take(list(charges), **how)  # type: ignore[arg-type]


def test_a_store_is_timed_and_its_failures_are_counted() -> None:
    clock, families = ManualClock(), Families()
    store = SlowStore(clock)
    counted = counted_store(store, families, clock)  # type: ignore[arg-type]
    assert counted.take([CHARGE], debit=True, count=True).balances == (9.0,)
    counted.give([CHARGE])
    store.away = True
    with pytest.raises(StoreUnavailable, match="it is away"):
        counted.take([CHARGE])
    (failures,), (seconds,) = families.counters, families.histograms
    assert failures.values == {(): 1}
    assert (sum(seconds.cells[()].counts), round(seconds.cells[()].sum, 6)) == (2, 0.06)
    assert seconds.cells[()].counts[seconds.bounds.index(0.05)] == 2


def test_where_nobody_counts_nothing_is_between() -> None:
    clock = ManualClock()
    memory, slow = MemoryBuckets(clock), SlowStore(clock)
    assert counted_store(memory, Families(), clock) is memory
    assert counted_store(slow, None, clock) is slow  # type: ignore[comparison-overlap, arg-type]


class Given:
    def __init__(self, backend: str, greeted: bool) -> None:
        self.backend = backend
        self.greeted = greeted


class Scripted:
    """Backends that do as they are told, in 0.2 s; pools: those that there are."""

    def __init__(self, clock: Clock, *script: object, pools: Collection[str] = ("core",)) -> None:
        self._clock = clock
        self._script = list(script)
        self._pools = pools

    def check(self, target: Target) -> None:
        if isinstance(target, PoolTarget) and target.pool not in self._pools:
            raise BackendRefused("unknown pool", replies.INTERNAL_ERROR)

    def plan(self, target: Target) -> Failover:
        self.check(target)
        return Failover()

    def lease(self, *_: object) -> object:
        self._clock.sleep(0.2)
        told = self._script.pop(0)
        if isinstance(told, Exception):
            raise told
        return told


REFUSED = BackendRefused("full", replies.INTERNAL_ERROR)


@pytest.mark.parametrize(
    ("target", "told", "leases", "refused"),
    [
        (PoolTarget("core"), Given("b1", False), {("core", "b1", "new"): 1}, {}),
        (PoolTarget("core"), Given("b1", True), {("core", "b1", "kept"): 1}, {}),
        (PoolTarget("core"), Given("spare/c1", True), {("spare", "c1", "kept"): 1}, {}),
        (PoolTarget("core"), DialFailed("b1", "no"), {("core", "b1", "failed"): 1}, {}),
        (AddressTarget("192.0.2.9", 25), Given("192.0.2.9:25", False), {(DIRECT, NOBODY, "new"): 1}, {}),
        (AddressTarget("192.0.2.9", 25), REFUSED, {}, {(DIRECT,): 1}),
        (PoolTarget("core"), REFUSED, {}, {("core",): 1}),
        (PoolTarget("whatever auth_http said"), REFUSED, {}, {(NOBODY,): 1}),
    ],
)
def test_a_search_for_a_backend(target: Target, told: object, leases: object, refused: object) -> None:
    clock, families = ManualClock(), Families()
    counts = BackendCounts(families, clock)
    counted = CountedBackends(Scripted(clock, told), counts)  # type: ignore[arg-type]
    if isinstance(told, Exception):
        with pytest.raises(type(told)) as caught:
            counted.lease(target, SEEKER, (), Deadline(clock, 5.0), nullcontext)
        assert caught.value is told
    else:
        assert counted.lease(target, SEEKER, (), Deadline(clock, 5.0), nullcontext) is told
    assert (counts.leases.values, counts.refused.values) == (leases, refused)
    timed = sum(sum(cell.counts) for cell in counts.seconds.cells.values())
    assert timed == int(isinstance(told, Given))
