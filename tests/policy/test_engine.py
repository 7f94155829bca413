"""The engine around a store that answers, is short, or is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from callcount import calls
from fakes import ManualClock

from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import RENEW_BATCH, SETTLE, Counts, Engine, StoreMode
from smtpgate.policy.model import ALLOWED, Event, Facts, Shape, Slot, grown
from smtpgate.policy.rules import Breaker, Kind, Limiter, OnError
from smtpgate.policy.select import Policy
from smtpgate.policy.store import LEASE, SLOT_WAIT, Charge, StoreUnavailable, Taken
from tests.policy.handmade import ANN, BOB, NOBODY, limit, policy


class RecordingStore(MemoryBuckets):
    """Keeps what it was asked; raises StoreUnavailable while `down`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.calls: list[str] = []
        self.asked: list[Sequence[Charge]] = []
        self.limiters: list[Limiter] = []
        self.down = False

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise StoreUnavailable("no answer in 50 ms")

    def take(self, charges: Sequence[Charge], **how: Any) -> Taken:
        self.asked.append(charges)
        self._called("take")
        return super().take(charges, **how)

    def give(self, charges: Sequence[Charge]) -> None:
        self._called("give")
        super().give(charges)

    def release(self, slots: Sequence[Slot]) -> None:
        self._called("release")
        super().release(slots)

    def renew(self, slots: Sequence[Slot], lease: float = LEASE) -> None:
        self._called("renew")
        super().renew(slots, lease)

    def configure(self, limiter: Limiter) -> None:
        self.limiters.append(limiter)


