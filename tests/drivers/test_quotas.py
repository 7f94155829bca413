"""What the engine has put into a real Redis, as an operator reads and changes it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from peers.process import HOST, free_port
from peers.redis import Redis
from peers.rediskinds import Cluster, Sentinel, TlsRedis

from smtpgate.clock import SystemClock
from smtpgate.drivers.quotas import PAGE, Banned, Bucket, Places, Quotas, Seen
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import open_store
from smtpgate.policy.model import Slot
from smtpgate.policy.store import Charge, Claim, Penalty, StoreUnavailable

NEVER = 1e-9  # tokens a second: no refill within a test


@pytest.fixture
def store(redis_server: Redis) -> Iterator[RedisBuckets]:
    opened = open_store(redis_server.uri, clock=SystemClock(), timeout=5.0)
    assert isinstance(opened, RedisBuckets)
    yield opened
    opened.close()


@pytest.fixture
def quotas(redis_server: Redis) -> Iterator[Quotas]:
    quotas = Quotas(redis_server.uri)
    yield quotas
    quotas.close()


def near(value: float) -> Any:
    return pytest.approx(value, abs=0.5)


def in_about(seconds: float) -> Any:
    """Some of them have passed."""
    return pytest.approx(seconds, abs=15.0)


def test_a_bucket_is_told_as_of_now(store: RedisBuckets, quotas: Quotas) -> None:
    store.take([Charge("msgs:ann", 10.0, 100.0, 50.0)])
    (first,) = quotas.of("msgs", "ann")
    assert isinstance(first, Bucket)
    assert 50.0 <= first.tokens < 100.0
    assert first == Bucket("msgs", "ann", first.tokens, 100.0, 10.0, near((100.0 - first.tokens) / 10.0), 0)
    time.sleep(0.2)
    (later,) = quotas.of("msgs", "ann")
    assert isinstance(later, Bucket)
    assert later.tokens >= first.tokens + 2.0
    assert quotas.of("msgs", "bob") == []


def test_everything_of_one_subject(store: RedisBuckets, quotas: Quotas) -> None:
    penalty = Penalty("ann", "fail p.yaml:3", ban=60.0, after="fail/after:ann", denials=3.0, within=600.0)
    store.take([Charge("fail:ann", NEVER, 1.0, 1.0, member="x", penalty=penalty)])
    store.take([], claims=[Claim("fail:ann", 5, "h1"), Claim("conns:ann", 5, "h1")])
    store.take([Charge("fail:ann", NEVER, 1.0, 1.0, member="y", penalty=penalty)])
    bucket, after, places, seen, ban = quotas.of("fail", "ann")
    assert bucket == Bucket("fail", "ann", near(0.0), 1.0, NEVER, in_about(1.0 / NEVER), 1)
    assert after == Bucket("fail/after", "ann", near(2.0), 3.0, near(3.0 / 600.0), in_about(200.0), 0)
    assert places == Places("fail", "ann", 1, in_about(60.0))
    assert seen == Seen("fail", "ann", 1)
    assert ban == Banned("ann", "fail", "p.yaml:3", in_about(60.0))
    # A ban is the subject's, but was made by one limit.
    assert [type(item) for item in quotas.of("conns", "ann")] == [Places]


@pytest.mark.parametrize("kind", [TlsRedis, Cluster, Sentinel])
def test_other_kinds_of_stores(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    peer = kind(tmp_path / "peer")
    store = open_store(peer.uri, clock=SystemClock(), timeout=5.0)
    assert isinstance(store, RedisBuckets)
    store.take([Charge("msgs:ann", NEVER, 10.0, 8.0)], claims=[Claim("conns:ann", 5, "h1")])
    quotas = Quotas(peer.uri)
    assert [type(item) for item in quotas.find()] == [Bucket, Places]
    assert quotas.grant("msgs", "ann", 1.0) is not None
    assert quotas.of("msgs", "ann") == [Bucket("msgs", "ann", near(3.0), 10.0, NEVER, in_about(7.0 / NEVER), 0)]
    assert (quotas.reset("msgs", "ann"), quotas.unban("ann")) == (1, False)
    quotas.close()
    store.close()
    peer.stop()


def test_leases_that_have_ended_are_not_there(store: RedisBuckets, quotas: Quotas) -> None:
    slots = [Slot("conns", "conns:ann", f"h{i}") for i in range(3)]
    store.renew(slots, 60.0)
    store.renew(slots[:1], 0.05)
    time.sleep(0.1)
    assert quotas.of("conns", "ann") == [Places("conns", "ann", 2, in_about(60.0))]
    store.renew(slots[1:], 0.05)
    time.sleep(0.1)
    assert quotas.of("conns", "ann") == []


def test_find_by_patterns_and_over_many_pages(store: RedisBuckets, quotas: Quotas, redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.uri) as client:
        client.set("other:tb:{rl}:msgs:ann", "not ours")
        for i in range(3 * PAGE):
            client.set(f"elsewhere{i}", "x")
    for i in range(PAGE + 3):
        store.take([Charge(f"msgs:u{i}", NEVER, 5.0)])
    store.take([Charge("user.msgs:a*[b]?", NEVER, 5.0), Charge("msgs:2001:db8::/64", NEVER, 5.0)])
    found = list(quotas.find())
    assert len(found) == len({(item.limit, item.subject) for item in found}) == PAGE + 5
    assert [item.subject for item in quotas.find("msgs", "2001:*")] == ["2001:db8::/64"]
    assert [item.subject for item in quotas.find("user.*")] == ["a*[b]?"]
    assert [item.subject for item in quotas.find("user.msgs", "a\\*\\[b\\]\\?")] == ["a*[b]?"]
    assert {item.subject for item in quotas.find("msgs", "u[12]")} == {"u1", "u2"}
    assert list(quotas.find("nothing")) == []


def test_reset_forgets_one_subject(store: RedisBuckets, quotas: Quotas) -> None:
    penalty = Penalty("ann", "msgs p.yaml:3", ban=60.0, after="msgs/after:ann", denials=3.0, within=600.0)
    for user in ("ann", "bob"):
        for _ in range(2):
            store.take(
                [Charge(f"msgs:{user}", NEVER, 1.0, member=str(_), penalty=penalty if user == "ann" else None)]
            )
    store.renew([Slot("msgs", "msgs:ann", "h1")])
    assert quotas.reset("msgs", "ann") == 4
    assert [type(item) for item in quotas.of("msgs", "ann")] == [Banned]
    assert quotas.reset("msgs", "ann") == 0
    assert len(quotas.of("msgs", "bob")) == 2
    assert quotas.unban("ann")
    assert not quotas.unban("ann")
    assert store.take([Charge("msgs:ann", NEVER, 1.0)]).passed


def test_grant_fills_up_to_the_burst(store: RedisBuckets, quotas: Quotas) -> None:
    assert quotas.grant("msgs", "ann", 5.0) is None
    store.take([Charge("msgs:ann", NEVER, 10.0, 8.0)])
    granted = quotas.grant("msgs", "ann", 5.0)
    assert granted is not None
    assert [bucket.tokens for bucket in granted] == [near(2.0), near(7.0)]
    granted = quotas.grant("msgs", "ann", 50.0)
    assert granted is not None
    assert granted[1].tokens == 10.0
    assert store.take([Charge("msgs:ann", NEVER, 10.0, 10.0)]).passed


def test_a_bucket_that_never_refills(store: RedisBuckets, quotas: Quotas) -> None:
    store.take([Charge("msgs:ann", 0.0, 10.0, 4.0)])
    (bucket,) = quotas.of("msgs", "ann")
    assert isinstance(bucket, Bucket)
    assert (bucket.tokens, bucket.full_in) == (6.0, math.inf)


def test_a_ban_that_an_operator_wrote_by_hand(quotas: Quotas, redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.uri) as client:
        client.set("smtpgate:ban:{rl}:192.0.2.1", "auth.fail.net by hand", ex=60)
        client.set("smtpgate:ban:{rl}:192.0.2.2", "for ever")
    banned = {item.subject: item for item in quotas.find()}
    assert banned["192.0.2.1"] == Banned("192.0.2.1", "auth.fail.net", "by hand", in_about(60.0))
    assert banned["192.0.2.2"] == Banned("192.0.2.2", "for", "ever", math.inf)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
def test_a_store_that_gives_no_answer(scheme: str) -> None:
    path = "/mymaster" if scheme == "redis+sentinel" else ""
    quotas = Quotas(f"{scheme}://:hunter2@{HOST}:{free_port()}{path}", patience=0.5)
    for question in (lambda: list(quotas.find()), lambda: quotas.reset("a", "b"), lambda: quotas.unban("b")):
        with pytest.raises(StoreUnavailable) as caught:
            question()
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(quotas)
    quotas.close()


def test_memory_is_nobody_elses() -> None:
    with pytest.raises(ValueError, match="kept by each process for itself"):
        Quotas("memory://")
