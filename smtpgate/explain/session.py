"""What the policies mean for one session, event by event: which lines of which files speak, and what they say now.

Owns no rule of its own: limits are chosen by `policy.select`, what they count is planned by `policy.plan`, the
refusal is worded by `policy.judge`, the route is taken by `routing.router`, as in a running proxy. Asks the store for
balances without taking anything. Knows no terminal: explanations are values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from smtpgate.clock import Clock
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.judge import judge
from smtpgate.policy.match import Matcher
from smtpgate.policy.model import Decision, Event, Facts, grown
from smtpgate.policy.plan import Asking, Plan, plan
from smtpgate.policy.rules import Cost, Kind, Limit
from smtpgate.policy.select import Policy, Rule, bans, exempting, overriding, select
from smtpgate.policy.store import NOTHING, BucketStore, Charge, Taken
from smtpgate.routing import router
from smtpgate.snapshot import Snapshot

Verdict = Literal["applies", "shadow", "exempt", "off", "no subject", "unknown", "no match"]

_ASKING: Final = Asking()
# Facts of each event beyond those of the one before it.
_LOGIN: Final = ("login", "method", "known_user", "known_net")
_USER: Final = ("user", "plan")
_MAIL: Final = ("helo", "sender", "sender_domain", "size", "transaction", "messages")
_RCPT: Final = ("rcpt", "rcpt_domain", "recipients")
_LATER: Final = {
    Event.CONNECT: (*_LOGIN, *_USER, *_MAIL, *_RCPT, "octets"),
    Event.AUTH: (*_MAIL, *_RCPT, "octets"),
    Event.AUTH_FAIL: (*_USER, *_MAIL, *_RCPT, "octets"),
    Event.MAIL: ("known_user", "known_net", *_RCPT, "octets"),
    Event.RCPT: ("known_user", "known_net", "octets"),
    Event.DATA: ("known_user", "known_net", "octets"),
    Event.EOD: ("known_user", "known_net"),
}
_NOTHING_YET: Final = Facts("")


@dataclass(frozen=True, slots=True)
class LimitSaid:
    """One limit. verdict: does it speak; source: its file and line. by: the lines of `exempt` or `overrides` that
    decide that, or change it. needs: fields that would have to be known. terms: its numbers, overrides worked in.
    now: tokens, or free places; None where nobody counts them or the store was not asked. of: the most that it could
    be. wait: seconds until the event could be paid.
    """

    limit: str
    verdict: Verdict
    source: str
    match: str
    by: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    terms: str = ""
    key: str = ""
    subject: str | None = None
    now: float | None = None
    of: float | None = None
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """What the client would be told, by which limit, if it came now. wait, hold, delay: seconds."""

    limit: str
    subject: str
    source: str
    reply: str
    wait: float
    hold: float
    delay: float
    close: bool


@dataclass(frozen=True, slots=True)
class EventSaid:
    """One event. shadow: limits that would refuse it if they acted."""

    event: str
    limits: tuple[LimitSaid, ...]
    refused: Refused | None
    shadow: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteSaid:
    """Where the message goes by `routes`. decided: no fact that is still to come changes it. backends: "name
    host:port".
    """

    route: str | None
    source: str
    pool: str | None
    decided: bool
    backends: tuple[str, ...]


def at_event(facts: Facts, event: Event) -> Facts:
    """What of the whole session's facts is known at an event."""
    unknown = {name: getattr(_NOTHING_YET, name) for name in _LATER[event]}
    if event is Event.MAIL or event in (Event.RCPT, Event.EOD, Event.DATA):
        unknown.setdefault("method", facts.method or "none")
    return grown(facts, **unknown)


def explain_event(
    policy: Policy, event: Event, facts: Facts, store: BucketStore | None, clock: Clock, *, host: str
) -> EventSaid:
    """facts: those of the event. store: None to leave balances out. Raises StoreUnavailable."""
    limits = select(policy, event, facts)
    planned = plan(
        event,
        facts,
        limits,
        bans(policy, event, facts),
        subject_of=lambda limit: _own_subject(limit, facts),
        waiting=lambda key: False,
        holder=lambda: "explain",
        asking=_ASKING,
    )
    asked = store or MemoryBuckets(clock)
    taken = NOTHING
    if planned.asks:
        taken = asked.take(planned.charges, debit=False, claims=planned.claims, bans=planned.checks)
    decision = judge(planned, taken, jitter=0.0, host=host, debit=False)
    balances = {} if store is None else _balances(planned, taken, store)
    chosen = {limit.name: limit for limit in limits}
    said = tuple(
        _limit(policy, rule, facts, chosen.get(rule.limit.name), balances) for rule in policy.rules.get(event, ())
    )
    return EventSaid(event.value, said, _refused(decision), tuple([one.limit for one in decision.shadow]))


