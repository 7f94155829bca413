"""The console's application factory. Everything that it needs is handed in; it starts and opens nothing.

Owns what holds for all of its pages: the cookie, the tokens of forms, how values become text in a page, and what is
answered when something fails.
"""

from __future__ import annotations

import traceback
from typing import Final

from flask import Flask, g, render_template, request
from flask_wtf import CSRFProtect
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable

from authsvc.app import MAX_FRAMES
from authsvc.console.actions import actions_blueprint
from authsvc.console.entry import THEME_COOKIE, THEMES, Desk, entry_blueprint
from authsvc.console.gate import COOKIE, Cookies, guard
from authsvc.console.pages import pages_blueprint
from authsvc.console.plain import moment, plain, size
from authsvc.console.plots import short
from authsvc.console.sources import Sources
from authsvc.proof.bulkhead import OverloadError
from smtpgate.explain import fleet, wording
from smtpgate.policy.store import StoreUnavailable

# Octets of a request's body: the longest form is a subject and a token.
MAX_BODY: Final = 16 * 1024
MAX_PARTS: Final = 16


def create_console(desk: Desk, sources: Sources, *, key: bytes, secure: bool) -> Flask:
    """key: what cookies are signed with. secure: whether they are for TLS alone."""
    app = _Console("authsvc.console")
    app.config.update(
        SECRET_KEY=key,
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=secure,
        MAX_CONTENT_LENGTH=MAX_BODY,
        MAX_FORM_MEMORY_SIZE=MAX_BODY,
        MAX_FORM_PARTS=MAX_PARTS,
        # A token is as good as the login that it came with.
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.session_interface = Cookies()
    guard(app, desk.console, desk.sittings, sources.journal)  # before the tokens: a stranger learns nothing of those
    CSRFProtect(app)
    app.register_blueprint(entry_blueprint(desk))
    app.register_blueprint(pages_blueprint(sources))
    app.register_blueprint(actions_blueprint(sources))
    _teach(app)
    _catch(app, sources)
    return app


class _Console(Flask):
    # Every value on a page goes through it.
    jinja_options = {**Flask.jinja_options, "finalize": plain}  # noqa: RUF012 - as Flask declares it


def _teach(app: Flask) -> None:
    app.jinja_env.filters.update(
        moment=moment,
        size=size,
        short=short,
        number=wording.number,
        seconds=wording.seconds,
        rate=wording.rate,
        outcome=wording.outcome_text,
        verdict=wording.verdict_text,
        where=wording.where_text,
        way=wording.route_text,
        drained=fleet.drained,
    )

    @app.context_processor
    def theme() -> dict[str, object]:
        chosen = request.cookies.get(THEME_COOKIE)
        return {
            "theme": chosen if chosen in THEMES else "auto",
            "themes": THEMES,
            "operator": getattr(g, "operator", None),
        }


def _catch(app: Flask, sources: Sources) -> None:
    @app.errorhandler(CSRFError)
    def forged(error: CSRFError) -> tuple[str, int]:
        sources.journal.warning("console_forged", peer=request.remote_addr, reason=str(error.description))
        told = "The form is out of date, or not one of ours. Load the page anew and try again."
        return render_template("error.html", name="Not done", told=told), 400

    @app.errorhandler(StoreUnavailable)
    def away(error: StoreUnavailable) -> tuple[str, int]:
        sources.journal.warning("console_store_away", reason=str(error))
        failed = ServiceUnavailable()
        told = f"The store gave no answer: {error}. Mail goes on; what is counted meanwhile, policies decide."
        return render_template("error.html", name=failed.name, told=told), 503

    @app.errorhandler(OverloadError)
    def busy(error: OverloadError) -> tuple[str, int, dict[str, str]]:
        told = "Others compare policies at the moment. Try again."
        return render_template("error.html", name="Busy", told=told), 503, {"Retry-After": "5"}

    @app.errorhandler(Exception)
    def failed(error: Exception) -> tuple[str, int] | HTTPException:
        if isinstance(error, HTTPException):
            if error.code is None or error.code < 400:
                return error
            return render_template("error.html", name=error.name, told=error.description), error.code
        frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        sources.journal.error("internal_error", error=type(error).__name__, where=where)
        broken = InternalServerError()
        return render_template("error.html", name=broken.name, told="The log tells where."), 500
