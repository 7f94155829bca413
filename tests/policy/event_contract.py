"""What every store must hold for whole events: charges with all their terms, claims, bans, refunds, releases.

`check_events(make_store)` plays random scripts of them at rates so slow that no time passes, and follows each with a
model of sets and counters. Held for every script, with the items of an event in any order:
* no event passes while a bucket or a slot that is enforced refuses, or a ban stands; and no other is denied;
* slots never go above their amount; what a denied event asked for is as free as before;
* a shadow refuses nothing, is not refused with the others, and is charged where the answer is final;
* a refusal counts, escalates and bans exactly when the client hears of it.

`check_cases(make_store)` says the corners of it in plain examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpgate.policy.model import Slot
from smtpgate.policy.store import SLOT_WAIT, BanCheck, BucketStore, Charge, Claim, Penalty, Taken

# Tokens. Redis' numbers travel as decimal text.
TOLERANCE = 1e-6
# Tokens a second: no refill within a test.
NEVER = 1e-9

BURST = 3
AMOUNT = 2
DENIALS = 2
BUCKETS = tuple("abc")
PLACES = tuple("xy")
SUBJECTS = ("s", "t")


_fresh = itertools.count()


@dataclass
class World:
    """What the model knows: tokens and members of each bucket, holders of each place, bans and counted refusals."""

    tokens: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BUCKETS, float(BURST)))
    members: dict[str, set[str]] = field(default_factory=lambda: {key: set() for key in BUCKETS})
    holders: dict[str, set[str]] = field(default_factory=lambda: {key: set() for key in PLACES})
    bans: dict[str, str] = field(default_factory=dict)
    rests: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    charges: tuple[Charge, ...]
    claims: tuple[Claim, ...]
    bans: tuple[BanCheck, ...]
    debit: bool
    count: bool


_HOLDS = st.sampled_from([0.0, 0.0, SLOT_WAIT / 2, 1e12])


@st.composite
def _penalties(draw: st.DrawFn, key: str) -> Penalty | None:
    if draw(st.booleans()):
        return None
    after = f"{key}/after" if draw(st.booleans()) else ""
    return Penalty(
        subject=draw(st.sampled_from(SUBJECTS)),
        note=f"{key} p.yaml:1",
        # Of different length for each limit: on a running clock a ban as long as a standing one outlasts it.
        ban=draw(st.sampled_from([0.0, 500.0 + 10 * ord(key)])),
        after=after,
        denials=float(DENIALS) if after else 0.0,
        within=DENIALS / NEVER if after else 0.0,
        after_ban=draw(st.sampled_from([0.0, 5000.0 + 10 * ord(key)])),
        after_note=f"{key}/after p.yaml:1",
    )


@st.composite
def _asks(draw: st.DrawFn) -> Ask:
    charges = [
        Charge(
            key,
            NEVER,
            BURST,
            cost=draw(st.sampled_from([1.0, 1.0, 2.0, 4.0])),
            shadow=draw(st.sampled_from([False, False, True])),
            member=draw(st.sampled_from([None, None, "m", "n"])),
            hold=draw(_HOLDS),
            queued=draw(st.sampled_from([False, False, False, True])),
            penalty=draw(_penalties(key)),
        )
        for key in draw(st.lists(st.sampled_from(BUCKETS), unique=True))
    ]
    claims = [
        Claim(
            key,
            AMOUNT,
            draw(st.sampled_from("hijk")),
            shadow=draw(st.sampled_from([False, False, True])),
            hold=draw(_HOLDS),
            queued=draw(st.sampled_from([False, False, False, True])),
            penalty=draw(_penalties(key)),
        )
        for key in draw(st.lists(st.sampled_from(PLACES), unique=True, min_size=0 if charges else 1))
    ]
    names = st.lists(st.sampled_from(BUCKETS + PLACES), unique=True)
    bans = [BanCheck(s, tuple(draw(names))) for s in draw(st.lists(st.sampled_from(SUBJECTS), unique=True))]
    return Ask(
        tuple(charges),
        tuple(claims),
        tuple(bans),
        draw(st.sampled_from([True, True, True, False])),
        draw(st.booleans()),
    )


_BACK = st.one_of(
    st.tuples(st.just("give"), st.sampled_from(BUCKETS), st.sampled_from([1.0, 5.0])),
    st.tuples(st.just("release"), st.sampled_from(PLACES), st.sampled_from("hijk")),
    st.tuples(st.just("renew"), st.sampled_from(PLACES), st.sampled_from("hijk")),
)


def check_events(make_store: Callable[[], BucketStore], *, run: str = "", examples: int = 100) -> None:
    """As check_store, for whole events. The store's clock may run or stand."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(_asks(), _asks(), _BACK), min_size=1, max_size=14))
    def holds(script: list[Any]) -> None:
        store, world = make_store(), World()
        example = f"{run}{next(_fresh)}"
        for step in script:
            if isinstance(step, Ask):
                _check_event(store, world, example, step)
            else:
                _give_back(store, world, example, *step)

    holds()


