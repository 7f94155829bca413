"""PURE. A snapshot as rows for people: limits, exemptions, overrides, sets, routes and pools as they are compiled.

Owns which of a rule's facts are told, in the words of `explain`. Shows no secret: of a pool only where it leads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum

from smtpgate.explain.session import match_text, terms_text
from smtpgate.explain.wording import seconds
from smtpgate.policy.match import Matcher
from smtpgate.policy.rules import Escalation, Limit, ReplyTemplate
from smtpgate.policy.select import Override, Policy
from smtpgate.policy.terms import Terms
from smtpgate.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class LimitRow:
    """where: "file:line", as everywhere here."""

    name: str
    event: str
    terms: str
    key: str
    match: str
    denies: str
    where: str


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of another section. does: what it brings about."""

    name: str
    match: str
    does: str
    where: str


@dataclass(frozen=True, slots=True)
class Rulebook:
    """sets: name, type and how many members. pools: name, balance and backends."""

    version: str
    shadow: bool
    limits: tuple[LimitRow, ...]
    exemptions: tuple[Row, ...]
    overrides: tuple[Row, ...]
    routes: tuple[Row, ...]
    sets: tuple[tuple[str, str, str], ...]
    pools: tuple[tuple[str, str, str], ...]


def rulebook(snapshot: Snapshot) -> Rulebook:
    policy = snapshot.policy
    return Rulebook(
        snapshot.version_hash,
        policy.shadow,
        tuple(
            LimitRow(
                rule.limit.name,
                event.value,
                terms_text(rule.limit),
                "" if rule.limit.key is None else rule.limit.key.text,
                match_text(rule.match),
                _denies(rule.limit),
                rule.limit.source,
            )
            for event, rules in policy.rules.items()
            for rule in rules
        ),
        tuple(
            Row("", match_text(one.match), f"none of {', '.join(sorted(one.limits))}", one.source)
            for one in policy.exemptions
        ),
        tuple(_override(one) for one in policy.overrides),
        tuple(
            Row(
                route.name,
                match_text(route.matches) if isinstance(route.matches, Matcher) else "",
                route.pool,
                route.source,
            )
            for route in snapshot.routes
        ),
        _sets(policy),
        tuple(
            (
                pool.name,
                pool.balance.value,
                ", ".join(f"{one.name} {one.host}:{one.port} ({one.state.value})" for one in pool.backends),
            )
            for pool in snapshot.pools.values()
        ),
    )


def _denies(limit: Limit) -> str:
    deny = limit.deny
    if deny is None:
        return "slows, and never refuses"
    parts = [f"{deny.reply.code} {deny.reply.enhanced} {deny.reply.text}"]
    if deny.hold:
        parts.append(f"after up to {seconds(deny.hold)} of waiting")
    if deny.delay:
        parts.append(f"held back for {seconds(deny.delay)}")
    if deny.close:
        parts.append("closes")
    if deny.ban:
        parts.append(f"bans for {seconds(deny.ban)}")
    if deny.after is not None:
        parts.append(f"escalates after {deny.after.denials} in {seconds(deny.after.within)}")
    return ("only watches: " if limit.shadow else "") + "; ".join(parts)


def _override(one: Override) -> Row:
    changed = "; ".join(f"{name}: {'off' if terms is None else _terms(terms)}" for name, terms in one.changes.items())
    until = "" if one.until is None else f", until {datetime.fromtimestamp(one.until, UTC):%Y-%m-%d %H:%M} UTC"
    return Row("", match_text(one.match), f"{changed}{until}", one.source)


def _terms(terms: Terms) -> str:
    """Those that are written."""
    written = ((one.name, getattr(terms, one.name)) for one in fields(terms))
    return ", ".join(f"{name} {_value(name, value)}" for name, value in written if value is not None)


def _value(name: str, value: object) -> str:
    match value:
        case ReplyTemplate():
            return f"{value.code} {value.enhanced} {value.text}"
        case Escalation():
            return f"{value.denials} in {seconds(value.within)}"
        case Enum():
            return str(value.value)
        case float() if name != "cost":
            return seconds(value)
        case bool():
            return "true" if value else "false"
    return str(value)


def _sets(policy: Policy) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (name, one.type, str(len(one.words)) if one.words else "windows of time") for name, one in policy.sets.items()
    )
