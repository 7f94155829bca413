"""Token buckets in a real Redis: what the keys look like, what is counted, and what happens when it goes
away.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fakes import ManualClock
from limits.errors import ConfigurationError
from limits.storage import RedisStorage
from peers.process import Process
from peers.redis import Redis

from smtpgate.clock import SystemClock
from smtpgate.drivers.metricsvalues import Families
from smtpgate.drivers.redisstore import MAX_BATCH, Breaker, RedisBuckets
from smtpgate.drivers.store import open_storage, open_store
from smtpgate.policy.model import Slot
from smtpgate.policy.rules import Breaker as BreakerNumbers
from smtpgate.policy.rules import Limiter
from smtpgate.policy.store import LEASE, Ban, BanCheck, Charge, Claim, Penalty, StoreUnavailable
from smtpgate.policy.storeuri import parse_store_uri
from tests.policy.event_contract import check_cases, check_events
from tests.policy.store_contract import check_store

NEVER = 1e-9  # tokens a second: no refill within a test


class Journal:
    """Remembers the names of events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append(event)

    warning = error = info


@pytest.fixture
def client(redis_server: Redis) -> Iterator[Any]:
    """The operator's redis-cli."""
    with redis.Redis.from_url(redis_server.uri, decode_responses=True) as client:
        yield client


@pytest.fixture
def store(redis_server: Redis) -> Iterator[RedisBuckets]:
    store = buckets(redis_server.uri)
    yield store
    store.close()


def buckets(uri: str, **options: Any) -> RedisBuckets:
    opened = open_store(uri, clock=SystemClock(), **{"timeout": 5.0, **options})
    assert isinstance(opened, RedisBuckets)
    return opened


def key(name: str) -> str:
    return "smtpgate:tb:{rl}:" + name


# --- the script ---


def test_the_contract_of_every_store(redis_server: Redis, store: RedisBuckets) -> None:
    check_store(lambda: store, SystemClock(), run="r", examples=60, longest_pause=0.02)
    check_events(lambda: store, run="e", examples=60)
    check_cases(lambda: store, run="c")


def test_decisions_are_timed_and_failures_counted(tmp_path: Path) -> None:
    families = Families()
    peer = Redis(tmp_path)
    store = buckets(peer.uri, families=families)
    try:
        store.take([Charge("timed", NEVER, 10.0)])
        store.give([Charge("timed", NEVER, 10.0)])  # for which nobody waits
    finally:
        peer.stop()
    with pytest.raises(StoreUnavailable):
        store.take([Charge("timed", NEVER, 10.0)])
    (failures,), (seconds,) = families.counters, families.histograms
    cell = seconds.cells[()]
    assert failures.values == {(): 1}
    assert sum(cell.counts) == 2
    assert 0.0 < cell.sum < 5.0


def test_memory_decides_too_soon_to_be_timed() -> None:
    families = Families()
    open_store("memory://", clock=SystemClock(), families=families)
    assert families == Families()


def test_a_unix_socket_is_the_same_store(redis_server: Redis, store: RedisBuckets) -> None:
    unix = buckets(redis_server.unix_uri + "?db=0")
    store.take([Charge("a", NEVER, 10.0)])
    assert unix.take([Charge("a", NEVER, 10.0)]).balances == (pytest.approx(8.0),)
    unix.close()


def test_a_bucket_reads_as_a_quota(store: RedisBuckets, client: Any) -> None:
    before = time.time()
    store.take([Charge("user.msgs.min:ann@example.com", 0.5, 10.0, 2.5)])
    bucket = client.hgetall(key("user.msgs.min:ann@example.com"))
    assert list(bucket) == ["tokens", "ts", "rate", "cap"]
    assert (bucket["tokens"], bucket["rate"], bucket["cap"]) == ("7.5", "0.5", "10")
    assert re.fullmatch(r"[0-9]+\.[0-9]{6}", bucket["ts"])
    assert before - 1 < float(bucket["ts"]) < time.time() + 1


def test_small_numbers_are_plain_decimals_too(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("daily", 1 / 86400, 2.0, 1.99999)])
    assert client.hmget(key("daily"), "tokens", "rate") == ["0.00001", "0.000011574"]


