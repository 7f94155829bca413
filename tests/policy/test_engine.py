"""Plan, judge, and the engine around a store that answers, is short, or is away."""

from collections.abc import Sequence
from typing import Any

import pytest
from fakes import ManualClock

from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.compile import Source, compile_policy
from smtpgate.policy.engine import Engine, StoreMode, judge, plan, share
from smtpgate.policy.model import ALLOWED, Denial, Event, Facts, ReplyText
from smtpgate.policy.rules import Policy
from smtpgate.policy.schema import PolicyKeys
from smtpgate.policy.store import BucketStore, Charge, StoreUnavailable, Taken

SLOW = "450 4.7.1 rate limit {limit} ({rate}), retry in {retry}s"


def policy(limits: dict[str, dict[str, Any]], **keys: Any) -> Policy:
    """The limits with `event: mail`, `key: {user}` and a reply where they say nothing else."""
    whole = {
        name: {"event": "mail", "key": "{user}", "deny": {"reply": SLOW}, **limit} for name, limit in limits.items()
    }
    keys = {"version": 1, "limits": whole, **keys}
    source = Source(PolicyKeys.model_validate(keys), lambda path: f"p.yaml:{path[-1]}")
    compiled, faults = compile_policy([source])
    assert faults == []
    return compiled


ANN = Facts("192.0.2.7", user="ann", sender="a@b", sender_domain="b")
BOB = Facts("192.0.2.8", user="bob", sender="a@b", sender_domain="b")
NOBODY = Facts("192.0.2.9", sender="a@b", sender_domain="b")


class RecordingStore:
    """Passes calls on to a store; raises StoreUnavailable while `down`."""

    def __init__(self, store: BucketStore) -> None:
        self.store = store
        self.calls: list[tuple[tuple[Charge, ...], bool]] = []
        self.down = False

    def take(self, charges: Sequence[Charge], *, debit: bool = True) -> Taken:
        self.calls.append((tuple(charges), debit))
        if self.down:
            raise StoreUnavailable("no answer in 50 ms")
        return self.store.take(charges, debit=debit)


class Bench:
    """An engine on a manual clock, with what it told and asked."""

    def __init__(self, policy: Policy, *, jitter: float = 0.0) -> None:
        self.clock = ManualClock()
        self.store = RecordingStore(MemoryBuckets(self.clock))
        self.modes: list[StoreMode] = []
        self.engine = Engine(
            self.store,
            self.clock,
            lambda: jitter,
            policy=policy,
            host="mx.example.com",
            on_mode=self.modes.append,
        )

    def mails(self, facts: Facts, count: int) -> int:
        """How many of `count` are allowed."""
        return sum(self.engine.decide(Event.MAIL, facts).allowed for _ in range(count))


# --- plan ---------------------------------------------------------------------------------------------------


def test_all_limits_that_match_apply() -> None:
    compiled = policy(
        {
            "minute": {"rate": "30/1m", "burst": 10},
            "hour": {"rate": "600/1h", "burst": 100},
            "bob": {"rate": "1/1h", "match": {"user": "bob"}},
            "rcpts": {"event": "rcpt", "rate": "1/1h"},
            "net": {"rate": "1/1s", "key": "{net}", "burst": 4},
        }
    )
    planned = plan(compiled, Event.MAIL, ANN)
    assert [limit.name for limit in planned.limits] == ["minute", "hour", "net"]
    assert planned.charges == (
        Charge("minute:ann", 0.5, 10.0),
        Charge("hour:ann", 600 / 3600, 100.0),
        Charge("net:192.0.2.7", 1.0, 4.0),
    )


