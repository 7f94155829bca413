"""What the console shows: GET, and nothing changes by it.

Each page asks its sources once, puts the answers together with pure functions and hands rows to a template.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Final

from flask import Blueprint, abort, render_template, request

from authsvc.console import plots
from authsvc.console.forms import Ask, Grant, OfBackend, OfSubject, QuotaSearch, Search
from authsvc.console.plain import moment
from authsvc.console.rulebook import rulebook
from authsvc.console.sources import Sources
from authsvc.console.traffic import INTERVAL, SAMPLES, Sample
from smtpgate.drivers.quotas import Banned, Bucket, Item, Places, Seen
from smtpgate.explain import fleet
from smtpgate.explain.session import at_event, explain_event, explain_route, without_matches
from smtpgate.live import STALE
from smtpgate.policy.model import Event

# Rows of a table. Nobody reads more, and a browser shows so many at once; a search finds the others.
MOST_ROWS: Final = 200

# The pages, in the order of the menu.
MENU: Final = (
    ("pages.overview", "Overview"),
    ("pages.sessions", "Sessions"),
    ("pages.limits", "Limits"),
    ("pages.denials", "Denials"),
    ("pages.quotas", "Quotas"),
    ("pages.pools", "Pools"),
    ("pages.policies", "Policies"),
    ("pages.explain", "Explain"),
)
# Those that our script renews. A search of all quotas is not among them: it walks through the whole store.
LIVE: Final = frozenset(
    {"pages.overview", "pages.sessions", "pages.limits", "pages.denials", "pages.pools", "pages.quota"}
)

# Title, and the series of a plot: a field of Sample, and how it is called.
PLOTS: Final = (
    ("Messages a second", (("delivered", "delivered"), ("refused", "refused"))),
    ("Limits a second", (("denied", "denied"), ("held", "held"))),
    ("Open sessions", (("open_sessions", "open"),)),
    ("Logins a second", (("logins", "accepted"), ("failed_logins", "failed"))),
)


def pages_blueprint(sources: Sources) -> Blueprint:
    blueprint = Blueprint("pages", __name__)
    _of_reports(blueprint, sources)
    _of_balances(blueprint, sources)
    _of_policies(blueprint, sources)

    @blueprint.app_context_processor
    def given() -> dict[str, object]:
        return {"now": sources.clock.now(), "menu": MENU, "live": LIVE}

    return blueprint


def _of_reports(blueprint: Blueprint, sources: Sources) -> None:
    """What all workers say of themselves."""

    @blueprint.get("/")
    def overview() -> str:
        sightings = sources.sightings()
        samples = sources.traffic.samples
        return render_template(
            "overview.html",
            sightings=sightings,
            stale=STALE,
            troubles=fleet.troubles(sightings, STALE),
            wanted=fleet.wanted(sources.orders()),
            latest=samples[-1] if samples else None,
            plots=[(title, _plot(samples, series)) for title, series in PLOTS],
            no_board=sources.no_board,
        )

    @blueprint.get("/sessions")
    def sessions() -> str:
        form = Search(request.args)
        reports = sources.reports()
        found = fleet.sessions(reports, _words(form))
        told = sum(len(report.sessions) for report in reports)
        return render_template(
            "sessions.html",
            form=form,
            rows=found[:MOST_ROWS],
            found=len(found),
            untold=sum(report.open_sessions for report in reports) - told,
            most=MOST_ROWS,
        )

    @blueprint.get("/limits")
    def limits() -> str:
        rows = fleet.subjects(sources.reports())
        return render_template("limits.html", rows=rows[:MOST_ROWS])

    @blueprint.get("/denials")
    def denials() -> str:
        form = Search(request.args)
        found = fleet.denials(sources.reports(), _words(form))
        return render_template("denials.html", form=form, rows=found[:MOST_ROWS], found=len(found), most=MOST_ROWS)

    @blueprint.get("/pools")
    def pools() -> str:
        rows = fleet.pools(sources.reports(), sources.orders())
        return render_template("pools.html", pools=rows, form=OfBackend(formdata=None))


def _of_balances(blueprint: Blueprint, sources: Sources) -> None:
    """What the store has counted."""

    @blueprint.get("/quotas")
    def quotas() -> str:
        form = QuotaSearch(request.args)
        asked = bool(request.args) and form.validate()
        found: list[Item] = []
        if asked and sources.quotas is not None:
            limit, subject = pattern(form.limit.data), pattern(form.subject.data)
            found = list(itertools.islice(sources.quotas.find(limit, subject), MOST_ROWS + 1))
        rows = sorted((quota_row(item) for item in found[:MOST_ROWS]), key=lambda row: (row["limit"], row["subject"]))
        return render_template(
            "quotas.html",
            form=form,
            asked=asked,
            shared=sources.quotas is not None,
            rows=rows,
            more=len(found) > MOST_ROWS,
            most=MOST_ROWS,
            names=sorted({one.name for of_event in sources.snapshot().policy.limits.values() for one in of_event}),
        )

    @blueprint.get("/quotas/subject")
    def quota() -> str:
        form = OfSubject(request.args, meta={"csrf": False})
        if not form.validate() or sources.quotas is None:
            abort(404)
        limit, subject = form.limit.data, form.subject.data
        items = sources.quotas.of(limit, subject)
        return render_template(
            "quota.html",
            limit=limit,
            subject=subject,
            rows=[quota_row(item) for item in items],
            has_bucket=any(isinstance(item, Bucket) and item.limit == limit for item in items),
            is_banned=any(isinstance(item, Banned) for item in items),
            form=OfSubject(limit=limit, subject=subject, formdata=None),
            grant=Grant(limit=limit, subject=subject, formdata=None),
        )


def _of_policies(blueprint: Blueprint, sources: Sources) -> None:
    """What the folder says, and what that means for somebody."""

    @blueprint.get("/policies")
    def policies() -> str:
        book = rulebook(sources.snapshot())
        return render_template(
            "policies.html",
            book=book,
            limits=[astuple(one) for one in book.limits],
            exemptions=[(one.where, one.match, one.does) for one in book.exemptions],
            overrides=[(one.where, one.match, one.does) for one in book.overrides],
            routes=[(one.name, one.match, one.does, one.where) for one in book.routes],
            status=sources.status(),
            pending=sources.edits.pending(),
            last=sources.edits.last(),
            versions=[
                (
                    report.node,
                    report.pid,
                    report.policy.version,
                    moment(report.policy.loaded),
                    "; ".join(report.policy.problems) or "valid",
                )
                for report in sources.reports()
                if report.policy is not None
            ],
        )

    @blueprint.get("/explain")
    def explain() -> str:
        form = Ask(request.args)
        context: dict[str, Any] = {"form": form, "said": None}
        if request.args and form.validate():
            context |= _explained(sources, form)
        return render_template("explain.html", **context)


def _explained(sources: Sources, form: Ask) -> dict[str, Any]:
    """By the same functions as `gatectl policy explain`."""
    snapshot, question = sources.snapshot(), form.question()
    facts = question.facts(form.time(sources.clock.now()))
    said = []
    for event in question.events():
        one = explain_event(
            snapshot.policy, event, at_event(facts, event), sources.store, sources.clock, host=sources.host
        )
        said.append((one, without_matches(one.limits)))
    last = Event.MAIL if question.rcpt is None else Event.RCPT
    return {
        "said": said,
        "route": explain_route(snapshot, at_event(facts, last)),
        "version": snapshot.version_hash,
        "counted": sources.store is not None,
    }


def _words(form: Search) -> str:
    return str(form.words.data or "") if form.validate() else ""


def pattern(text: str | None) -> str:
    """What is typed as Redis' pattern: a part of the name, unless it has signs of a pattern itself."""
    text = (text or "").strip()
    if not text:
        return "*"
    return text if any(sign in text for sign in "*?[") else f"*{text}*"


def quota_row(item: Item) -> dict[str, Any]:
    """One row of quotas, whatever it counts."""
    row: dict[str, Any] = dict.fromkeys(("now", "of", "rate", "full_in", "denied", "note", "limit", "subject"))
    row |= {"limit": item.limit, "subject": item.subject}
    match item:
        case Bucket():
            row |= {"kind": "bucket", "now": item.tokens, "of": item.burst, "rate": item.rate}
            row |= {"full_in": item.full_in, "denied": item.denied}
        case Places():
            row |= {"kind": "places", "now": item.taken, "next_in": item.next_in}
        case Seen():
            row |= {"kind": "seen", "now": item.values}
        case Banned():
            row |= {"kind": "ban", "rest": item.rest, "source": item.source}
    return row


def _plot(samples: Sequence[Sample], series: Sequence[tuple[str, str]]) -> plots.Plot | None:
    times = [one.time for one in samples]
    lines = [(name, [float(getattr(one, field)) for one in samples]) for field, name in series]
    return plots.draw(times, lines, SAMPLES * INTERVAL)
