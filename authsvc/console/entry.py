"""In and out: the login, its end, and whether the pages are light or dark.

Owns the order of a login: how often it is tried, then the password, whose check takes as long for a name that nobody
has. A login gets a new sitting and a new cookie, whatever cookie it came with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from authsvc.console.forms import Login, Nothing
from authsvc.console.gate import SITTING
from authsvc.console.pages import MENU
from authsvc.console.settings import Console
from authsvc.console.sittings import Sittings
from authsvc.console.tries import Tries
from authsvc.proof.bulkhead import Bulkhead, OverloadError
from authsvc.proof.passwords import Passwords
from smtpgate.journal import Journal

THEME_COOKIE: Final = "smtpgate_theme"
THEMES: Final = ("auto", "light", "dark")
# Seconds for which a browser remembers it: a year.
THEME_KEPT: Final = 365 * 86_400

# Where a change of colours may lead back to.
_BACK: Final = frozenset({"entry.login", *(endpoint for endpoint, _ in MENU)})

WRONG: Final = "Name or password is wrong."


@dataclass(frozen=True, slots=True)
class Desk:
    """What a login needs. hashing: where a password is checked, beside the service's own."""

    console: Console
    sittings: Sittings
    tries: Tries
    passwords: Passwords
    hashing: Bulkhead
    journal: Journal


def entry_blueprint(desk: Desk) -> Blueprint:
    blueprint = Blueprint("entry", __name__)

    @blueprint.get("/login")
    def login() -> str | Response:
        if g.operator is not None:
            return redirect(url_for("pages.overview"))
        return render_template("login.html", form=Login())

    @blueprint.post("/login")
    def enter() -> tuple[str, int, dict[str, str]] | Response:
        form = Login()
        if not form.validate():
            return render_template("login.html", form=form, fault=WRONG), 400, {}
        peer = str(request.remote_addr)
        wait = desk.tries.take(peer)
        if wait > 0.0:
            desk.journal.warning("console_login_throttled", peer=peer)
            seconds = math.ceil(wait)
            fault = f"Too many tries. Try again in {seconds} s."
            return render_template("login.html", form=form, fault=fault), 429, {"Retry-After": str(seconds)}
        operator = str(form.operator.data)
        try:
            known = _proven(desk, operator, str(form.password.data), peer)
        except OverloadError:
            return render_template("login.html", form=form, fault="Busy. Try again."), 503, {"Retry-After": "5"}
        if not known:
            # The name that was typed may be a password in the wrong field.
            named = operator if operator in desk.console.operators else None
            desk.journal.warning("console_login_failed", peer=peer, operator=named)
            return render_template("login.html", form=form, fault=WRONG), 403, {}
        session.clear()
        session[SITTING] = desk.sittings.open(operator)
        desk.journal.info("console_login", peer=peer, operator=operator)
        return redirect(url_for("pages.overview"), 303)

    @blueprint.post("/logout")
    def logout() -> Response:
        if Nothing().validate():
            desk.sittings.close(str(session[SITTING]))
            desk.journal.info("console_logout", peer=request.remote_addr, operator=g.operator)
            session.clear()
            flash("Logged out.", "done")
        return redirect(url_for("entry.login"), 303)

    _colours(blueprint)
    return blueprint


def _colours(blueprint: Blueprint) -> None:
    @blueprint.post("/theme")
    def theme() -> Response:
        # An endpoint and no path: the answer cannot lead elsewhere.
        back = request.form.get("back", "")
        response = redirect(url_for(back if back in _BACK else "pages.overview"), 303)
        chosen = request.form.get("theme", "")
        if chosen in THEMES:
            response.set_cookie(
                THEME_COOKIE,
                chosen,
                max_age=THEME_KEPT,
                secure=request.is_secure,
                httponly=True,
                samesite="Strict",
            )
        return response


def _proven(desk: Desk, operator: str, password: str, peer: str) -> bool:
    """Raises OverloadError."""
    stored = desk.console.operators.get(operator)
    forms = (stored,) if stored is not None else ()
    with desk.hashing.attempt(peer):
        form = desk.hashing.run(desk.passwords.verify, forms, password.encode("utf-8", "surrogatepass"))
    return form is not None