def _give_back(store: BucketStore, world: World, example: str, what: str, key: str, detail: Any) -> None:
    name = f"{key}:{example}"
    if what == "give":
        store.give([Charge(name, NEVER, BURST, detail)])
        world.tokens[key] = min(float(BURST), world.tokens[key] + detail)
    elif what == "release":
        store.release([Slot(key, name, detail)])
        world.holders[key].discard(detail)
    elif len(world.holders[key] | {detail}) <= AMOUNT:  # a renewal beyond the amount is true, and no admission
        store.renew([Slot(key, name, detail)])
        world.holders[key].add(detail)


def _check_event(store: BucketStore, world: World, example: str, ask: Ask) -> None:
    taken = store.take(
        [_of(example, charge) for charge in ask.charges],
        debit=ask.debit,
        count=ask.count,
        claims=[_of(example, claim) for claim in ask.claims],
        bans=[replace(check, subject=f"{check.subject}:{example}") for check in ask.bans],
    )
    costs = [0.0 if c.member in world.members[c.key] else c.cost for c in ask.charges]
    short = [
        bool(cost) and (c.queued or world.tokens[c.key] < cost) for c, cost in zip(ask.charges, costs, strict=True)
    ]
    free = [0 if claim.queued else AMOUNT - len(world.holders[claim.key]) for claim in ask.claims]
    refusing = [c for c, is_short in zip(ask.charges, short, strict=True) if is_short and not c.shadow]
    full = [claim for claim, places in zip(ask.claims, free, strict=True) if not places and not claim.shadow]
    banned = any(world.bans.get(check.subject) in check.limits for check in ask.bans)

    assert taken.passed is not bool(banned or refusing or full)
    assert [bool(wait) for wait in taken.waits] == short
    assert list(taken.costs) == costs
    assert list(taken.free) == free
    assert [ban and ban.limit for ban in taken.bans] == [world.bans.get(check.subject) for check in ask.bans]

    final = taken.passed or banned or _told(taken, ask, refusing)
    escalated = []
    if (ask.debit or ask.count) and final and not banned:
        escalated = [f"{i.key}:{example}" for i in (*refusing, *full) if i.penalty and _punished(world, i.penalty)]
    assert sorted(taken.escalated) == sorted(escalated)
    if ask.debit:
        for charge, cost, is_short in zip(ask.charges, costs, short, strict=True):
            if not is_short and (taken.passed or (charge.shadow and final)):
                world.tokens[charge.key] -= cost
                if cost and charge.member is not None:
                    world.members[charge.key].add(charge.member)
        for claim, places in zip(ask.claims, free, strict=True):
            if places and taken.passed:
                world.holders[claim.key].add(claim.holder)
    for charge, balance in zip(ask.charges, taken.balances, strict=True):
        assert abs(balance - world.tokens[charge.key]) < TOLERANCE


def _of(example: str, item: Any) -> Any:
    """The item with its keys made those of one example."""
    penalty = item.penalty
    if penalty is not None:
        after = f"{penalty.after}:{example}" if penalty.after else ""
        penalty = replace(penalty, subject=f"{penalty.subject}:{example}", after=after)
    return replace(item, key=f"{item.key}:{example}", penalty=penalty)


def _told(taken: Taken, ask: Ask, refusing: list[Charge]) -> bool:
    """The longest wait gives the words; whoever may be held for it does not hear them."""
    longest, hold = 0.0, 0.0
    for charge, wait in zip(ask.charges, taken.waits, strict=True):
        if charge in refusing and wait > longest:
            longest, hold = wait, charge.hold
    for claim, free in zip(ask.claims, taken.free, strict=True):
        if not free and not claim.shadow and longest < SLOT_WAIT:
            longest, hold = SLOT_WAIT, claim.hold
    return longest > hold