@pytest.mark.parametrize(
    ("limit", "facts", "applies"),
    [
        ({}, NOBODY, False),  # a limit for each user does not concern who has none
        ({"key": "{net}"}, NOBODY, True),
        ({"key": "{net}", "match": {"auth": False}}, NOBODY, True),
        ({"key": "{net}", "match": {"auth": False}}, ANN, False),
        ({"key": "{net}", "match": {"listener": "mx"}}, ANN, False),  # not known: not certain
        ({"key": "{net}", "match": {"listener": "!mx"}}, ANN, False),
    ],
)
def test_a_limit_applies_only_where_that_is_certain(limit: dict[str, Any], facts: Facts, applies: bool) -> None:
    planned = plan(policy({"x": {"rate": "1/1s", **limit}}), Event.MAIL, facts)
    assert bool(planned.charges) is applies


# --- judge --------------------------------------------------------------------------------------------------


def _judged(deny: dict[str, Any], wait: float, jitter: float = 0.0) -> Denial:
    compiled = policy({"x": {"rate": "30/1m", "burst": 10, "deny": {"reply": SLOW, **deny}}})
    planned = plan(compiled, Event.MAIL, ANN)
    denial = judge(planned, Taken((wait,), (0.25,)), jitter=jitter, host="h").denial
    assert denial is not None
    return denial


def test_a_denial_tells_all() -> None:
    assert _judged({"close": True, "delay": "2s"}, 1.5) == Denial(
        limit="x",
        subject="ann",
        reply=ReplyText(450, "4.7.1", "rate limit x (30/1m), retry in 2s"),
        retry=1.5,
        delay=2.0,
        close=True,
        balance=0.25,
        source="p.yaml:x",
    )


@pytest.mark.parametrize(
    ("jitter", "retry", "text"), [(0.0, 100.0, "100s"), (0.5, 105.0, "105s"), (1.0, 110.0, "110s")]
)
def test_retry_carries_jitter(jitter: float, retry: float, text: str) -> None:
    denial = _judged({}, 100.0, jitter)
    assert denial.retry == pytest.approx(retry)
    assert denial.reply.text.endswith(text)


@pytest.mark.parametrize(
    ("deny", "wait", "delay"),
    [
        ({}, 30.0, 0.0),
        ({"delay": "2s"}, 30.0, 2.0),
        ({"delay": "2s", "max_delay": "15s"}, 0.5, 2.0),
        ({"delay": "2s", "max_delay": "15s"}, 7.0, 7.0),
        ({"delay": "2s", "max_delay": "15s"}, 30.0, 15.0),
    ],
)
def test_delay(deny: dict[str, Any], wait: float, delay: float) -> None:
    assert _judged(deny, wait).delay == delay


def test_the_longest_wait_is_the_one_that_is_told() -> None:
    compiled = policy({"a": {"rate": "1/1s"}, "b": {"rate": "1/1h"}, "c": {"rate": "1/1m"}})
    planned = plan(compiled, Event.MAIL, ANN)
    decision = judge(planned, Taken((1.0, 3600.0, 60.0), (0.0, 0.0, 0.0)), jitter=0.0, host="h")
    assert decision.denial is not None
    assert (decision.denial.limit, decision.denial.retry) == ("b", 3600.0)


# --- engine -------------------------------------------------------------------------------------------------


def test_burst_then_rate() -> None:
    bench = Bench(policy({"x": {"rate": "60/1m", "burst": 10}}))
    assert bench.mails(ANN, 15) == 10
    assert bench.mails(BOB, 15) == 10
    bench.clock.sleep(3.0)
    assert bench.mails(ANN, 15) == 3


def test_a_denied_event_debits_nothing() -> None:
    bench = Bench(policy({"wide": {"rate": "1/1h", "burst": 5}, "narrow": {"rate": "1/1m", "burst": 1}}))
    assert bench.mails(ANN, 50) == 1
    bench.clock.sleep(60.0)
    assert bench.mails(ANN, 50) == 1
    bench.clock.sleep(60.0)
    assert bench.mails(ANN, 50) == 1


