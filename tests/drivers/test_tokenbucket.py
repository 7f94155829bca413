"""The buckets as a strategy of `limits`: the same answers over memory and over Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from limits import parse
from limits.limits import GRANULARITIES
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES, RateLimiter

from smtpgate.clock import SystemClock
from smtpgate.drivers.tokenbucket import TokenBucketRateLimiter

TEN = parse("10/hour")


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest) -> Iterator[TokenBucketRateLimiter]:
    if request.param == "memory":
        yield TokenBucketRateLimiter(storage_from_string("memory://"))  # type: ignore[arg-type]
        return
    storage: Any = storage_from_string(request.getfixturevalue("redis_server").uri)
    yield TokenBucketRateLimiter(storage)
    storage.get_connection().close()


def test_it_is_a_limits_rate_limiter_and_registers_nothing(limiter: TokenBucketRateLimiter) -> None:
    assert isinstance(limiter, RateLimiter)
    assert set(STRATEGIES) == {"fixed-window", "moving-window", "sliding-window-counter"}
    assert set(GRANULARITIES) == {"second", "minute", "hour", "day", "month", "year"}


def test_a_burst_then_no_more(limiter: TokenBucketRateLimiter) -> None:
    assert [limiter.hit(TEN, "ann") for _ in range(11)] == [True] * 10 + [False]
    assert limiter.hit(TEN, "ben")
    assert not limiter.test(TEN, "ann")
    assert limiter.test(TEN, "ben", cost=9)
    assert not limiter.test(TEN, "ben", cost=10)


def test_a_refused_hit_costs_nothing(limiter: TokenBucketRateLimiter) -> None:
    assert limiter.hit(TEN, "ann", cost=6)
    assert not limiter.hit(TEN, "ann", cost=5)
    assert limiter.hit(TEN, "ann", cost=4)


def test_stats_tell_what_is_left_and_when_it_is_full(limiter: TokenBucketRateLimiter) -> None:
    now = SystemClock().now()
    assert limiter.get_window_stats(TEN, "ann").remaining == 10
    assert limiter.get_window_stats(TEN, "ann").reset_time == pytest.approx(now, abs=5)
    limiter.hit(TEN, "ann", cost=3)
    stats = limiter.get_window_stats(TEN, "ann")
    assert stats.remaining == 7
    assert stats.reset_time == pytest.approx(now + 3 * 360, abs=5)


def test_clear_fills_the_bucket(limiter: TokenBucketRateLimiter) -> None:
    limiter.hit(TEN, "ann", cost=10)
    limiter.clear(TEN, "ann")
    assert limiter.get_window_stats(TEN, "ann").remaining == 10
    assert [limiter.hit(TEN, "ann") for _ in range(11)] == [True] * 10 + [False]


def test_an_edited_amount_keeps_the_bucket_another_period_is_another(limiter: TokenBucketRateLimiter) -> None:
    limiter.hit(TEN, "ann", cost=10)
    assert not limiter.hit(parse("20/hour"), "ann")
    assert limiter.hit(parse("10/day"), "ann")
    assert limiter.hit(parse("10/2 hour"), "ann")
