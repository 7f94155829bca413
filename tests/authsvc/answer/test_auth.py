"""The log line's level and fields, and the rendered response; the rest of auth.py is in test_app.py."""

from __future__ import annotations

import pytest
from flask import Flask

from authsvc.answer.auth import FAULT, auth_blueprint, render
from authsvc.answer.contract import Answer, AuthRequest, Granted, Refused, Wait
from authsvc.answer.service import Outcome

REQUEST = {"Auth-Method": "plain", "Auth-User": "te%1B%0Ast", "Auth-Pass": "hunter2", "Client-IP": "192.0.2.7"}
REFUSED = Refused("454 4.7.0", "Temporary authentication failure", 1)


class Service:
    """Says the same to everyone."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.asked: list[AuthRequest] = []

    def answer(self, request: AuthRequest) -> Outcome:
        self.asked.append(request)
        return self.outcome


def ask(outcome: Outcome, clock, journal, **changed: str):
    app = Flask("test", static_folder=None)
    app.register_blueprint(auth_blueprint(Service(outcome), None, clock, journal))
    return app.test_client().get("/auth", headers=REQUEST | {k.replace("_", "-"): v for k, v in changed.items()})


@pytest.mark.parametrize(
    ("result", "level"),
    [
        ("wrong", "info"),
        ("throttled", "info"),
        ("bad_envelope", "info"),
        ("unsupported", "info"),
        ("overload", "warning"),
        ("store_down", "warning"),
        ("no_route", "warning"),
    ],
)
def test_our_own_faults_are_warnings(clock, journal, result: str, level: str) -> None:
    ask(Outcome(REFUSED, result, detail="why"), clock, journal)
    assert journal.lines == [
        (
            level,
            "auth",
            {
                "method": "plain",
                "client": "192.0.2.7",
                "attempt": 1,
                "login": "te\x1b\nst",  # escaped where it is written: drivers.journal
                "result": result,
                "code": "454 4.7.0",
                "wait": 1,
                "detail": "why",
                "ms": 0.0,
            },
        )
    ]


def test_without_a_login_none_is_logged(clock, journal) -> None:
    ask(Outcome(Granted(pool="core"), "granted", route="default"), clock, journal, Auth_Method="none", Auth_User="x")
    fields = {"method": "none", "client": "192.0.2.7", "attempt": 1, "result": "granted", "route": "default"}
    assert journal.lines == [("info", "auth", {**fields, "ms": 0.0})]


LIMIT = {
    "limit": "auth.fail.pair",
    "subject": "192.0.2.7|test",
    "retry": 120.0,
    "balance": 0.0,
    "rule": "policies/10-limits.yaml:7",
}


@pytest.mark.parametrize(
    ("answer", "result", "fields"),
    [(REFUSED, "throttled", {"code": "454 4.7.0", "wait": 1}), (Wait(2), "held", {"wait": 2})],
)
def test_a_limit_that_speaks_is_logged_as_the_proxy_logs_it(
    clock, journal, denied, answer: Answer, result: str, fields: dict[str, object]
) -> None:
    ask(Outcome(answer, result, denial=denied().denial), clock, journal)
    [(level, event, logged)] = journal.lines
    assert (level, event, logged["result"]) == ("info", "auth", result)
    assert logged.items() >= (fields | LIMIT).items()


def test_a_limit_that_only_watches_has_a_line_of_its_own(clock, journal, denied) -> None:
    ask(Outcome(Granted(user="test", pool="core"), "granted", shadow=(denied().denial,)), clock, journal)
    fields = {"client": "192.0.2.7", "login": "te\x1b\nst", **LIMIT}
    assert journal.lines[0] == ("info", "would_deny", fields)
    assert [event for _, event, _ in journal.lines] == ["would_deny", "auth"]


@pytest.mark.parametrize(
    ("answer", "status", "headers"),
    [
        (Wait(2), 200, [("Auth-Status", "WAIT"), ("Auth-Wait", "2")]),
        (
            Granted(user="test", pool="core"),
            200,
            [("Auth-Status", "OK"), ("Auth-User", "test"), ("Auth-Pool", "core")],
        ),
        (
            FAULT,
            500,
            [
                ("Auth-Status", "Temporary authentication failure"),
                ("Auth-Error-Code", "454 4.7.0"),
                ("Auth-Wait", "1"),
            ],
        ),
    ],
)
def test_a_response_has_no_header_that_nginx_does_not_need(
    answer: Answer, status: int, headers: list[tuple[str, str]]
) -> None:
    """The whole block has to fit a buffer of 1024 octets."""
    response = render(answer, status)
    assert (response.status_code, response.data) == (status, b"")
    assert [pair for pair in response.headers if pair[0] != "Content-Length"] == headers