class Bench:
    """An engine on a manual clock, with what it told and asked."""

    def __init__(self, policy: Policy, *, jitter: float = 0.0, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = RecordingStore(self.clock)
        self.modes: list[StoreMode] = []
        self.engine = Engine(
            self.store,
            self.clock,
            lambda: jitter,
            policy=policy,
            host="mx.example.com",
            on_mode=self.modes.append,
            token=lambda octets: "ab" * octets,
            **options,
        )
        self.decide = self.engine.decide

    def mails(self, facts: Facts, count: int) -> int:
        """How many of `count` are allowed."""
        return sum(self.decide(Event.MAIL, facts).allowed for _ in range(count))


def hourly(burst: float, name: str = "x", **terms: Any) -> Policy:
    return policy(limit(name, rate=1 / 3600, burst=burst, **terms))


# --- one decision ---


def test_burst_then_rate() -> None:
    bench = Bench(policy(limit("x", rate=1.0, burst=10.0)))
    assert bench.mails(ANN, 15) == 10
    assert bench.mails(BOB, 15) == 10
    bench.clock.sleep(3.0)
    assert bench.mails(ANN, 15) == 3


def test_a_denied_event_debits_nothing() -> None:
    bench = Bench(policy(limit("wide", rate=1 / 3600, burst=5.0), limit("narrow", rate=1 / 60, burst=1.0)))
    assert bench.mails(ANN, 50) == 1
    for _ in range(2):
        bench.clock.sleep(60.0)
        assert bench.mails(ANN, 50) == 1


def test_one_store_call_an_event_and_none_without_limits() -> None:
    names = [limit(f"l{i}", rate=1.0, burst=1.0) for i in range(8)]
    bench = Bench(policy(*names, limit("c", amount=1), limit("b", rate=1.0, burst=1.0, deny={"ban": 60.0})))
    bench.decide(Event.MAIL, ANN)
    assert bench.store.calls == ["take"]
    assert bench.decide(Event.MAIL, NOBODY) == ALLOWED
    assert bench.decide(Event.EOD, ANN) is ALLOWED
    assert bench.store.calls == ["take"]


def test_caps_and_shapes_need_no_store() -> None:
    cap = limit("m", Event.RCPT, kind=Kind.MAX, amount=2)
    shape = limit("up", Event.DATA, kind=Kind.SHAPE, rate=1000.0, burst=1000.0, deny=None)
    bench = Bench(policy(cap, shape))
    assert [bench.decide(Event.RCPT, grown(ANN, recipients=n)).allowed for n in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert bench.decide(Event.DATA, ANN).shapes == (Shape("up", "up:ann", 1000.0, 1000.0),)
    assert bench.store.calls == []


def test_an_event_without_limits_costs_nothing_and_a_decision_what_its_limits_need() -> None:
    """Calls, which no busy machine changes; what a decision is made of is made once for each limit and subject."""

    def cost(event: Event, count: int) -> int:
        bench = Bench(policy(*[limit(f"l{i}", rate=1.0, burst=100.0) for i in range(count)]))
        bench.decide(event, ANN)
        return calls(bench.decide, event, ANN)

    assert cost(Event.EOD, 4) == calls(lambda: None)
    assert (cost(Event.MAIL, 8) - cost(Event.MAIL, 4)) / 4 <= 24


def test_a_look_does_not_debit() -> None:
    bench = Bench(hourly(1.0))
    for _ in range(3):
        assert bench.decide(Event.MAIL, ANN, debit=False) == ALLOWED
    assert bench.decide(Event.MAIL, ANN).allowed
    assert not bench.decide(Event.MAIL, ANN, debit=False).allowed


def test_a_look_that_refuses_bans_unless_it_is_told_to_change_nothing() -> None:
    """The auth service looks before it verifies a password: a refusal there is one."""
    bench = Bench(policy(limit("f", Event.AUTH_FAIL, rate=0.1, burst=1.0, deny={"ban": 60.0})))
    assert bench.decide(Event.AUTH_FAIL, ANN).allowed
    assert not bench.decide(Event.AUTH_FAIL, ANN, debit=False, count=False).allowed
    assert bench.decide(Event.CONNECT, ANN).allowed
    assert not bench.decide(Event.AUTH_FAIL, ANN, debit=False).allowed
    denial = bench.decide(Event.CONNECT, ANN).denial
    assert denial is not None
    assert (denial.limit, denial.wait) == ("f", 60.0)
    assert bench.engine.counters == {"f": Counts(checked=2, denied=2)}


def test_a_session_that_is_held_waits_its_turn() -> None:
    held: list[str] = []
    bench = Bench(policy(limit("x", rate=1.0, burst=1.0, deny={"hold": 5.0})), waiting=held.__contains__)
    assert bench.decide(Event.MAIL, ANN).allowed
    first = bench.decide(Event.MAIL, ANN).denial
    assert first is not None
    assert (first.hold, first.wait) == (5.0, 1.0)
    held.append("x:ann")
    bench.clock.sleep(1.0)
    second = bench.decide(Event.MAIL, ANN).denial
    assert second is not None
    assert (second.hold, second.wait, second.balance) == (5.0, 1.0, 1.0)
    assert bench.decide(Event.MAIL, BOB).allowed
    assert bench.decide(Event.MAIL, ANN, turn=True).allowed
    assert bench.engine.counters["x"] == Counts(checked=5)


def test_a_place_that_became_free_is_for_who_waited_for_it() -> None:
    held: list[str] = []
    bench = Bench(policy(limit("c", amount=1, deny={"hold": 5.0})), waiting=held.__contains__)
    slots = bench.decide(Event.MAIL, ANN).slots
    held.append("c:ann")
    bench.engine.release(slots)
    newcomer = bench.decide(Event.MAIL, ANN).denial
    assert newcomer is not None
    assert (newcomer.hold, newcomer.wait) == (5.0, SLOT_WAIT)
    assert bench.decide(Event.MAIL, ANN, turn=True).allowed


def test_a_refusal_counts_when_it_is_told() -> None:
    bench = Bench(policy(limit("x", rate=1.0, burst=1.0, deny={"hold": 5.0, "ban": 60.0})))
    bench.decide(Event.MAIL, ANN)
    for hold in (None, 1.0):
        assert bench.decide(Event.MAIL, ANN, hold=hold).denial.hold > 0.0  # type: ignore[union-attr]
    assert bench.engine.counters["x"].denied == 0
    for refusal in (bench.decide(Event.MAIL, ANN, turn=True), bench.decide(Event.MAIL, ANN)):
        assert refusal.denial is not None
        assert refusal.denial.hold == 0.0
    assert refusal.denial.wait == 60.0  # banned
    assert bench.engine.counters["x"].denied == 2


def test_shadows_never_act() -> None:
    bench = Bench(
        policy(
            limit("r", rate=0.1, burst=1.0, shadow=True, deny={"ban": 60.0}),
            limit("c", amount=1, shadow=True),
            limit("m", kind=Kind.MAX, amount=0, shadow=True),
        )
    )
    assert bench.mails(ANN, 5) == 5
    assert {name: c.shadow_denied for name, c in bench.engine.counters.items()} == {"r": 4, "c": 4, "m": 5}
    assert {name: c.denied for name, c in bench.engine.counters.items()} == {"r": 0, "c": 0, "m": 0}


def test_jitter_is_drawn_for_what_is_told() -> None:
    bench = Bench(hourly(1.0), jitter=0.5)
    bench.mails(ANN, 1)
    denial = bench.decide(Event.MAIL, ANN).denial
    assert denial is not None
    assert (denial.retry, denial.wait) == (pytest.approx(3780.0), pytest.approx(3600.0))


def test_new_subjects_above_the_budget_share_buckets() -> None:
    limiter = Limiter(new_keys=0.0, new_keys_burst=2.0)
    conns = limit("n", Event.CONNECT, rate=0.1, burst=1.0, overflow_key="{ip/24/48}")
    bench = Bench(policy(conns, limiter=limiter))
    clients = [grown(ANN, client=f"192.0.2.{i}") for i in range(5)]
    assert [bench.decide(Event.CONNECT, one).allowed for one in clients] == [True, True, True, False, False]
    bench.clock.sleep(10.0)
    assert [bench.decide(Event.CONNECT, one).allowed for one in clients] == [True, True, True, False, False]


def test_without_a_policy_all_is_allowed() -> None:
    engine = Engine(MemoryBuckets(ManualClock()), ManualClock(), lambda: 0.0)
    assert engine.decide(Event.CONNECT, Facts("192.0.2.1")) is ALLOWED


# --- slots ---


def test_slots_are_held_until_they_are_released() -> None:
    bench = Bench(policy(limit("c", Event.CONNECT, amount=2)))
    one, two = (bench.decide(Event.CONNECT, ANN).slots for _ in range(2))
    assert (one, two) == ((Slot("c", "c:192.0.2.7", "ab" * 8 + ":1"),), (Slot("c", "c:192.0.2.7", "ab" * 8 + ":2"),))
    assert bench.engine.held == 2
    denial = bench.decide(Event.CONNECT, ANN).denial
    assert denial is not None
    assert (denial.limit, denial.balance) == ("c", 0.0)
    bench.engine.release(one)
    assert bench.decide(Event.CONNECT, ANN).allowed
    bench.engine.release(())
    assert bench.store.calls == ["take"] * 3 + ["release", "take"]


def test_slots_are_renewed_and_those_of_the_dead_expire() -> None:
    bench = Bench(policy(limit("c", Event.CONNECT, amount=2)))
    alive = bench.decide(Event.CONNECT, ANN).slots
    dead = bench.decide(Event.CONNECT, ANN).slots
    bench.store.down = True
    bench.engine.release(dead)  # the store does not hear of it
    bench.store.down = False
    for _ in range(4):
        bench.clock.sleep(20.0)
        bench.engine.renew()
    assert bench.engine.held == 1
    assert bench.decide(Event.CONNECT, ANN).allowed
    assert not bench.decide(Event.CONNECT, ANN).allowed
    bench.engine.release(alive)
    assert bench.decide(Event.CONNECT, ANN).allowed


def test_slots_are_renewed_in_batches_without_those_that_ended_meanwhile() -> None:
    bench = Bench(policy(limit("c", Event.CONNECT, amount=2 * RENEW_BATCH)))
    slots = [bench.decide(Event.CONNECT, ANN).slots for _ in range(2 * RENEW_BATCH)]
    renewed: list[int] = []

    def renew(batch: Sequence[Slot], lease: float = LEASE) -> None:
        renewed.append(len(batch))
        bench.engine.release(slots[-1])

    bench.store.renew = renew  # type: ignore[method-assign]
    bench.engine.renew()
    assert renewed == [RENEW_BATCH, RENEW_BATCH - 1]


def test_a_store_that_forgot_its_slots_learns_them_again() -> None:
    bench = Bench(policy(limit("c", Event.CONNECT, amount=1)))
    bench.decide(Event.CONNECT, ANN)
    bench.store._slots._sets.clear()  # a failover to an empty server
    bench.engine.renew()
    assert not bench.decide(Event.CONNECT, ANN).allowed


def test_whoever_cannot_tell_when_a_session_ends_takes_no_slot() -> None:
    bench = Bench(policy(limit("c", Event.AUTH, amount=1)))
    assert [bench.decide(Event.AUTH, ANN, slots=False).allowed for _ in range(3)] == [True] * 3
    assert bench.engine.held == 0


# --- refunds ---


def test_our_outage_gives_all_back_a_refusal_only_where_the_limit_says_so() -> None:
    bench = Bench(
        policy(limit("x", rate=1 / 3600, burst=1.0), limit("r", rate=1 / 3600, burst=1.0, refund_rejected=True))
    )
    for ours, allowed in ((True, True), (False, False)):
        decision = bench.decide(Event.MAIL, ANN)
        assert decision.allowed
        bench.engine.refund(decision.paid, ours=ours)
        again = bench.decide(Event.MAIL, ANN, debit=False)
        assert again.allowed is allowed
    assert again.denial is not None
    assert again.denial.limit == "x"
    assert {name: c.refunded for name, c in bench.engine.counters.items()} == {"x": 1, "r": 2}
    bench.engine.refund((), ours=True)
    assert bench.store.calls.count("give") == 2


def test_what_a_bucket_of_ours_paid_goes_back_there() -> None:
    bench = Bench(hourly(2.0))
    bench.store.down = True
    decision = bench.decide(Event.MAIL, ANN)
    assert (decision.allowed, bench.mails(ANN, 1)) == (True, 0)
    bench.engine.refund(decision.paid, ours=True)
    assert bench.mails(ANN, 2) == 1
    assert "give" not in bench.store.calls


def test_a_refund_of_ours_fills_no_faster_than_the_share() -> None:
    bench = Bench(policy(limit("x", rate=1.0, burst=100.0)))
    bench.store.down = True
    assert bench.mails(ANN, 100) == 50
    for _ in range(20):
        bench.clock.sleep(2.0)
        bench.engine.refund(bench.decide(Event.MAIL, ANN).paid, ours=True)
    assert bench.mails(ANN, 100) == 20


def test_a_value_that_was_tried_costs_once_whatever_became_of_it() -> None:
    """A mail server that refuses the first recipient of each domain makes none of them free."""
    bench = Bench(policy(limit("d", Event.RCPT, rate=1 / 3600, burst=2.0, distinct="{rcpt_domain}")))
    for domain in ("a.example", "b.example", "a.example", "b.example"):
        decision = bench.decide(Event.RCPT, grown(ANN, rcpt=f"x@{domain}", rcpt_domain=domain))
        assert decision.allowed
        bench.engine.refund(decision.paid, ours=False)
        bench.engine.refund(decision.paid, ours=True)
    assert not bench.decide(Event.RCPT, grown(ANN, rcpt="x@c.example", rcpt_domain="c.example")).allowed


def test_a_refund_that_the_store_does_not_hear_of_is_lost_and_not_counted() -> None:
    bench = Bench(hourly(1.0))
    decision = bench.decide(Event.MAIL, ANN)
    bench.store.down = True
    bench.engine.refund(decision.paid, ours=True)
    assert bench.store.calls.count("give") == 1
    assert bench.engine.counters["x"].refunded == 0


# --- policies come and go ---


def test_a_swap_keeps_balances() -> None:
    bench = Bench(hourly(5.0))
    assert bench.mails(ANN, 9) == 5
    bench.engine.swap(policy(limit("x", rate=1.0, burst=100.0)))
    assert bench.mails(ANN, 9) == 0
    bench.clock.sleep(2.0)
    assert bench.mails(ANN, 9) == 2
    bench.engine.swap(policy())
    assert bench.mails(ANN, 9) == 9


def test_a_swap_tells_the_store_and_forgets_the_counters_of_limits_that_are_gone() -> None:
    limiter = Limiter(timeout=0.2, breaker=Breaker(errors=9))
    bench = Bench(policy(limit("x", rate=1.0, burst=1.0), limit("y", rate=1.0, burst=1.0)))
    bench.mails(ANN, 1)
    bench.engine.swap(policy(limit("y", Event.RCPT, rate=1.0, burst=1.0), limiter=limiter))
    assert bench.store.limiters == [Limiter(), limiter]
    assert bench.engine.counters == {"y": Counts(checked=1)}


def test_a_decision_keeps_the_policy_that_it_began_with() -> None:
    """The store lets other greenlets run; a reload there must not judge one policy's charges by another's."""
    bench = Bench(hourly(1.0))
    bench.mails(ANN, 1)
    ask: Callable[..., Taken] = bench.store.take

    def reload_meanwhile(charges: Sequence[Charge], **how: Any) -> Taken:
        bench.engine.swap(policy())
        return ask(charges, **how)

    bench.store.take = reload_meanwhile  # type: ignore[method-assign]
    denial = bench.decide(Event.MAIL, ANN).denial
    assert denial is not None
    assert denial.limit == "x"
    assert bench.engine.policy.limits == {}


# --- the store is away ---


def test_store_away_mail_flows_at_the_local_share() -> None:
    bench = Bench(policy(limit("x", rate=1.0, burst=10.0), limit("one", rate=1.0, burst=60.0)))
    assert bench.mails(ANN, 1) == 1
    assert bench.modes == []
    bench.store.down = True
    assert bench.mails(ANN, 20) == 5  # half of the burst
    bench.clock.sleep(4.0)
    assert bench.mails(ANN, 20) == 2  # half of the rate
    assert bench.modes == [StoreMode.LOCAL]
    assert bench.engine.mode is StoreMode.LOCAL
    bench.store.down = False
    bench.clock.sleep(SETTLE)
    assert bench.mails(ANN, 20) == 10  # not merged back: the store's own balance
    assert bench.modes == [StoreMode.LOCAL, StoreMode.SHARED]


def test_a_store_that_is_late_now_and_then_is_told_once() -> None:
    bench = Bench(policy(limit("x", rate=1000.0, burst=1000.0)))
    for i in range(100):
        bench.store.down = i % 10 == 0
        bench.mails(ANN, 1)
        bench.clock.sleep(SETTLE / 20)
    assert bench.modes == [StoreMode.LOCAL]
    bench.clock.sleep(SETTLE)
    bench.mails(ANN, 1)
    assert bench.modes == [StoreMode.LOCAL, StoreMode.SHARED]


def test_store_away_is_asked_once_an_event() -> None:
    bench = Bench(hourly(1.0))
    bench.store.down = True
    bench.decide(Event.MAIL, ANN)
    bench.decide(Event.MAIL, ANN, debit=False)
    assert bench.store.calls == ["take", "take"]


def test_local_share_is_the_operators() -> None:
    bench = Bench(policy(limit("x", rate=1.0, burst=100.0), limiter=Limiter(local_share=0.2)))
    bench.store.down = True
    assert bench.mails(ANN, 100) == 20


@pytest.mark.parametrize(("on_error", "allowed"), [(OnError.LOCAL, 2), (OnError.ALLOW, 9), (OnError.TEMPFAIL, 0)])
def test_each_limit_says_what_it_does_without_the_store(on_error: OnError, allowed: int) -> None:
    bench = Bench(hourly(4.0, on_error=on_error))
    bench.store.down = True
    assert bench.mails(ANN, 9) == allowed
    assert bench.engine.counters["x"].denied == 9 - allowed


def test_one_limit_that_will_not_do_without_the_store_spares_the_others() -> None:
    bench = Bench(
        policy(
            limit("local", rate=1 / 3600, burst=4.0),
            limit("strict", Event.MAIL, rate=1.0, burst=1.0, key="{net}|{user}", on_error=OnError.TEMPFAIL),
        )
    )
    bench.store.down = True
    denial = bench.decide(Event.MAIL, ANN).denial
    assert denial is not None
    assert (denial.limit, denial.reply.code, denial.retry) == ("strict", 451, Limiter().breaker.open_for)
    bench.engine.swap(hourly(4.0, "local"))
    assert bench.mails(ANN, 9) == 2


def test_slots_are_counted_here_too() -> None:
    bench = Bench(policy(limit("c", Event.CONNECT, amount=4)))
    shared = [bench.decide(Event.CONNECT, ANN).slots for _ in range(2)]
    bench.store.down = True
    assert not bench.decide(Event.CONNECT, ANN).allowed  # half of four, and this process holds two
    bench.engine.release(shared[0])
    local = bench.decide(Event.CONNECT, ANN)
    assert local.allowed
    bench.store.down = False
    bench.engine.renew()  # now the store knows of it
    assert [bench.decide(Event.CONNECT, ANN).allowed for _ in range(3)] == [True, False, False]


def test_a_ban_of_ours_counts_while_the_store_is_away() -> None:
    bench = Bench(policy(limit("f", Event.AUTH_FAIL, rate=0.1, burst=1.0, deny={"ban": 60.0})))
    bench.store.down = True
    assert [bench.decide(Event.AUTH_FAIL, ANN).allowed for _ in range(2)] == [True, False]
    assert not bench.decide(Event.CONNECT, ANN).allowed
    assert bench.decide(Event.CONNECT, grown(ANN, client="192.0.2.99")).allowed


# --- shaping ---


def test_a_draw_pays_or_tells_how_long() -> None:
    bench = Bench(policy())
    shape = Shape("up", "up:ann", 1000.0, 4000.0)
    assert bench.engine.draw(shape, 3000) == 0.0
    assert bench.engine.draw(shape, 2000) == 1.0
    bench.clock.sleep(1.0)
    assert bench.engine.draw(shape, 2000) == 0.0
    bench.clock.sleep(4.0)
    assert bench.engine.draw(shape, 9000) == 0.0  # as the burst
    bench.store.down = True
    assert bench.engine.draw(shape, 2000) == 0.0
    assert bench.engine.draw(shape, 500) == 1.0  # half of the rate
    assert bench.engine.draw(replace(shape, local=False), 500) == 0.0
    assert bench.modes == [StoreMode.LOCAL]


def test_held_seconds_are_added_by_those_who_hold() -> None:
    bench = Bench(policy())
    for seconds in (1.5, 2.0):
        bench.engine.held_for("x", seconds)
    assert bench.engine.counters == {"x": Counts(held_seconds=3.5)}
