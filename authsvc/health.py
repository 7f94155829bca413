"""GET /healthz and /readyz, for supervisors and monitors.

/healthz answers 200 while the process serves requests: restart it when it does not. /readyz answers 200 when
the last edit of everything that is read live was valid and every user store answers, else 503; the service goes on
with the last valid state, and for the users of other stores, meanwhile, so alert on it, and take nothing out of
service for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Blueprint, Response, jsonify


def health_blueprint(checks: Mapping[str, Callable[[], bool]]) -> Blueprint:
    """checks: what the service depends on, by name, and whether it is well now; may wait a few seconds to know."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @blueprint.get("/readyz")
    def readyz() -> Response:
        valid = {name: check() for name, check in checks.items()}
        response = jsonify(valid)
        response.status_code = 200 if all(valid.values()) else 503
        return response

    return blueprint
