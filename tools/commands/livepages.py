"""What `gatectl status`, `sessions`, `pools`, `top` and `denials` show: the board's reports as tables and as JSON.

Owns the columns and the choice of rows. How reports add up, and what in them is wrong, is `smtpgate.explain.fleet`'s,
which the console asks too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Any, Final

from smtpgate.drivers.liveboard import LiveBoard
from smtpgate.explain import fleet
from smtpgate.explain.wording import number, seconds
from smtpgate.live import STALE, Report, Sighting
from smtpgate.units import UNIX, Network, format_size

from .boards import nobody, untold
from .outcomes import NO
from .pages import Note, Page, Sheet

VERSION_SHOWN: Final = 12  # characters of the policies' hash


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_COMMON: Final = "sessions sessions/s mails/s refused/s held/s store policies memory up"
NODES: Final = _columns(f"node server version workers {_COMMON}")
WORKERS: Final = _columns(f"node pid version seen {_COMMON}")
SESSIONS: Final = _columns("node session listener client name user tls phase for mails backend")
POOLS: Final = _columns("pool balance backend address state weight conns idle failures waiting why")
TOP: Final = _columns("limit subject denied held since rule")
DENIALS: Final = _columns("time node session client user at limit subject balance retry rule")
# Columns of numbers, in whichever of them.
NUMBERS: Final = _columns(
    "pid seen sessions sessions/s mails/s refused/s held/s memory up weight conns idle failures waiting mails for"
    " denied held balance retry"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What rows are wanted; None is any. Names may have * ? [a-z] in them."""

    user: str | None = None
    client: Network | str | None = None
    listener: str | None = None
    backend: str | None = None
    limit: str | None = None

    def fits(self, row: Any) -> bool:
        """row: a view with those of the fields that are asked for."""
        named = ("user", "listener", "backend", "limit")
        return all(_fits(getattr(self, name), getattr(row, name, None)) for name in named) and self._from(row.client)

    def _from(self, client: str) -> bool:
        if self.client is None or self.client == client:
            return True
        if isinstance(self.client, str) or client == UNIX:
            return False
        return ip_address(client) in self.client


def _fits(pattern: str | None, value: str | None) -> bool:
    return pattern is None or (value is not None and fnmatchcase(value.casefold(), pattern.casefold()))


def status(board: LiveBoard, each: bool) -> Page:
    sightings, orders = board.sightings(), board.orders()
    fresh = [one.report for one in sightings if one.age <= STALE]
    wrong = fleet.troubles(sightings, STALE)
    notes = [Note(line, bad=True) for one in wrong for line in (one.what, *(f"  {more}" for more in one.more))]
    notes += [Note(f"{one.what}, {_at(one.time)}") for one in fleet.wanted(orders)]
    if not sightings:
        notes = [nobody(board)]
    rows = [_worker_row(one) for one in sightings] if each else [_node_row(*node) for node in _nodes(sightings)]
    columns = WORKERS if each else NODES
    value = {
        "ok": not wrong,
        "store": board.public,
        "troubles": [dataclasses.asdict(one) for one in wrong],
        "orders": [dataclasses.asdict(one) for one in orders],
        "workers": [_worker(one) for one in sightings],
    }
    sheets = [Sheet(columns, rows, right=NUMBERS)] if rows else []
    if fresh and not wrong:
        notes.append(Note("all is well"))
    return Page([*sheets, *notes], value, NO if wrong else 0)


def _nodes(sightings: Sequence[Sighting]) -> list[tuple[Report, list[Sighting]]]:
    """The latest report of each proxy, and what its workers said."""
    proxies: dict[tuple[str, str], list[Sighting]] = {}
    for one in sightings:
        proxies.setdefault((one.report.node, one.report.server_name), []).append(one)
    return [(min(those, key=lambda one: one.age).report, those) for _, those in sorted(proxies.items())]


def _node_row(latest: Report, those: Sequence[Sighting]) -> tuple[str, ...]:
    fresh = [one.report for one in those if one.age <= STALE]
    draining = sum(report.draining for report in fresh)
    workers = f"{len(fresh)}{f', {draining} draining' if draining else ''}" if fresh else "gone"
    return (latest.node, latest.server_name, latest.version, workers, *_common(fresh))


def _worker_row(one: Sighting) -> tuple[str, ...]:
    report = one.report
    return (report.node, str(report.pid), report.version, f"{seconds(one.age)} ago", *_common([report]))


