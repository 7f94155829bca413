"""service.py: pop3, imap, clear passwords, and the user in another field of the certificate."""

from __future__ import annotations

from dataclasses import replace

import argon2
import pytest
from logins import TEMPORARY, WRONG, apop, cram, external, plain

from authsvc.answer.contract import AuthRequest
from authsvc.answer.service import AuthService
from authsvc.proof.methods import AuthPass, Methods
from authsvc.proof.passwords import Passwords


@pytest.mark.parametrize("request_", [plain(b"clear"), cram(b"clear"), plain(b"clear", protocol="pop3")])
def test_a_clear_password_is_good_for_every_method_where_it_is_allowed(
    clear_service: AuthService, request_: AuthRequest
) -> None:
    assert clear_service.answer(request_).result == "granted"


def pop3_services(make_service, auth_pass: AuthPass | None) -> AuthService:
    methods = Methods(plain_passwords=True, auth_pass=auth_pass, ports={"pop3": 1110, "imap": 1143})
    return make_service(methods, passwords=Passwords(argon2.profiles.CHEAPEST, plain=True))


@pytest.mark.parametrize(
    ("request_", "auth_pass", "password"),
    [
        (apop(), AuthPass(), "1234"),
        (apop(), AuthPass("s3cret"), "s3cret"),
        (cram(b"test"), AuthPass("s3cret"), "s3cret"),
        (cram(b"clear"), AuthPass(), "1234"),
        (external(), AuthPass("s3cret"), "s3cret"),
        (plain(), AuthPass("s3cret"), None),
        (plain(b"clear"), AuthPass(), None),
    ],
)
@pytest.mark.parametrize(("protocol", "port"), [("pop3", 1110), ("imap", 1143)])
def test_pop3_and_imap_get_a_password_for_the_backend_where_the_method_has_none(
    make_service, request_: AuthRequest, auth_pass: AuthPass, password: str | None, protocol: str, port: int
) -> None:
    if request_.method == "apop" and protocol == "imap":
        protocol, port = "pop3", 1110
    outcome = pop3_services(make_service, auth_pass).answer(replace(request_, protocol=protocol))
    assert outcome.result == "granted"
    assert (outcome.answer.server, outcome.answer.password) == (("127.0.0.1", port), password)
    assert "1234" not in repr(outcome)
    assert "s3cret" not in repr(outcome)


@pytest.mark.parametrize(
    ("request_", "auth_pass"),
    [
        (apop(), None),
        (cram(), None),
        (cram(), AuthPass()),
        (external(), AuthPass()),
        (apop(b"unsendable", b" 1234"), AuthPass()),
        (apop(), AuthPass("s3cret", frozenset({"imap"}))),
    ],
)
def test_without_one_the_client_is_told_to_come_back_and_the_log_why(
    make_service, request_: AuthRequest, auth_pass: AuthPass | None
) -> None:
    outcome = pop3_services(make_service, auth_pass).answer(replace(request_, protocol="pop3"))
    assert (outcome.answer, outcome.result) == (TEMPORARY, "no_password")
    assert "auth_pass" in str(outcome.detail)


def test_smtp_gets_one_only_where_the_operator_says_so(make_service) -> None:
    assert pop3_services(make_service, AuthPass("s3cret")).answer(cram()).answer.password is None
    both = AuthPass("s3cret", frozenset({"smtp"}))
    assert pop3_services(make_service, both).answer(cram()).answer.password == "s3cret"
    assert pop3_services(make_service, both).answer(plain()).answer.password is None


@pytest.mark.parametrize(
    "request_",
    [
        apop(password=b"wrong"),
        apop(salt=b"<other>"),
        apop(b"nobody"),
        apop(b"test"),
        replace(cram(b"nobody"), protocol="imap"),
        plain(b"nobody", protocol="imap"),
        plain(b"off", protocol="pop3"),
        replace(external(verify="NONE"), protocol="imap"),
    ],
)
def test_wrong_logins_of_pop3_and_imap_look_the_same(make_service, request_: AuthRequest) -> None:
    outcome = pop3_services(make_service, AuthPass("s3cret")).answer(request_)
    assert (outcome.answer, outcome.result) == (WRONG, "wrong")


def test_the_user_may_be_in_another_field_of_the_certificate(make_service) -> None:
    service = make_service(Methods(external="emailAddress"))
    assert service.answer(external(b"emailAddress=test,CN=own")).user == "test"
    assert service.answer(external(b"CN=test")).answer == WRONG