def _punished(world: World, penalty: Penalty) -> bool:
    """Counts the refusal; is it an escalated one? The longer ban stands."""
    by, seconds, escalated = penalty.note.split()[0], penalty.ban, False
    if penalty.after:
        escalated = world.refusals.get(penalty.after, 0) >= DENIALS
        if not escalated:
            world.refusals[penalty.after] = world.refusals.get(penalty.after, 0) + 1
        elif penalty.after_ban:
            seconds = penalty.after_ban
    if seconds > world.rests.get(penalty.subject, 0.0):
        world.rests[penalty.subject] = seconds
        world.bans[penalty.subject] = by
    return escalated


# --- corners ---


def check_cases(make_store: Callable[[], BucketStore], *, run: str = "") -> None:
    """Each case by itself, on keys of its own."""
    for case in (_held_refusal, _final_refusal, _seen_member, _longer_ban, _watching_penalty, _refused_place):
        case(make_store(), f"{run}{next(_fresh)}")


def _banned(store: BucketStore, subject: str) -> str | None:
    ban = store.take([], bans=[BanCheck(subject, ())]).bans[0]
    return ban and ban.note


def _refusal(x: str, hold: float) -> list[Charge]:
    """A charge that is short by a billion seconds, and one that only watches."""
    penalty = Penalty(x, f"a{x} f:1", ban=60.0, after=f"a/after:{x}", denials=1.0, within=1.0 / NEVER)
    return [Charge(f"a:{x}", NEVER, 3.0, 2.0, hold=hold, penalty=penalty), Charge(f"w:{x}", NEVER, 3.0, shadow=True)]


def _held_refusal(store: BucketStore, x: str) -> None:
    """Who may be held has not been refused: nothing is counted, nobody is banned, no shadow is charged."""
    store.take([Charge(f"a:{x}", NEVER, 3.0, 2.0)])
    for _ in range(3):
        held = store.take(_refusal(x, hold=1e12))
        assert (held.passed, held.escalated, round(held.balances[1])) == (False, (), 3)
    assert _banned(store, x) is None


def _final_refusal(store: BucketStore, x: str) -> None:
    """Who hears a refusal is counted; what watches is charged on its own account."""
    store.take([Charge(f"a:{x}", NEVER, 3.0, 2.0)])
    refused = [store.take(_refusal(x, hold=1.0)) for _ in range(4)]
    assert [round(taken.balances[1]) for taken in refused] == [2, 1, 0, 0]
    assert [taken.escalated for taken in refused] == [(), *[(f"a:{x}",)] * 3]
    assert _banned(store, x) == f"a{x} f:1"
    look = store.take(_refusal(x, hold=1.0), debit=False)
    assert (round(look.balances[0]), look.escalated) == (1, ())


def _seen_member(store: BucketStore, x: str) -> None:
    """What was seen before is free also for whoever comes while others are held."""
    for queued, cost in ((False, 1.0), (True, 0.0)):
        taken = store.take([Charge(f"a:{x}", NEVER, 1.0, member="m", queued=queued)])
        assert (taken.passed, taken.costs) == (True, (cost,))
    assert not store.take([Charge(f"a:{x}", NEVER, 1.0, member="n", queued=True)]).passed


def _longer_ban(store: BucketStore, x: str) -> None:
    for name, seconds in (("a", 60.0), ("b", 900.0), ("c", 60.0)):
        store.take([Charge(f"{name}:{x}", NEVER, 1.0, 2.0, penalty=Penalty(x, f"{name} f:1", ban=seconds))])
    assert _banned(store, x) == "b f:1"


def _watching_penalty(store: BucketStore, x: str) -> None:
    """Even if a shadow had a penalty, it would not act."""
    penalty = Penalty(x, "a f:1", ban=60.0)
    taken = store.take(
        [Charge(f"a:{x}", NEVER, 1.0, 2.0, shadow=True, penalty=penalty), Charge(f"b:{x}", NEVER, 1.0, 2.0)],
        claims=[Claim(f"c:{x}", 0, "h", shadow=True, penalty=penalty)],
    )
    assert not taken.passed
    assert _banned(store, x) is None


def _refused_place(store: BucketStore, x: str) -> None:
    """A place that is taken escalates as a bucket does; a place beside a refusal stays free, watching or not."""
    penalty = Penalty(x, "c f:1", after=f"c/after:{x}", denials=1.0, within=1.0 / NEVER)
    claims = [Claim(f"c:{x}", 1, "h", penalty=penalty), Claim(f"d:{x}", 1, "h"), Claim(f"w:{x}", 1, "h", shadow=True)]
    store.take([], claims=[replace(claims[0], holder="other")])
    assert [store.take([], claims=claims).escalated for _ in range(2)] == [(), (f"c:{x}",)]
    assert store.take([], claims=claims, debit=False).free == (0, 1, 1)
