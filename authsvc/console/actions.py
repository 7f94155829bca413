"""What the console changes: POST, with a token of ours, and each a line in the log with who did it.

Nothing here edits a file: limits are changed in policies/. Balances in the store and drained backends are what is
changed by hand, as with `gatectl quota` and `gatectl drain`, by the same functions.
"""

from __future__ import annotations

from flask import Blueprint, abort, flash, g, redirect, request, url_for
from werkzeug.wrappers import Response

from authsvc.console.forms import Grant, OfBackend, OfSubject
from authsvc.console.sources import Sources
from smtpgate.drivers.quotas import Quotas
from smtpgate.explain import fleet
from smtpgate.explain.wording import number


def actions_blueprint(sources: Sources) -> Blueprint:
    blueprint = Blueprint("actions", __name__)
    _on_balances(blueprint, sources)
    _on_backends(blueprint, sources)
    return blueprint


def _on_balances(blueprint: Blueprint, sources: Sources) -> None:
    @blueprint.post("/quotas/reset")
    def reset() -> Response:
        quotas, form = _shared(sources), OfSubject()
        limit, subject = _subject(form)
        keys = quotas.reset(limit, subject)
        told = f"Reset {limit} of {subject}." if keys else f"Nothing was counted for {subject} of {limit}."
        _done(sources, "quota_reset", told, limit=limit, subject=subject)
        return _back_to(limit, subject)

    @blueprint.post("/quotas/grant")
    def grant() -> Response:
        quotas, form = _shared(sources), Grant()
        if not form.validate() and form.errors.keys() == {"tokens"}:
            flash("Expected a number of tokens above 0.", "fault")
            return _back_to(form.limit.data, form.subject.data)
        limit, subject = _subject(form)
        changed = quotas.grant(limit, subject, form.tokens.data)
        if changed is None:
            told = f"{limit} has no bucket of {subject}: it is full already."
        else:
            before, after = changed
            told = (
                f"{limit} of {subject}: {number(before.tokens)} -> {number(after.tokens)} of {number(after.burst)}."
            )
            if before.tokens + form.tokens.data > after.burst:
                told += " The rest did not fit: an override in policies/ raises burst and rate."
        _done(sources, "quota_grant", told, limit=limit, subject=subject, tokens=form.tokens.data)
        return _back_to(limit, subject)

    @blueprint.post("/quotas/unban")
    def unban() -> Response:
        quotas, form = _shared(sources), OfSubject()
        limit, subject = _subject(form)
        told = f"Lifted the ban of {subject}." if quotas.unban(subject) else f"{subject} is not banned."
        _done(sources, "unban", told, limit=limit, subject=subject)
        return _back_to(limit, subject)


def _on_backends(blueprint: Blueprint, sources: Sources) -> None:
    @blueprint.post("/pools/drain")
    def drain() -> Response:
        pool, backend = _backend(OfBackend())
        known = {(one.name, of.name) for one in fleet.pools(sources.reports()) for of in one.backends}
        if sources.board is None or (pool, backend) not in known:
            abort(404)
        sources.board.drain(pool, backend, f"{g.operator} (console)")
        told = f"Drained {pool}/{backend}: it gets no new sessions, within 4 s on every node."
        _done(sources, "drain", told, pool=pool, backend=backend)
        return redirect(url_for("pages.pools"), 303)

    @blueprint.post("/pools/undrain")
    def undrain() -> Response:
        pool, backend = _backend(OfBackend())
        if sources.board is None:
            abort(404)
        was = sources.board.undrain(pool, backend)
        told = (
            f"{pool}/{backend} gets sessions again." if was else f"{pool}/{backend} was not drained by an operator."
        )
        _done(sources, "undrain", told, pool=pool, backend=backend)
        return redirect(url_for("pages.pools"), 303)


def _done(sources: Sources, action: str, told: str, **fields: object) -> None:
    """One line in the log, one sentence on the next page."""
    sources.journal.info(
        "console_action", operator=g.operator, peer=request.remote_addr, action=action, result=told, **fields
    )
    flash(told, "done")


def _shared(sources: Sources) -> Quotas:
    if sources.quotas is None:
        abort(404)
    return sources.quotas


def _subject(form: OfSubject) -> tuple[str, str]:
    if not form.validate():
        abort(400)
    return str(form.limit.data), str(form.subject.data)


def _backend(form: OfBackend) -> tuple[str, str]:
    if not form.validate():
        abort(400)
    return str(form.pool.data), str(form.backend.data)


def _back_to(limit: str, subject: str) -> Response:
    return redirect(url_for("pages.quota", limit=limit, subject=subject), 303)