def test_one_store_call_an_event_and_none_without_limits() -> None:
    bench = Bench(policy({f"l{i}": {"rate": "1/1s"} for i in range(8)}))
    bench.engine.decide(Event.MAIL, ANN)
    assert [len(charges) for charges, _ in bench.store.calls] == [8]
    assert bench.engine.decide(Event.MAIL, NOBODY) is ALLOWED
    assert bench.engine.decide(Event.EOD, ANN) is ALLOWED
    assert len(bench.store.calls) == 1


def test_a_look_does_not_debit() -> None:
    bench = Bench(policy({"x": {"rate": "1/1h"}}))
    for _ in range(3):
        assert bench.engine.decide(Event.MAIL, ANN, debit=False).allowed
    assert bench.engine.decide(Event.MAIL, ANN).allowed
    assert not bench.engine.decide(Event.MAIL, ANN, debit=False).allowed
    assert [debit for _, debit in bench.store.calls] == [False, False, False, True, False]


def test_a_swap_keeps_balances() -> None:
    bench = Bench(policy({"x": {"rate": "1/1h", "burst": 5}}))
    assert bench.mails(ANN, 9) == 5
    bench.engine.swap(policy({"x": {"rate": "60/1m", "burst": 100}}))
    assert bench.mails(ANN, 9) == 0
    bench.clock.sleep(2.0)
    assert bench.mails(ANN, 9) == 2
    bench.engine.swap(policy({}))
    assert bench.mails(ANN, 9) == 9


def test_a_decision_keeps_the_policy_that_it_began_with() -> None:
    """The store lets other greenlets run; a reload there must not judge one policy's charges by another's."""
    bench = Bench(policy({"x": {"rate": "1/1h"}}))
    bench.mails(ANN, 1)
    ask = bench.store.take

    def reload_meanwhile(charges: Sequence[Charge], *, debit: bool = True) -> Taken:
        bench.engine.swap(policy({}))
        return ask(charges, debit=debit)

    bench.store.take = reload_meanwhile  # type: ignore[method-assign]
    denial = bench.engine.decide(Event.MAIL, ANN).denial
    assert denial is not None
    assert denial.limit == "x"
    assert bench.engine.policy.limits == {}


def test_store_away_mail_flows_at_the_local_share() -> None:
    bench = Bench(policy({"x": {"rate": "60/1m", "burst": 10}, "one": {"rate": "60/1m", "burst": 60}}))
    assert bench.mails(ANN, 1) == 1
    assert bench.modes == []
    bench.store.down = True
    assert bench.mails(ANN, 20) == 5  # half of the burst
    bench.clock.sleep(4.0)
    assert bench.mails(ANN, 20) == 2  # half of the rate
    assert bench.modes == [StoreMode.LOCAL]
    assert bench.engine.mode is StoreMode.LOCAL
    bench.store.down = False
    assert bench.mails(ANN, 20) == 10  # not merged back: the store's own balance
    assert bench.modes == [StoreMode.LOCAL, StoreMode.SHARED]


def test_store_away_is_asked_once_an_event() -> None:
    bench = Bench(policy({"x": {"rate": "1/1s"}}))
    bench.store.down = True
    bench.engine.decide(Event.MAIL, ANN)
    bench.engine.decide(Event.MAIL, ANN, debit=False)
    assert len(bench.store.calls) == 2


@pytest.mark.parametrize(("part", "burst"), [(1.0, 4.0), (0.5, 2.0), (0.25, 1.0), (0.01, 1.0)])
def test_a_share_still_pays_for_one(part: float, burst: float) -> None:
    assert share([Charge("k", 2.0, 4.0)], part) == (Charge("k", 2.0 * part, burst),)


def test_local_share_is_the_operators() -> None:
    bench = Bench(policy({"x": {"rate": "100/1m", "burst": 100}}, limiter={"local_share": 0.2}))
    bench.store.down = True
    assert bench.mails(ANN, 100) == 20


def test_without_a_policy_all_is_allowed() -> None:
    engine = Engine(MemoryBuckets(ManualClock()), ManualClock(), lambda: 0.0)
    assert engine.decide(Event.CONNECT, Facts("192.0.2.1")) is ALLOWED
