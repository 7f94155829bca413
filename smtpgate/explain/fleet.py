"""The reports of all workers put together: one list of sessions, pools, subjects and denials for a whole site.

Owns how reports add up, what of it an operator should look at first, and the words for it: gatectl and the console
say the same. Reads no clock: ages come with the reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from smtpgate.live import (
    BackendView,
    DenialView,
    Order,
    PoolView,
    Report,
    SessionView,
    Sighting,
    SubjectView,
    missing,
)

# What a store's mode is called while all is well (policy.engine).
WELL: Final = "shared"
# States of a backend that somebody wanted, and the usual one.
_MEANT: Final = ("up", "drain", "off")


@dataclass(frozen=True, slots=True)
class BackendSum:
    """One backend of a pool, over all workers. states: state -> workers that see it so, the most frequent first.
    connections, idle, failures: sums. why: what workers that see it other than up say of it. order: an operator's.
    """

    name: str
    address: str
    weight: int
    backup: bool
    states: tuple[tuple[str, int], ...]
    connections: int
    idle: int
    failures: int
    why: tuple[str, ...]
    order: Order | None


@dataclass(frozen=True, slots=True)
class PoolSum:
    """One pool, over all workers. waiting: sessions in its queues."""

    name: str
    balance: str
    backends: tuple[BackendSum, ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is not as it should be. what: a sentence; more: its details, a line each."""

    what: str
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that is out of the ordinary because an operator wants it so. what: a sentence; time: Unix seconds."""

    what: str
    time: float


def sessions(reports: Iterable[Report], words: str = "") -> list[tuple[str, SessionView]]:
    """(node, session) of those with `words` in one of their fields, the newest first."""
    found = [(report.node, one) for report in reports for one in report.sessions if _has(words, report.node, one)]
    return sorted(found, key=lambda pair: (-pair[1].since, pair[1].session))


def denials(reports: Iterable[Report], words: str = "") -> list[tuple[str, DenialView]]:
    """(node, denial), the latest first."""
    found = [(report.node, one) for report in reports for one in report.denials if _has(words, report.node, one)]
    return sorted(found, key=lambda pair: (-pair[1].time, pair[1].session))


def subjects(reports: Iterable[Report]) -> list[SubjectView]:
    """Summed over the workers, those that were refused or held most often first."""
    summed: dict[tuple[str, str], SubjectView] = {}
    for one in (one for report in reports for one in report.subjects):
        key = one.limit, one.subject
        old = summed.get(key)
        if old is not None:
            # An edit moves lines: the rule is that of the worker whose report comes last.
            since = min(old.since, one.since)
            one = SubjectView(one.limit, one.subject, one.rule, old.denied + one.denied, old.held + one.held, since)
        summed[key] = one
    return sorted(summed.values(), key=lambda one: (-one.denied - one.held, one.limit, one.subject))


def pools(reports: Iterable[Report], orders: Iterable[Order] = ()) -> list[PoolSum]:
    """By name; backends in the order of the first worker that has them."""
    given = {(order.pool, order.backend): order for order in orders}
    views: dict[str, list[PoolView]] = {}
    for pool in (pool for report in reports for pool in report.pools):
        views.setdefault(pool.name, []).append(pool)
    return [_pool(name, views[name], given) for name in sorted(views)]


def wanted(orders: Iterable[Order]) -> list[Wanted]:
    """To be told beside the troubles, and none of them: a drain is how a mail server is looked after."""
    return [
        Wanted(f"{one.pool}/{one.backend} takes no sessions: {drained(one)}", one.time)
        for one in sorted(orders, key=lambda one: (one.pool, one.backend))
    ]


def drained(order: Order) -> str:
    """By whom; the moment is for each to spell."""
    return f"drained by {order.by}"


def troubles(sightings: Sequence[Sighting], stale: float) -> list[Trouble]:
    """stale: seconds after which what a worker has said is not taken for the present any more."""
    fresh = [one.report for one in sightings if one.age < stale]
    found = []
    if not sightings:
        found.append(Trouble("no worker of any proxy has reported"))
    for one in missing(sightings):
        name = f"{one.report.node} {one.report.pid}"
        found.append(Trouble(f"worker {name} has said nothing for {one.age:.0f} s, and did not say goodbye"))
    modes = Counter(report.store for report in fresh if report.store not in (WELL, "memory"))
    found += [Trouble(f"the limits' store is {mode} for {_workers(count)}") for mode, count in sorted(modes.items())]
    found += _policy_troubles(fresh)
    for pool in pools(fresh):
        for backend in pool.backends:
            ill = [f"{state} for {_workers(count)}" for state, count in backend.states if state not in _MEANT]
            if ill:
                found.append(Trouble(f"backend {pool.name}/{backend.name} is {', '.join(ill)}", backend.why))
    return found


def _policy_troubles(reports: Sequence[Report]) -> list[Trouble]:
    found = []
    problems: dict[str, None] = {}
    rejecting = 0
    for report in reports:
        if report.policy is not None and report.policy.problems:
            rejecting += 1
            problems.update(dict.fromkeys(report.policy.problems))
    if rejecting:
        what = f"{_workers(rejecting)} rejected the policies folder as it is now; what was in force before goes on"
        found.append(Trouble(what, tuple(problems)))
    versions = Counter(report.policy.version for report in reports if report.policy is not None)
    if len(versions) > 1:
        told = tuple(f"{version} in {_workers(count)}" for version, count in versions.most_common())
        found.append(Trouble("the workers do not have the same policies", told))
    return found


def _pool(name: str, views: Sequence[PoolView], orders: dict[tuple[str, str], Order]) -> PoolSum:
    backends: dict[str, list[BackendView]] = {}
    for view in views:
        for backend in view.backends:
            backends.setdefault(backend.name, []).append(backend)
    summed = tuple(_backend(seen, orders.get((name, of))) for of, seen in backends.items())
    return PoolSum(name, views[0].balance, summed, sum(view.waiting for view in views))


def _backend(seen: Sequence[BackendView], order: Order | None) -> BackendSum:
    first = seen[0]
    why = {
        f"{one.state} by {one.by}{f': {one.reason}' if one.reason else ''}": None
        for one in seen
        if one.state != "up" and one.by is not None
    }
    return BackendSum(
        first.name,
        first.address,
        first.weight,
        first.backup,
        tuple(Counter(one.state for one in seen).most_common()),
        sum(one.connections for one in seen),
        sum(one.idle for one in seen),
        sum(one.failures for one in seen),
        tuple(why),
        order,
    )


def _has(words: str, node: str, one: SessionView | DenialView) -> bool:
    """Whether each of the words is part of some field, in whatever case."""
    if not words.strip():
        return True
    texts = [getattr(one, field.name) for field in fields(one)]
    all_of_it = "\n".join([node, *(text for text in texts if isinstance(text, str))]).casefold()
    return all(word in all_of_it for word in words.casefold().split())


def _workers(count: int) -> str:
    return "one worker" if count == 1 else f"{count} workers"