@pytest.mark.parametrize(
    ("rate", "burst", "cost", "ttl"),
    [
        (0.5, 10.0, 1.0, 2_000 + 1_000),  # 1 token at 0.5/s
        (0.5, 10.0, 10.0, 20_000 + 1_000),
        (1000.0, 10.0, 1.0, 1 + 1_000),
        (1e-9, 10.0, 10.0, 366 * 24 * 3600 * 1000),  # 317 years, cut
    ],
)
def test_a_key_lives_until_its_bucket_is_full(
    store: RedisBuckets, client: Any, rate: float, burst: float, cost: float, ttl: int
) -> None:
    store.take([Charge("a", rate, burst, cost)])
    assert ttl - 500 < client.pttl(key("a")) <= ttl


def test_almost_enough_is_not_enough(store: RedisBuckets) -> None:
    store.take([Charge("a", NEVER, 1.0, 1e-6)])
    assert store.take([Charge("a", NEVER, 1.0)]).waits == (pytest.approx(1e-6 / NEVER, rel=0.01),)


def test_looking_writes_nothing(store: RedisBuckets, client: Any) -> None:
    taken = store.take([Charge("a", 1.0, 10.0), Charge("b", 1.0, 2.0, 5.0)], debit=False)
    assert (taken.waits, taken.balances) == ((0.0, math.inf), (10.0, 2.0))
    assert client.dbsize() == 0


def test_a_denial_debits_nothing_and_is_counted_where_it_is_short(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("short", NEVER, 3.0, 3.0), Charge("rich", NEVER, 3.0)])
    before = client.hgetall(key("short"))
    for _ in range(4):
        taken = store.take([Charge("rich", NEVER, 3.0), Charge("short", NEVER, 3.0)])
        assert taken.waits[0] == 0.0
        assert taken.waits[1] == pytest.approx(1e9, rel=1e-6)
        assert taken.balances == pytest.approx((2.0, 0.0), abs=1e-6)
    assert client.hgetall(key("short")) == {**before, "denied": "4"}
    assert client.hget(key("rich"), "denied") is None
    assert client.hget(key("rich"), "tokens") == "2"


def test_a_denial_of_a_bucket_that_is_not_there_is_counted_and_goes(store: RedisBuckets, client: Any) -> None:
    assert store.take([Charge("a", 1.0, 2.0, 5.0)]).waits == (math.inf,)
    assert client.hmget(key("a"), "tokens", "denied") == ["2", "1"]
    assert 0 < client.pttl(key("a")) <= 1000


def test_hammering_does_not_drown_a_slow_refill(store: RedisBuckets) -> None:
    """Each refusal is 1e-9 of a token after the last: written down each time it would round to nothing."""
    slow = Charge("slow", 1e-5, 1.0, 1e-6)
    store.take([Charge("slow", 1e-5, 1.0, 1.0)])
    began = time.monotonic()
    while not store.take([slow]).passed:
        assert time.monotonic() - began < 30.0
    assert time.monotonic() - began >= 0.09


def test_an_edited_limit_keeps_its_balance(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("a", NEVER, 10.0, 4.0)])
    assert store.take([Charge("a", NEVER, 100.0)], debit=False).balances == (pytest.approx(6.0),)
    assert store.take([Charge("a", NEVER, 3.0)]).balances == (pytest.approx(2.0),)
    assert client.hmget(key("a"), "tokens", "cap") == ["2", "3"]


def test_an_edit_to_a_slower_rate_finds_what_was_spent_within_its_time(store: RedisBuckets) -> None:
    store.take([Charge("a", 0.1, 2.0, 2.0)])
    # It would be full after 20 s; until then an edit finds the tokens that are left.
    assert store.take([Charge("a", NEVER, 2.0)]).balances == (pytest.approx(0.0, abs=1e-2),)


def test_tokens_can_be_given_back_up_to_the_burst(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("a", NEVER, 10.0, 4.0)])
    for left in (9.0, 10.0):
        store.give([Charge("a", NEVER, 10.0, 3.0), Charge("full", NEVER, 10.0, 3.0)])
        assert store.take([Charge("a", NEVER, 10.0)], debit=False).balances == (pytest.approx(left),)
    assert client.keys() == [key("a")]


