"""GET /auth: nginx's auth_http. Parses, calls the service, renders; decides only who may ask at all.

Owns the log line of a request. Passwords, digests and the secret header never enter it.
"""

from __future__ import annotations

import hmac
from functools import cache
from typing import Final
from wsgiref.types import WSGIEnvironment

from flask import Blueprint, Response, request

from authsvc.answer.contract import Answer, AuthRequest, Refused, RequestError, Wait, read_request, write_answer
from authsvc.answer.service import TEMPORARY_CODE, TEMPORARY_TEXT, AuthService, Outcome
from authsvc.config import Secret
from authsvc.metrics import AuthMetrics
from smtpgate.clock import Clock
from smtpgate.journal import Journal
from smtpgate.policy.model import Denial

# Results that an operator should look at; the rest is clients' doing.
OUR_FAULTS: Final = frozenset({"overload", "store_down", "keys_down", "no_route", "no_password"})

# For a request that is not auth_http's, and for a bug of ours: the mail client is told to come back.
FAULT: Final = Refused(TEMPORARY_CODE, TEMPORARY_TEXT, wait=1)


def auth_blueprint(
    service: AuthService, secret: Secret | None, clock: Clock, journal: Journal, metrics: AuthMetrics | None = None
) -> Blueprint:
    """secret: the header that every request must carry; None lets everyone ask who can connect. metrics: None counts
    nothing.
    """
    blueprint = Blueprint("auth", __name__)

    @blueprint.get("/auth")
    def auth() -> Response:
        began = clock.monotonic()
        if secret is not None and not _is_secret(secret):
            if metrics is not None:
                metrics.unread()
            journal.warning("auth_forbidden", peer=request.remote_addr, header=secret.name)
            return Response(status=403)
        try:
            asked = read_request(_Headers(request.environ))
        except RequestError as error:
            if metrics is not None:
                metrics.unread()
            journal.warning("auth_bad_request", peer=request.remote_addr, reason=str(error))
            return render(FAULT, status=400)
        outcome = service.answer(asked)
        if metrics is not None:
            metrics.answered(asked, outcome, clock.monotonic() - began)
        for denial in outcome.shadow:
            journal.info("would_deny", client=asked.client, login=asked.login_text, **_denial(denial))
        log = journal.warning if outcome.result in OUR_FAULTS else journal.info
        log(
            "auth",
            **_fields(asked, outcome),
            ms=round((clock.monotonic() - began) * 1000, 1),
        )
        return render(outcome.answer)

    return blueprint


class _Headers:
    """A request's headers as WSGI has them (PEP 3333): an auth_http request is asked for fifteen, each of which costs
    werkzeug's EnvironHeaders four times as much.
    """

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: str, default: str, /) -> str:
        value: str = self._environ.get(_key(name), default)
        return value


@cache
def _key(name: str) -> str:
    """Of the names that read_request knows, which are few."""
    return f"HTTP_{name.upper().replace('-', '_')}"


def render(answer: Answer, status: int = 200) -> Response:
    """An empty body and few headers: the whole block has to fit nginx's buffer (contract.MAX_BLOCK)."""
    response = Response(status=status, headers=write_answer(answer))
    del response.headers["Content-Type"]
    return response


def _is_secret(secret: Secret) -> bool:
    given = request.headers.get(secret.name, "")
    return hmac.compare_digest(given.encode("latin-1"), secret.value.encode("utf-8"))


def _fields(asked: AuthRequest, outcome: Outcome) -> dict[str, object]:
    """What is known of a request and its outcome, without the fields that would be empty."""
    known: dict[str, object] = {"method": asked.method, "client": asked.client, "attempt": asked.attempt}
    if asked.protocol != "smtp":
        known["protocol"] = asked.protocol
    if asked.method != "none":
        known["login"] = asked.login_text
    known["result"] = outcome.result
    if isinstance(outcome.answer, Refused):
        known["code"] = outcome.answer.code
    if isinstance(outcome.answer, Refused | Wait):
        known["wait"] = outcome.answer.wait
    if outcome.denial is not None:
        known.update(_denial(outcome.denial))
    for name in ("user", "route", "detail"):
        value = getattr(outcome, name)
        if value is not None:
            known[name] = value
    return known


def _denial(denial: Denial) -> dict[str, object]:
    """As the proxy logs it."""
    return {
        "limit": denial.limit,
        "subject": denial.subject,
        "retry": round(denial.retry, 3),
        "balance": round(denial.balance, 3),
        "rule": denial.source,
    }
