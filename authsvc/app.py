"""The Flask application factory. Everything that it needs is handed in; it starts and opens nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Final

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from authsvc.answer.auth import FAULT, auth_blueprint, render
from authsvc.answer.destinations import Destinations
from authsvc.answer.service import AuthService, Slots
from authsvc.answer.throttle import Throttle
from authsvc.config import Config
from authsvc.health import health_blueprint
from authsvc.metrics import AuthMetrics
from authsvc.proof.proofs import Proofs
from authsvc.users.model import UserStore
from smtpgate.clock import Clock
from smtpgate.journal import Journal

# Frames of a traceback in the log: enough to find the line, too few to fill a screen.
MAX_FRAMES: Final = 8


def create_app(
    config: Config,
    *,
    users: UserStore,
    throttle: Throttle,
    destinations: Destinations,
    proofs: Proofs,
    slots: Slots,
    clock: Clock,
    journal: Journal,
    checks: Mapping[str, Callable[[], bool]],
    metrics: AuthMetrics | None = None,
) -> Flask:
    """The application: /auth, /healthz, /readyz. checks: see health.health_blueprint; metrics: auth_blueprint."""
    app = Flask("authsvc", static_folder=None)
    service = AuthService(
        config.methods, users, proofs, throttle, destinations, slots, clock, auth_cache=config.auth_cache
    )
    app.register_blueprint(auth_blueprint(service, config.secret, clock, journal, metrics))
    app.register_blueprint(health_blueprint(checks))

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response | HTTPException:
        if isinstance(error, HTTPException):
            return error
        # Lines only: messages and variables may hold what a client typed, its password included.
        frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        journal.error("internal_error", error=type(error).__name__, where=where)
        return render(FAULT, status=500)

    return app