def test_a_clock_that_went_back_adds_nothing(store: RedisBuckets, client: Any) -> None:
    """A failover to a server whose clock is an hour behind."""
    store.take([Charge("a", 1.0, 1000.0, 500.0)])
    client.hset(key("a"), "ts", f"{time.time() + 3600:.6f}")
    assert store.take([Charge("a", 1.0, 1000.0)]).balances == (499.0,)
    assert float(client.hget(key("a"), "ts")) < time.time() + 1


def test_who_is_refused_after_a_clock_went_back_waits_as_long_as_told(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("a", 20.0, 1.0)])
    client.hset(key("a"), "ts", f"{time.time() + 3600:.6f}")
    assert store.take([Charge("a", 20.0, 1.0)]).waits == (0.05,)
    time.sleep(0.06)
    assert store.take([Charge("a", 20.0, 1.0)]).passed


def test_nothing_asked_is_nothing_sent(store: RedisBuckets, client: Any) -> None:
    assert store.take([]).passed
    assert "cmdstat_evalsha" not in client.info("commandstats")


def test_a_script_that_redis_forgot_is_loaded_again(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("a", NEVER, 10.0)])
    client.script_flush()
    assert store.take([Charge("a", NEVER, 10.0)]).balances == (pytest.approx(8.0),)


# --- slots, members, bans, networks ---


def test_a_slot_is_a_member_with_a_deadline(store: RedisBuckets, client: Any) -> None:
    before = time.time()
    for holder in ("node:1", "node:2"):
        assert store.take([], claims=[Claim("ip.conns:192.0.2.1", 2, holder)]).passed
    assert not store.take([], claims=[Claim("ip.conns:192.0.2.1", 2, "node:3")]).passed
    name = "smtpgate:cc:{rl}:ip.conns:192.0.2.1"
    leases = dict(client.zrange(name, 0, -1, withscores=True))
    assert list(leases) == ["node:1", "node:2"]
    assert all(before + LEASE - 1 < deadline < time.time() + LEASE + 1 for deadline in leases.values())
    assert LEASE * 1000 < client.pttl(name) <= LEASE * 1000 + 1000
    store.release([Slot("ip.conns", "ip.conns:192.0.2.1", holder) for holder in ("node:1", "node:2", "never")])
    assert client.keys() == []


def test_a_slot_is_free_after_its_lease_unless_it_is_renewed(store: RedisBuckets) -> None:
    slots = [Slot("c", "c:s", holder) for holder in "ab"]
    store.renew(slots, 0.15)
    store.renew(slots[:1], 30.0)
    assert store.take([], claims=[Claim("c:s", 2, "c")]).free == (0,)
    time.sleep(0.16)
    assert store.take([], claims=[Claim("c:s", 2, "c")]).free == (1,)


def test_values_seen_are_remembered_within_bounds(store: RedisBuckets, client: Any) -> None:
    for member in ("0badcafe", "0badcafe", "deadbeef"):
        store.take([Charge("fails:s", 0.1, 20.0, member=member)])
    name = "smtpgate:ds:{rl}:fails:s"
    assert client.zrange(name, 0, -1) == ["0badcafe", "deadbeef"]
    assert 199_000 < client.pttl(name) <= 201_000
    assert float(client.hget(key("fails:s"), "tokens")) == pytest.approx(18.0, abs=0.1)
    client.zadd(name, {f"other{i}": time.time() + 100 for i in range(2000)})
    store.take([Charge("fails:s", 0.1, 20.0, member="last")])
    assert client.zcard(name) == 1024
    client.zadd(name, {member: time.time() - 1 for member in client.zrange(name, 0, 999)})
    store.take([Charge("fails:s", 0.1, 20.0, member="later")])
    assert client.zcard(name) == 25


