"""Who may speak to the console at all, and what every answer of it says to a browser.

Owns the checks that come before any page: the peer's address, the name that the request is for (a page elsewhere that
makes a browser resolve its own name to 127.0.0.1 asks for that name: DNS rebinding), and the login. And the headers
that keep a browser from showing, framing, caching or sending on what it got.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, abort, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from werkzeug.wrappers import Response as AnyResponse

from authsvc.console.settings import Console
from authsvc.console.sittings import Sittings
from authsvc.fields import is_loopback, plain_address
from smtpgate.journal import Journal
from smtpgate.units import is_among

COOKIE: Final = "smtpgate_console"
# Of the session: the name of its sitting.
SITTING: Final = "sitting"
# What our script sends when it asks by itself: nobody sits there for all that we know.
REFRESH: Final = "X-Console-Refresh"

# Nothing from elsewhere, nothing inline, no frame around us; forms go nowhere but here.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: over TLS the forms' token is only taken together with a Referer of our own.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-store",
}
# What whoever is not logged in may ask for.
OPEN: Final = frozenset({"entry.login", "entry.enter", "entry.theme", "static"})


class Cookies(SecureCookieSessionInterface):
    """Flask's, with Secure where the request came by TLS, here or at a proxy in front that gunicorn trusts."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return bool(app.config["SESSION_COOKIE_SECURE"]) or request.is_secure


def guard(app: Flask, console: Console, sittings: Sittings, journal: Journal) -> None:
    """Put the checks before every request of the application, and the headers on every answer."""

    def place() -> None:
        fault = misplaced(console, request.remote_addr, request.environ.get("HTTP_HOST", ""))
        if fault is not None:
            journal.warning("console_forbidden", peer=request.remote_addr, reason=fault)
            abort(403)

    def person() -> AnyResponse | None:
        name = session.get(SITTING)
        used = REFRESH not in request.headers
        g.operator = sittings.find(name, used=used) if isinstance(name, str) else None
        if g.operator is None and request.endpoint not in OPEN:
            return redirect(url_for("entry.login"))
        return None

    def dress(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.is_secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    app.before_request(place)
    app.before_request(person)
    app.after_request(dress)


def misplaced(console: Console, peer: str | None, host: str) -> str | None:
    """Why a request is not answered; None for one that is. host: the Host header."""
    try:
        if peer is None or not is_among(plain_address(peer), console.clients):
            return "the address is not among clients"
    except ValueError:
        return "the peer has no address"
    try:
        named = urlsplit(f"//{host}").hostname
    except ValueError:
        named = None
    # A name that is written as a loopback address cannot have been resolved by anybody else's server.
    known = named is not None and (is_loopback(named) or named in console.hosts)
    return None if known else "the Host header is not among hosts"
