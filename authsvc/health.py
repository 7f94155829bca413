"""GET /healthz and /readyz, for supervisors and monitors.

/healthz answers 200 while the process serves requests: restart it when it does not. /readyz answers 200 when
the last edit of everything that is read live was valid, else 503; the service goes on with the last valid
state meanwhile, so alert on it, and take nothing out of service for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Blueprint, Response, jsonify


def health_blueprint(checks: Mapping[str, Callable[[], bool]]) -> Blueprint:
    """checks: what is read live, by name, and whether its last edit was valid."""
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