def test_a_ban_names_the_limit_and_ends_with_its_key(store: RedisBuckets, client: Any) -> None:
    store.take([Charge("f:net", 1.0, 1.0, 2.0, penalty=Penalty("net", "f limits.yaml:12", ban=900.0))])
    assert client.get("smtpgate:ban:{rl}:net") == "f limits.yaml:12"
    assert 899_000 < client.pttl("smtpgate:ban:{rl}:net") <= 900_000
    found = store.take([], bans=[BanCheck("net", ("f",))])
    assert (found.passed, found.bans) == (False, (Ban(pytest.approx(900.0, abs=1.0), "f limits.yaml:12"),))
    client.delete("smtpgate:ban:{rl}:net")
    assert store.take([], bans=[BanCheck("net", ("f",))]).passed


@pytest.mark.parametrize(
    ("value", "note"), [("f", "f"), ("f by hand,\nfor now", "f by hand, for now"), (b"f \xff", "f \ufffd"), ("", "")]
)
def test_a_ban_that_an_operator_has_set(store: RedisBuckets, client: Any, value: Any, note: str) -> None:
    client.set("smtpgate:ban:{rl}:net", value)
    found = store.take([], bans=[BanCheck("net", ("f",))])
    assert (found.passed, found.bans) == (not note, (Ban(math.inf, note),))


def test_a_ban_without_an_end_is_the_longest(store: RedisBuckets, client: Any) -> None:
    client.set("smtpgate:ban:{rl}:net", "other by hand")
    store.take([Charge("f:net", 1.0, 1.0, 2.0, penalty=Penalty("net", "f limits.yaml:12", ban=900.0))])
    assert (client.get("smtpgate:ban:{rl}:net"), client.pttl("smtpgate:ban:{rl}:net")) == ("other by hand", -1)


def test_whoever_goes_on_after_an_escalation_meets_nothing_milder(store: RedisBuckets) -> None:
    penalty = Penalty("s", "x f:1", after="x/after:s", denials=2.0, within=0.3)
    short = Charge("x:s", NEVER, 1.0, 2.0, penalty=penalty)
    said = []
    for _ in range(30):
        said.append(bool(store.take([short]).escalated))
        time.sleep(0.01)
    assert all(said[said.index(True) :])


def test_refusals_are_counted_in_a_bucket_of_their_own(store: RedisBuckets, client: Any) -> None:
    penalty = Penalty(
        "s", "x f:1", after="x/after:s", denials=2.0, within=600.0, after_ban=60.0, after_note="x/after f:1"
    )
    short = Charge("x:s", NEVER, 1.0, 2.0, penalty=penalty)
    assert [store.take([short], debit=False, count=True).escalated for _ in range(3)] == [(), (), ("x:s",)]
    assert client.hmget(key("x/after:s"), "cap", "rate") == ["2", "0.003333333"]
    assert client.get("smtpgate:ban:{rl}:s") == "x/after f:1"
    assert client.hget(key("x:s"), "denied") == "3"


def test_networks_are_noted_within_bounds(store: RedisBuckets, client: Any) -> None:
    for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"):
        store.note("ann", net, 60.0, keep=2)
        time.sleep(0.002)
    nets = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]
    assert [store.seen("ann", net) for net in nets] == [False, True, True]
    assert 60_000 < client.pttl("smtpgate:net:{rl}:ann") <= 61_000
    store.note("ann", "192.0.2.0/24", 0.01, keep=2)
    time.sleep(0.02)
    assert not store.seen("ann", "192.0.2.0/24")


def test_nothing_in_redis_outlives_its_use(store: RedisBuckets, client: Any) -> None:
    penalty = Penalty("s", "x f:1", ban=60.0, after="x/after:s", denials=2.0, within=600.0)
    store.take([Charge("x:s", 1.0, 1.0, 2.0, penalty=penalty)], claims=[Claim("c:s", 1, "h")])
    store.take([Charge("y:s", 1.0, 9.0, member="m")], claims=[Claim("c:s", 1, "h")])
    store.note("ann", "net", 60.0, 16)
    names = client.keys()
    assert len(names) == 7
    assert all(client.pttl(name) > 0 for name in names)


# --- edited while it runs ---


