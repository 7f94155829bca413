"""The compiled policy, and which of its limits apply to one event.

Owns the order of things: a limit's match, then exemptions, then overrides in their order, then `mode: shadow`. A
decision reads one Policy from beginning to end, so a reload cannot tear it.

Pure but for a cache of limits with overrides worked in, whose content follows from the policy alone. Refuses to know
buckets, stores and what a limit does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.index import Index
from smtpgate.policy.match import Matcher
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.rules import Limit, Limiter, ReplyTemplate
from smtpgate.policy.sets import Directory, NamedSet
from smtpgate.policy.terms import Terms, merged, settled

# Events at which a client is told of a ban: all at which it may still be turned away as a whole.
BAN_EVENTS: Final = (Event.CONNECT, Event.AUTH, Event.AUTH_FAIL, Event.MAIL)
# A ban stands at the door: of its limit's match, what is known of a connection from its first octet on counts.
DOOR: Final = frozenset({"client", "ip", "net", "listener"})
# Limits with overrides worked in that are remembered, for each limit that an override names. Few sessions meet more
# than one or two overrides of a limit at once.
CACHE_PER_CHANGE: Final = 4
MIN_CACHE: Final = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """One of `limits`. limit: as it is without overrides. terms: what of it an override may change, as written."""

    limit: Limit
    match: Matcher = field(default_factory=Matcher)
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True)
class Exemption:
    """One of `exempt`. limits: the names of those that it takes away. source: "file:line"."""

    match: Matcher
    limits: frozenset[str]
    source: str


@dataclass(frozen=True, slots=True)
class Override:
    """One of `overrides`. until: Unix seconds at which it ends, None for never. changes: by limit; None is "off"."""

    match: Matcher
    until: float | None
    changes: Mapping[str, Terms | None]
    source: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """A rule with what is said of it elsewhere, None for nothing. overrides: with their positions in
    Policy.overrides.
    """

    rule: Rule
    exemptions: Index[Exemption] | None
    overrides: Index[tuple[int, Override]] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """All that the folder says of limits. sets, replies: by name, for whoever compiles routes and pools beside it.

    shadow: `mode: shadow`; the limits of `rules` carry it already. prefixes: what {net} is. limits: those of `rules`,
    by event and in file order. asked: the events at which there is anything to ask, bans included.
    """

    limiter: Limiter = field(default_factory=Limiter)
    shadow: bool = False
    replies: Mapping[str, ReplyTemplate] = field(default_factory=dict)
    sets: Mapping[str, NamedSet] = field(default_factory=dict)
    mixed_recipients: Literal["defer", "first"] = "defer"
    rules: Mapping[Event, tuple[Rule, ...]] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()
    overrides: tuple[Override, ...] = ()
    prefixes: Prefixes = field(default_factory=Prefixes)
    limits: Mapping[Event, tuple[Limit, ...]] = field(init=False, compare=False)
    asked: frozenset[Event] = field(init=False, repr=False, compare=False)
    _plans: Mapping[Event, Index[_Plan]] = field(init=False, repr=False, compare=False)
    _bans: Mapping[Event, Index[_Plan]] = field(init=False, repr=False, compare=False)
    _merged: dict[tuple[str, tuple[int, ...]], Limit] = field(init=False, repr=False, compare=False)
    _most_merged: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        directory = Directory(self.sets)
        planner = _Planner(self, directory)
        plans = {event: [planner.plan(rule) for rule in rules] for event, rules in self.rules.items()}
        banning = [plan for of_event in plans.values() for plan in of_event if _may_ban(plan)]
        bans = {event: [(_door(plan), plan) for plan in banning if _readable(plan, event)] for event in BAN_EVENTS}
        made = {
            "asked": frozenset(event for event in Event if plans.get(event) or bans.get(event)),
            "limits": {event: tuple(rule.limit for rule in rules) for event, rules in self.rules.items()},
            "_plans": {
                event: Index([(plan.rule.match, plan) for plan in of_event], directory)
                for event, of_event in plans.items()
            },
            "_bans": {event: Index(entries, directory) for event, entries in bans.items() if entries},
            "_merged": {},
            "_most_merged": max(
                MIN_CACHE, CACHE_PER_CHANGE * sum(len(override.changes) for override in self.overrides)
            ),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)  # frozen from here on


class _Planner:
    """Puts to each rule what is said of it elsewhere; limits of which the same is said share one index."""

    def __init__(self, policy: Policy, directory: Directory) -> None:
        self._directory = directory
        self._exemptions: dict[str, list[Exemption]] = {}
        for exemption in policy.exemptions:
            for name in exemption.limits:
                self._exemptions.setdefault(name, []).append(exemption)
        self._overrides: dict[str, list[tuple[int, Override]]] = {}
        for position, override in enumerate(policy.overrides):
            for name in override.changes:
                self._overrides.setdefault(name, []).append((position, override))
        self._shared: dict[tuple[int, ...], Index[Exemption]] = {}

    def plan(self, rule: Rule) -> _Plan:
        overrides = self._overrides.get(rule.limit.name, [])
        changing = [(override.match, (position, override)) for position, override in overrides]
        return _Plan(
            rule,
            self._exempting(self._exemptions.get(rule.limit.name, [])),
            Index(changing, self._directory) if changing else None,
        )

    def _exempting(self, exemptions: Sequence[Exemption]) -> Index[Exemption] | None:
        if not exemptions:
            return None
        key = tuple(map(id, exemptions))
        if key not in self._shared:
            self._shared[key] = Index([(one.match, one) for one in exemptions], self._directory)
        return self._shared[key]


def select(policy: Policy, event: Event, facts: Facts) -> Sequence[Limit]:
    """The limits that apply, in file order, with overrides worked in.

    A match that hangs on a fact which is not known yet does not apply; nor does an override with `until` where
    `facts.time` is not known.
    """
    index = policy._plans.get(event)
    return () if index is None else _applying(policy, index.matching(facts), facts)


def bans(policy: Policy, event: Event, facts: Facts) -> Sequence[Limit]:
    """The limits that may have banned somebody whose subject can be read at this event.

    A ban meets its subject whatever it does next: of the limit's match only the door counts (see DOOR).
    """
    index = policy._bans.get(event)
    if index is None:
        return ()
    return [limit for limit in _applying(policy, index.matching(facts), facts) if _bans(limit)]


def exempting(policy: Policy, rule: Rule, facts: Facts) -> list[Exemption]:
    """The lines of `exempt` that take this limit away, for explanations: one is enough."""
    named = [one for one in policy.exemptions if rule.limit.name in one.limits]
    return [one for one in named if one.match(facts) is True]


def overriding(policy: Policy, rule: Rule, facts: Facts) -> list[Override]:
    """The lines of `overrides` that change this limit, in the order in which they count, for explanations."""
    named = [one for one in policy.overrides if rule.limit.name in one.changes]
    return [one for one in named if one.match(facts) is True and _in_force(one, facts)]


def _applying(policy: Policy, plans: Iterable[_Plan], facts: Facts) -> list[Limit]:
    limits = []
    for plan in plans:
        if plan.exemptions is not None and plan.exemptions.matching(facts):
            continue
        limit: Limit | None = plan.rule.limit
        if plan.overrides is not None:
            limit = _overridden(policy, plan.rule, plan.overrides, facts)
        if limit is not None:
            limits.append(limit)
    return limits


def _overridden(policy: Policy, rule: Rule, overrides: Index[tuple[int, Override]], facts: Facts) -> Limit | None:
    found = [one for one in overrides.matching(facts) if _in_force(one[1], facts)]
    limit = rule.limit
    if not found:
        return limit
    # What stands before an "off" is forgotten with it, and what follows brings the limit back.
    changes = [override.changes[limit.name] for _, override in found]
    last_off = max((at for at, change in enumerate(changes) if change is None), default=-1)
    if last_off == len(changes) - 1:
        return None
    key = (limit.name, tuple(position for position, _ in found[last_off + 1 :]))
    known = policy._merged.get(key)
    if known is None:
        terms = merged(rule.terms, [change for change in changes[last_off + 1 :] if change is not None])
        known = settled(limit, terms, shadow=policy.shadow)
        if len(policy._merged) >= policy._most_merged:
            policy._merged.clear()
        policy._merged[key] = known
    return known


def _in_force(override: Override, facts: Facts) -> bool:
    return override.until is None or (facts.time is not None and facts.time < override.until)


def _bans(limit: Limit) -> bool:
    deny = limit.deny
    return deny is not None and (deny.ban > 0.0 or (deny.after is not None and deny.after.ban > 0.0))


def _may_ban(plan: _Plan) -> bool:
    changes = (override.changes[plan.rule.limit.name] for _, override in plan.overrides or ())
    return _bans(plan.rule.limit) or any(change is not None and change.may_ban for change in changes)


def _readable(plan: _Plan, event: Event) -> bool:
    key = plan.rule.limit.key
    return key is not None and event in key.events


def _door(plan: _Plan) -> Matcher:
    return Matcher(tuple(test for test in plan.rule.match.tests if test.field.name in DOOR))
