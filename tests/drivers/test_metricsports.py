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
)
from smtpgate.drivers.metricsvalues import Families
from smtpgate.routing.model import Failover
from smtpgate.session.ports import AddressTarget, BackendRefused, DialFailed, PoolTarget, Seeker, Target
from smtpgate.smtp import replies

SEEKER = Seeker("192.0.2.7", None, "example.com")


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