def test_an_edited_timeout_opens_other_connections_and_keeps_the_rest(redis_server: Redis) -> None:
    opened = []

    def open_it(timeout: float) -> RedisStorage:
        opened.append(timeout)
        return open_storage(parse_store_uri(redis_server.uri), timeout)

    store = RedisBuckets(open_it, SystemClock(), timeout=5.0)
    store.take([Charge("a", NEVER, 10.0)])
    store.configure(Limiter(timeout=5.0))
    store.take([Charge("a", NEVER, 10.0)])
    assert opened == [5.0]
    store.configure(Limiter(timeout=2.0))
    assert store.take([Charge("a", NEVER, 10.0)]).balances == (pytest.approx(7.0),)
    assert opened == [5.0, 2.0]
    store.close()


def test_an_edit_elsewhere_forgets_no_failure() -> None:
    clock = ManualClock()
    breaker = Breaker(clock)
    store = RedisBuckets(lambda timeout: pytest.fail("opened"), clock, breaker=breaker)
    one = Limiter(breaker=BreakerNumbers(errors=2, within=60.0, open_for=7.0))
    store.configure(one)
    assert not breaker.failed()
    store.configure(Limiter(local_share=0.1, breaker=one.breaker))
    assert breaker.failed()
    clock.time += 6.9
    assert not breaker.admit()
    clock.time += 0.1
    assert breaker.admit()


# --- many at once ---


def test_two_processes_share_a_bucket_exactly(scenario: Any, redis_server: Redis) -> None:
    start = time.time() + 1.5
    arguments = {"uri": redis_server.uri, "burst": 300.0, "greenlets": 50, "each": 10, "start": start}
    one, two = [scenario("spend", **arguments) for _ in range(2)]
    seen = [one.result(), two.result()]
    assert sum(result.get("passed", 0) for result in seen) == 300
    assert sum(result.get("denied", 0) for result in seen) == 2 * 50 * 10 - 300


def test_a_crowd_shares_calls_and_each_gets_its_own_answer(scenario: Any, redis_server: Redis, client: Any) -> None:
    crowd = 200
    result = scenario("crowd", uri=redis_server.uri, greenlets=crowd).result()
    assert result["outcomes"] == ["denied" if i % 2 else "passed" for i in range(crowd)]
    assert result["balances"] == pytest.approx([10.0 if i % 2 else 9.0 for i in range(crowd)])
    # One to fill, one that met NOSCRIPT, `crowd` to look one by one at the end; the rest is the crowd itself.
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - 1 - 1 - crowd
    assert math.ceil(crowd / MAX_BATCH) <= calls <= 10


@pytest.mark.parametrize("greenlets", [1, 100])
def test_a_stalled_redis_costs_each_caller_little_and_charges_nobody_twice(
    scenario: Any, redis_server: Redis, greenlets: int
) -> None:
    result = scenario("stalled", uri=redis_server.uri, pid=redis_server.pid, greenlets=greenlets).result()
    assert result["outcomes"] == ["unavailable"] * greenlets
    # 50 ms for the reply, 100 ms in all; the rest is a busy machine.
    assert result["longest"] < 0.4
    assert all(left == pytest.approx(10.0) or left == pytest.approx(9.0) for left in result["left"])


def test_greenlets_that_die_leave_the_rest_in_order(scenario: Any, redis_server: Redis) -> None:
    result = scenario("killed", uri=redis_server.uri, pid=redis_server.pid).result()
    assert result["outcomes"] == ["passed"] * 9
    assert result["left"] == pytest.approx([9.0 - i for i in range(9)])
    # Two calls were in flight; of those who were still queued nobody is charged.
    assert result["charged"] <= 2 * MAX_BATCH
    assert result["store"] == "<RedisBuckets breaker closed, 0 in flight, 0 queued>"


def test_a_callers_own_timeout_passes_through(scenario: Any, redis_server: Redis) -> None:
    result = scenario("impatient", uri=redis_server.uri, pid=redis_server.pid).result()
    assert result == {"own": [True] * 10, "after": "passed"}


# --- going away and coming back ---