def _common(reports: Sequence[Report]) -> tuple[str, ...]:
    def rate(name: str) -> str:
        found = (getattr(one.recent, name) / one.recent_seconds for one in reports if one.recent_seconds > 0)
        return number(round(sum(found), 1))

    policies = {_policies(one) for one in reports}
    began = min((one.began for one in reports), default=0.0)
    return (
        str(sum(one.open_sessions for one in reports)),
        *map(rate, ("sessions", "delivered", "denied", "held")),
        ", ".join(sorted({one.store for one in reports})),
        ", ".join(sorted(policies)),
        _memory(sum(one.resident for one in reports)),
        seconds(round(time.time() - began)) if reports else "",
    )


def _policies(report: Report) -> str:
    if report.policy is None:
        return "none"
    return report.policy.version[:VERSION_SHOWN] + (" (newer ones rejected)" if report.policy.problems else "")


def _memory(octets: int) -> str:
    return format_size(octets >> 20 << 20)


def _worker(one: Sighting) -> dict[str, Any]:
    """A worker without its lists, which other commands show."""
    told = dataclasses.asdict(one.report)
    kept = {key: value for key, value in told.items() if key not in ("sessions", "denials", "subjects", "pools")}
    return {**kept, "age": one.age, "stale": one.age > STALE}


def sessions(board: LiveBoard, chosen: Choice, most: int) -> Page:
    reports = board.reports()
    found = [(node, one) for node, one in fleet.sessions(reports) if chosen.fits(one)]
    now = time.time()
    rows = [
        (
            node,
            one.session,
            one.listener,
            one.client,
            one.name,
            one.user or "",
            one.tls or "",
            one.phase,
            seconds(round(max(0.0, now - one.since))),
            str(one.transactions),
            one.backend or "",
        )
        for node, one in found[:most]
    ]
    value = [{"node": node, **dataclasses.asdict(one)} for node, one in found[:most]]
    return _page(board, reports, Sheet(SESSIONS, rows, NUMBERS), value, [*_more(len(found), most), *untold(reports)])


def pools(board: LiveBoard) -> Page:
    reports = board.reports()
    found = fleet.pools(reports, board.orders())
    rows = [
        (
            pool.name,
            pool.balance,
            one.name + (" (backup)" if one.backup else ""),
            one.address,
            _states(one.states),
            str(one.weight),
            str(one.connections),
            str(one.idle),
            str(one.failures),
            str(pool.waiting),
            "; ".join(one.why) if one.order is None else f"{fleet.drained(one.order)}, {_at(one.order.time)}",
        )
        for pool in found
        for one in pool.backends
    ]
    return _page(board, reports, Sheet(POOLS, rows, NUMBERS), [dataclasses.asdict(one) for one in found], [])


def _states(states: Sequence[tuple[str, int]]) -> str:
    """How many see it so, only where they do not agree."""
    if len(states) == 1:
        return states[0][0]
    return ", ".join(f"{state} ({count})" for state, count in states)


def top(board: LiveBoard, limit: str | None, by: str, most: int) -> Page:
    reports = board.reports()
    found = [one for one in fleet.subjects(reports) if _fits(limit, one.limit)]
    if by != "both":
        found = sorted((one for one in found if getattr(one, by)), key=lambda one: -int(getattr(one, by)))
    rows = [
        (one.limit, one.subject, str(one.denied), str(one.held), _at(one.since), one.rule) for one in found[:most]
    ]
    value = [dataclasses.asdict(one) for one in found[:most]]
    return _page(board, reports, Sheet(TOP, rows, NUMBERS), value, _more(len(found), most))


def denials(board: LiveBoard, chosen: Choice, most: int) -> Page:
    reports = board.reports()
    found = [(node, one) for node, one in fleet.denials(reports) if chosen.fits(one)]
    rows = [
        (
            _at(one.time),
            node,
            one.session,
            one.client,
            one.user or "",
            one.at,
            one.limit + (" (shadow)" if one.shadow else ""),
            one.subject,
            number(one.balance),
            seconds(one.retry),
            one.rule,
        )
        for node, one in found[:most]
    ]
    value = [{"node": node, **dataclasses.asdict(one)} for node, one in found[:most]]
    return _page(board, reports, Sheet(DENIALS, rows, NUMBERS), value, _more(len(found), most))


def _page(board: LiveBoard, reports: Sequence[Report], sheet: Sheet, value: Any, notes: Sequence[Note]) -> Page:
    """Status 1 where there is nobody to ask: an empty table would look like an idle proxy."""
    if not reports:
        return Page([nobody(board)], value, NO)
    return Page([sheet, *notes], value)


def _more(found: int, most: int) -> list[Note]:
    return [Note(f"{most} of {found}: --most shows more")] if found > most else []


def _at(moment: float) -> str:
    """Local time, as an operator's own clock shows it."""
    return datetime.fromtimestamp(moment).astimezone().isoformat(sep=" ", timespec="seconds")
