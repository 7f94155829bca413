"""What every store must hold, as property tests that run against any of them.

`check_store(make_store, clock)` plays random scripts of charges and pauses and follows each with a model that
knows only refill and debit. On a clock that really runs (Redis' own) an answer falls somewhere between the
two moments around the call, so the model keeps bounds and not values; on a manual clock the bounds meet.

Held for every script:
* an event passes exactly when every bucket can pay, whatever the order of its charges;
* a denied event, and a look without debit, leave every balance as refill alone would;
* each wait is the time until that bucket can pay, 0 where it can, inf where the cost is above the burst;
* a bucket never admits more than burst + rate x time.

Whole events, with claims, bans and all terms of a charge, are event_contract.py's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpgate.clock import Clock
from smtpgate.policy.store import BucketStore, Charge

# Tokens. Stores may round: Redis' clock has microseconds, its numbers travel as decimal text.
DEFAULT_TOLERANCE = 1e-6


@dataclass
class Model:
    """One bucket: between `low` and `high` tokens at a moment between `since` and `until`."""

    rate: float
    burst: float
    low: float
    high: float
    since: float
    until: float
    born: float
    admitted: float = field(default=0.0)

    def refilled(self, before: float, after: float) -> tuple[float, float]:
        low = min(self.burst, self.low + max(0.0, before - self.until) * self.rate)
        high = min(self.burst, self.high + (after - self.since) * self.rate)
        return low, high


_LIMITS = st.lists(
    st.tuples(
        st.sampled_from([0.5, 1.0, 3.0, 20.0, 700.0]),  # tokens a second
        st.sampled_from([1.0, 2.0, 2.5, 10.0]),  # burst
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def _scripts(draw: st.DrawFn, longest_pause: float) -> tuple[list[tuple[float, float]], list[tuple]]:
    limits = draw(_LIMITS)
    pauses = st.one_of(st.just(0.0), st.floats(0.0, longest_pause))
    some = st.lists(st.sampled_from(range(len(limits))), min_size=1, max_size=len(limits), unique=True)
    costs = st.sampled_from([1.0, 1.0, 1.0, 0.25, 2.0, 11.0])
    # The indices come in any order: it must not matter.
    steps = st.tuples(pauses, some, costs, st.booleans().map(lambda look: not look))
    return limits, draw(st.lists(steps, min_size=1, max_size=12))


_fresh = itertools.count()


def check_store(
    make_store: Callable[[], BucketStore],
    clock: Clock,
    *,
    run: str = "",
    examples: int = 100,
    longest_pause: float = 3.0,
    tolerance: float = DEFAULT_TOLERANCE,
) -> None:
    """Run the properties against the stores that `make_store` gives. Raises AssertionError.

    clock: the one that the store lives by, or one that runs as fast (its `sleep` passes the pauses). run:
    makes the keys unique where several runs share a server. longest_pause: seconds; keep it small on a real
    clock.
    """

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_scripts(longest_pause))
    def holds(script: tuple[list[tuple[float, float]], list[tuple]]) -> None:
        limits, steps = script
        store = make_store()
        example = f"{run}{next(_fresh)}"
        start = clock.monotonic()
        models = [Model(r, b, b, b, start, start, start) for r, b in limits]
        for pause, chosen, cost, debit in steps:
            if pause:
                clock.sleep(pause)
            _check_take(store, clock, example, [(i, models[i]) for i in chosen], cost, debit, tolerance)

    holds()


def _check_take(
    store: BucketStore,
    clock: Clock,
    example: str,
    chosen: list[tuple[int, Model]],
    cost: float,
    debit: bool,
    tolerance: float,
) -> None:
    charges = [Charge(f"limit{i}:{example}", m.rate, m.burst, cost) for i, m in chosen]
    before = clock.monotonic()
    taken = store.take(charges, debit=debit)
    after = clock.monotonic()
    bounds = [model.refilled(before, after) for _, model in chosen]
    assert len(taken.waits) == len(taken.balances) == len(charges)
    assert taken.passed is not any(taken.waits)

    if taken.passed:
        assert all(high >= cost - tolerance for _, high in bounds), "passed although a bucket was short"
    else:
        assert any(low < cost + tolerance for low, _ in bounds), "denied although every bucket could pay"
    spent = cost if taken.passed and debit else 0.0

    for (_, model), (low, high), wait, balance in zip(chosen, bounds, taken.waits, taken.balances, strict=True):
        assert low - spent - tolerance <= balance <= high - spent + tolerance
        if cost > model.burst:
            assert math.isinf(wait)
        else:
            assert max(0.0, cost - high - tolerance) / model.rate <= wait
            assert wait <= max(0.0, cost - low + tolerance) / model.rate
        model.low = model.high = balance
        model.since, model.until = before, after
        model.admitted += spent
        assert model.admitted <= model.burst + model.rate * (after - model.born) + tolerance * 12