def test_what_limits_finds_wrong_with_a_cluster_only_when_asked_is_no_bug() -> None:
    def open_storage(timeout: float) -> Any:
        raise ConfigurationError("Unable to parse storage uri redis+cluster://ann:hunter2@127.0.0.1:99999")

    lines: list[dict[str, object]] = []
    journal = Journal()
    journal.error = lambda event, **fields: lines.append(fields)  # type: ignore[method-assign]
    clock = ManualClock()
    store = RedisBuckets(open_storage, clock, breaker=Breaker(clock, errors=1), journal=journal)
    with pytest.raises(StoreUnavailable) as caught:
        store.take([Charge("a", 1.0, 1.0)])
    assert str(caught.value) == "ConfigurationError: limits could not open the store"
    assert caught.value.__cause__ is None
    assert lines == [{"reason": str(caught.value)}]


def restart(server: Redis, folder: Path) -> None:
    """The same server again, on the same port."""
    Process.__init__(server, "redis", server._popen.args, folder)
    server.wait_for_port(server.port)


def test_down_at_start_then_up_then_restarted(redis_server: Redis, tmp_path: Path) -> None:
    """No retries, no exception but StoreUnavailable, and no restart of ours."""
    journal = Journal()
    store = buckets(redis_server.uri, breaker=Breaker(SystemClock(), errors=2, open_for=0.05), journal=journal)
    redis_server.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="Connection refused"):
            store.take([Charge("a", NEVER, 10.0)])
    with pytest.raises(StoreUnavailable, match="breaker is open"):
        store.take([Charge("a", NEVER, 10.0)])
    assert journal.events == ["store_down"]
    restart(redis_server, tmp_path / "redis")
    time.sleep(0.06)
    assert store.take([Charge("a", NEVER, 10.0)]).balances == (9.0,)
    assert journal.events == ["store_down", "store_up"]

    redis_server.kill()
    with pytest.raises(StoreUnavailable):
        store.take([Charge("a", NEVER, 10.0)])
    restart(redis_server, tmp_path / "redis")
    assert store.take([Charge("a", NEVER, 10.0)]).balances == (9.0,)
    store.close()


@pytest.mark.parametrize(
    ("setting", "value", "back", "error"),
    [
        ("maxmemory", "1", "0", "OutOfMemoryError"),
        ("min-replicas-to-write", "1", "0", "ResponseError: NOREPLICAS"),
    ],
)
def test_a_redis_that_cannot_write_is_as_good_as_none(
    redis_server: Redis, store: RedisBuckets, client: Any, setting: str, value: str, back: str, error: str
) -> None:
    store.take([Charge("a", NEVER, 10.0)])
    client.config_set(setting, value)
    with pytest.raises(StoreUnavailable, match=error):
        store.take([Charge("a", NEVER, 10.0)])
    client.config_set(setting, back)
    assert store.take([Charge("a", NEVER, 10.0)]).balances == (pytest.approx(8.0),)


def test_a_master_that_became_a_replica(redis_server: Redis, store: RedisBuckets, client: Any) -> None:
    store.take([Charge("a", NEVER, 10.0)])
    client.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="ReadOnlyError"):
        store.take([Charge("a", NEVER, 10.0)])
    client.replicaof("NO", "ONE")
    assert store.take([Charge("a", NEVER, 10.0)]).balances == (pytest.approx(8.0),)


# --- the breaker ---


def test_the_breaker_opens_after_errors_close_together() -> None:
    clock = ManualClock()
    breaker = Breaker(clock, errors=5, within=2.0, open_for=5.0)
    for _ in range(20):  # one error in 0.6 s: four in 2 s
        clock.time += 0.6
        assert not breaker.failed()
    assert breaker.admit()
    clock.time += 0.1
    assert breaker.failed()
    assert breaker.is_open
    assert not breaker.admit()


def test_an_open_breaker_lets_one_probe_through_in_each_period() -> None:
    clock = ManualClock()
    breaker = Breaker(clock, errors=1, open_for=5.0)
    assert breaker.failed()
    clock.time += 4.9
    assert not breaker.admit()
    clock.time += 0.1
    assert [breaker.admit() for _ in range(3)] == [True, False, False]
    clock.time += 5.0  # the probe never reported: killed with its session
    assert [breaker.admit() for _ in range(3)] == [True, False, False]
    assert not breaker.failed()  # still open: no news
    clock.time += 5.0
    assert breaker.admit()
    assert breaker.succeeded()
    assert [breaker.admit() for _ in range(3)] == [True, True, True]
    assert not breaker.succeeded()