def explain_route(snapshot: Snapshot, facts: Facts) -> RouteSaid:
    """facts: all that is known of the message."""
    choice = router.choose(snapshot.routes, facts)
    if choice.route is None:
        return RouteSaid(None, "", None, choice.decided, ())
    pool = snapshot.pools[choice.route.pool]
    backends = tuple(f"{one.name} {one.host}:{one.port}" for one in pool.backends)
    return RouteSaid(choice.route.name, choice.route.source, pool.name, choice.decided, backends)


# --- one limit ----------------------------------------------------------------------------------------------

# By limit: tokens or places now, and seconds until the event could be paid.
_Balances = dict[str, tuple[float, float]]


def _own_subject(limit: Limit, facts: Facts) -> tuple[str, bool] | None:
    """The subject whatever the budget of new ones is: one question is no flood."""
    subject = None if limit.key is None else limit.key.subject(facts)
    return None if subject is None else (subject, True)


def _balances(planned: Plan, taken: Taken, store: BucketStore) -> _Balances:
    found: _Balances = {}
    if taken.waits or taken.free:
        for bill, wait, balance in zip(planned.bills, taken.waits, taken.balances, strict=True):
            found[bill.limit.name] = (balance, wait)
        for bill, free in zip(planned.places, taken.free, strict=True):
            found[bill.limit.name] = (float(free), 0.0)
    shapes = planned.shapes
    if shapes:
        looked = store.take([Charge(one.key, one.rate, one.burst, 0.0) for one in shapes], debit=False)
        found |= {one.limit: (left, 0.0) for one, left in zip(shapes, looked.balances, strict=True)}
    return found


def _limit(policy: Policy, rule: Rule, facts: Facts, chosen: Limit | None, balances: _Balances) -> LimitSaid:
    limit = chosen or rule.limit
    said = LimitSaid(
        limit.name,
        "no match",
        limit.source,
        match_text(rule.match),
        terms=terms_text(limit),
        key="" if limit.key is None else limit.key.text,
    )
    answer = rule.match(facts)
    if answer is None:
        return replace(said, verdict="unknown", needs=missing(rule.match, facts))
    if answer is False:
        return said
    exemptions = exempting(policy, rule, facts)
    if exemptions:
        return replace(said, verdict="exempt", by=tuple([one.source for one in exemptions]))
    said = replace(said, by=tuple([one.source for one in overriding(policy, rule, facts)]))
    if chosen is None:
        return replace(said, verdict="off")
    subject = None if limit.key is None else limit.key.subject(facts)
    if subject is None and limit.kind is not Kind.MAX:
        return replace(said, verdict="no subject")
    now, wait = balances.get(limit.name, (None, None))
    most = float(limit.amount) if limit.kind in (Kind.CONCURRENCY, Kind.MAX) else limit.burst
    verdict: Verdict = "shadow" if limit.shadow else "applies"
    return replace(said, verdict=verdict, subject=subject, now=now, of=most, wait=wait)


def missing(match: Matcher, facts: Facts) -> tuple[str, ...]:
    """The fields that a match cannot do without."""
    return tuple([test.field.name for test in match.tests if test(facts) is None])


def match_text(match: Matcher) -> str:
    """A match in short, in canonical form: `user: @bulk, auth: true`; "" takes everything."""
    parts = []
    for test in match.tests:
        if hasattr(test, "wanted"):
            parts.append(f"{test.field.name}: {'true' if test.wanted else 'false'}")
        else:
            words = [*test.words, *(f"!{word}" for word in test.barred)]
            parts.append(
                f"{test.field.name}: {' '.join(words[:_SHOWN_WORDS])}{' …' if len(words) > _SHOWN_WORDS else ''}"
            )
    return ", ".join(parts)


_SHOWN_WORDS: Final = 3


def terms_text(limit: Limit) -> str:
    """`rate 30/1m burst 10`, `concurrency 20`, `max 100`, `shape 1MiB/1s burst 4194304`."""
    if limit.kind in (Kind.CONCURRENCY, Kind.MAX):
        return f"{limit.kind.value} {limit.rate_text}"
    cost = ""
    if isinstance(limit.cost, Cost):
        cost = f" cost {limit.cost.value}"
    elif limit.cost != 1.0:
        cost = f" cost {limit.cost:g}"
    return f"{limit.kind.value} {limit.rate_text} burst {limit.burst:.0f}{cost}"


def _refused(decision: Decision) -> Refused | None:
    denial = decision.denial
    if denial is None:
        return None
    reply = f"{denial.reply.code} {denial.reply.enhanced} {denial.reply.text}"
    return Refused(
        denial.limit,
        denial.subject,
        denial.source,
        reply,
        wait=denial.wait,
        hold=denial.hold,
        delay=denial.delay,
        close=denial.close,
    )


def without_matches(said: Sequence[LimitSaid]) -> list[LimitSaid]:
    """Those that have something to say of this session."""
    return [one for one in said if one.verdict != "no match"]
