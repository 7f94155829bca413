"""How often a login may be tried."""

from __future__ import annotations

import pytest

from authsvc.console.tries import Tries
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.store import StoreUnavailable


class Away:
    def take(self, charges, **_: object) -> None:
        raise StoreUnavailable("away")


@pytest.mark.parametrize("store", ["there", "away"])
def test_five_and_then_one_each_12_s(clock, store: str) -> None:
    tries = Tries(MemoryBuckets(clock) if store == "there" else Away(), clock)
    assert [tries.take("192.0.2.7") for _ in range(5)] == [0.0] * 5
    assert tries.take("192.0.2.7") == pytest.approx(12.0)
    assert tries.take("192.0.2.7") == pytest.approx(12.0)  # asking costs nothing
    clock.sleep(12.0)
    assert tries.take("192.0.2.7") == 0.0
    assert tries.take("192.0.2.7") > 0.0


def test_all_addresses_together(clock) -> None:
    tries = Tries(MemoryBuckets(clock), clock)
    assert [tries.take(f"192.0.2.{at}") for at in range(10)] == [0.0] * 10
    assert tries.take("192.0.2.99") == pytest.approx(6.0)
