from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from logins import GRANTED, SERVER, TEMPORARY, WRONG, Tokens, Users, apop, cram, external, oauth, plain

from authsvc.answer.contract import AuthRequest, Granted, Refused, Wait
from authsvc.answer.service import AuthService, Outcome
from authsvc.proof.passwords import Passwords
from smtpgate.policy.model import Decision, Event, Facts, grown


@pytest.mark.parametrize(
    "request_",
    [
        plain(),
        cram(),
        external(),
        external(user=b"test"),
        external(b"O=x\\, y,CN=test"),
        oauth(),
        oauth(method="oauthbearer"),
        oauth(method="oauthbearer", user=b""),
    ],
)
def test_each_method_lets_the_right_client_in(service: AuthService, engine, request_: AuthRequest) -> None:
    assert service.answer(request_) == Outcome(GRANTED, "granted", user="test", route="default")
    assert engine.debits == [False, False]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(plain(password=b"12345"), id="wrong password"),
        pytest.param(plain(password=b""), id="empty password"),
        pytest.param(plain(b"nobody"), id="unknown user"),
        pytest.param(plain(b"off"), id="disabled user"),
        pytest.param(plain(b"nohash"), id="user without a password"),
        pytest.param(plain(b"TEST"), id="another spelling"),
        pytest.param(plain(b""), id="empty user"),
        pytest.param(plain(b"te\0st"), id="NUL"),
        pytest.param(plain(b"test\r\nAuth-Status: OK"), id="CRLF"),
        pytest.param(plain("jürgen".encode("latin-1")), id="Latin-1"),
        pytest.param(plain(b"x" * 10_000), id="10 kB"),
        pytest.param(cram(password=b"12345"), id="wrong digest"),
        pytest.param(cram(salt=b"<other>"), id="another challenge"),
        pytest.param(cram(b"nobody"), id="unknown user's digest"),
        pytest.param(cram(b"off"), id="disabled user's digest"),
        pytest.param(cram("jürgen".encode()), id="user without CRAM-MD5"),
        pytest.param(external(verify="NONE"), id="no certificate"),
        pytest.param(external(verify="FAILED:self signed"), id="certificate not verified"),
        pytest.param(external(verify="success"), id="not nginx's word"),
        pytest.param(replace(external(), tls=False), id="no TLS"),
        pytest.param(external(b"CN=nobody"), id="unknown CN"),
        pytest.param(external(b"CN=off"), id="disabled CN"),
        pytest.param(external(b"CN=test,CN=admin"), id="two CNs"),
        pytest.param(external(b""), id="no subject"),
        pytest.param(external(user=b"admin"), id="another authorization identity"),
        pytest.param(plain(b"clear"), id="a clear password that is not allowed"),
        pytest.param(cram(b"clear"), id="the digest of one"),
        pytest.param(oauth(b"bad"), id="bad token"),
        pytest.param(oauth(b""), id="no token"),
        pytest.param(oauth(b"good:nobody", b"nobody"), id="good token of an unknown user"),
        pytest.param(oauth(b"good:off", b"off"), id="good token of a disabled user"),
        pytest.param(oauth(b"good:test", b"own"), id="good token of another user"),
        pytest.param(oauth(b"good:test", b"\xff"), id="no name beside a good token"),
    ],
)
def test_every_wrong_login_looks_the_same(service: AuthService, engine, request_: AuthRequest) -> None:
    outcome = service.answer(request_)
    assert (outcome.answer, outcome.result) == (WRONG, "wrong")
    assert engine.debits == [False, False, True]


def test_names_with_marks_of_other_languages(service: AuthService) -> None:
    for name in ("jürgen", "a+b%c{d}"):
        assert service.answer(plain(name.encode())).answer == Granted(name, SERVER, "core")


# --- limits ---------------------------------------------------------------------------------------------------


def test_facts_of_a_login(service: AuthService, engine) -> None:
    service.answer(plain(password=b"wrong", tls=True))
    facts = engine.about(Event.AUTH_FAIL)[0]
    assert facts.password_mac is not None
    assert grown(facts, password_mac=None) == Facts(
        client="192.0.2.7", time=1000.0, tls=True, login="test", method="plain", known_user=False, protocol="smtp"
    )
    looks = [(Event.AUTH_FAIL, facts, False)] * 2
    assert engine.asked == [*looks, (Event.AUTH_FAIL, grown(facts, known_user=True), True)]


@pytest.mark.parametrize(
    ("request_", "login"),
    [
        (plain(b""), "<>"),
        (plain(b"j\xfcrgen"), "j\\xfcrgen"),
        (plain(b"x" * 10_000), "x" * 320),
        (external(b"CN=nobody"), "nobody"),
        (external(b"nonsense"), "<>"),
        (oauth(b"bad"), "test"),
        (oauth(b"bad", b""), "<>"),
    ],
)
def test_every_login_has_a_text_that_limits_can_count(
    service: AuthService, engine, request_: AuthRequest, login: str
) -> None:
    service.answer(request_)
    assert [facts.login for _, facts, _ in engine.asked] == [login] * 3


@pytest.mark.parametrize(
    "request_", [plain(), plain(password=b"wrong"), plain(b"nobody"), cram(), external(), oauth(), oauth(b"bad")]
)
def test_a_throttled_client_learns_nothing_of_its_password(
    service: AuthService,
    engine,
    users: Users,
    denied: Callable[..., Decision],
    monkeypatch: pytest.MonkeyPatch,
    request_: AuthRequest,
) -> None:
    def verify(*_: object) -> bool:
        raise AssertionError("the password was looked at")

    monkeypatch.setattr(Passwords, "verify", verify)
    engine.looked = denied()
    expected = Refused("454 4.7.0", "too many failed logins, retry in 120s", 3)
    assert service.answer(request_) == Outcome(expected, "throttled", denial=engine.looked.denial)
    assert engine.debits == [False]
    assert users.asked == []


def test_a_wrong_password_that_reaches_the_limit_gets_its_reply(
    service: AuthService, engine, denied: Callable[..., Decision]
) -> None:
    engine.charged = denied(close=True)
    expected = Refused("454 4.7.0", "too many failed logins, retry in 120s", 0)
    assert service.answer(plain(password=b"x")) == Outcome(expected, "throttled", denial=engine.charged.denial)


def test_the_tenth_wrong_password_of_a_session_ends_it(service: AuthService) -> None:
    waits = [service.answer(plain(password=b"x", attempt=attempt)).answer.wait for attempt in (9, 10, 11)]
    assert waits == [1, 0, 0]


def test_what_limits_that_only_watch_would_have_said_is_in_every_outcome(
    make_service, engine, users: Users, denied: Callable[..., Decision]
) -> None:
    shadow = (denied().denial,)
    engine.looked = Decision(shadow=shadow)
    assert make_service().answer(plain()).shadow == shadow
    assert make_service().answer(plain(password=b"x")).shadow == shadow
    users.down = True
    assert make_service().answer(plain()) == Outcome(
        TEMPORARY, "store_down", detail="connection refused", shadow=shadow
    )


def test_a_login_of_nginx_that_is_over_a_limit_is_refused_or_waits(
    service: AuthService, engine, denied: Callable[..., Decision]
) -> None:
    engine.admitted = denied(delay=0.0, close=True)
    expected = Refused("454 4.7.0", "too many failed logins, retry in 120s", 0)
    assert service.answer(plain()) == Outcome(expected, "throttled", denial=engine.admitted.denial)
    engine.admitted = denied(wait=1.5, hold=5.0)
    assert service.answer(plain()) == Outcome(Wait(2), "held", denial=engine.admitted.denial)
    # A good login is nobody's failed one.
    assert True not in engine.debits


def test_a_login_that_leads_nowhere_is_not_charged(service: AuthService, engine) -> None:
    assert service.answer(plain(b"lost")).result == "no_route"
    assert service.answer(plain(protocol="imap", method="external", tls=True)).result == "wrong"
    assert engine.about(Event.AUTH) == []


@pytest.mark.parametrize(
    ("request_", "exists"),
    [
        (plain(password=b"x"), True),
        (plain(b"nobody"), False),
        (plain(b"off"), False),
        (oauth(b"bad"), None),
        (external(b"CN=nobody"), False),
    ],
)
def test_who_exists_is_told_to_the_limits_when_they_charge_and_not_when_they_refuse(
    service: AuthService, engine, request_: AuthRequest, exists: bool | None
) -> None:
    service.answer(request_)
    assert [facts.known_user for _, facts, _ in engine.asked] == [False, False, exists]


# --- what our proxy may keep ----------------------------------------------------------------------------------


def test_our_proxy_may_keep_a_password_that_was_right(make_service, engine) -> None:
    service = make_service(auth_cache=30)
    assert service.answer(replace(plain(), gate=True)).answer == replace(GRANTED, cache=30)
    for request_ in (
        plain(),
        replace(cram(), gate=True),
        replace(external(), gate=True),
        replace(oauth(), gate=True),
    ):
        assert service.answer(request_).answer == GRANTED
    assert engine.about(Event.AUTH)[0].method == "plain"
    assert len(engine.about(Event.AUTH)) == 1, "our proxy asks its own limits"


# --- faults ---------------------------------------------------------------------------------------------------


def test_a_store_that_is_down_is_nobodys_failed_login(service: AuthService, engine, users: Users) -> None:
    users.down = True
    assert service.answer(plain()) == Outcome(TEMPORARY, "store_down", detail="connection refused")
    assert engine.debits == [False]


def test_keys_that_cannot_be_had_are_nobodys_failed_login(service: AuthService, engine, tokens: Tokens) -> None:
    tokens.down = True
    detail = "no keys from jwks.json: cannot be read"
    assert service.answer(oauth()) == Outcome(TEMPORARY, "keys_down", detail=detail)
    assert engine.debits == [False]


def test_a_user_whose_pool_is_gone(service: AuthService, engine) -> None:
    outcome = service.answer(plain(b"lost"))
    detail = "the user's pool gone does not exist in the policies"
    assert outcome == Outcome(TEMPORARY, "no_route", detail=detail)
    assert True not in engine.debits


def test_why_a_token_was_refused_is_for_the_log_alone(service: AuthService) -> None:
    assert service.answer(oauth(b"bad")) == Outcome(WRONG, "wrong", detail="token refused: bad_signature")
    another = Outcome(WRONG, "wrong", detail="token refused: it is another user's")
    assert service.answer(oauth(b"good:test", b"own")) == another


def test_a_stored_form_that_proves_nothing_is_told_of_in_the_log(service: AuthService) -> None:
    detail = "PLAIN is not allowed here; expected plain_passwords: true, or a hash"
    assert service.answer(plain(b"clear")) == Outcome(WRONG, "wrong", detail=detail)


@pytest.mark.parametrize(
    ("protocol", "method"),
    [
        *(("smtp", method) for method in ("apop", "PLAIN", "login", "\r\n", "")),
        *(("pop3", method) for method in ("none", "xoauth2", "oauthbearer")),
        *(("imap", method) for method in ("none", "apop", "xoauth2")),
    ],
)
def test_other_methods_are_refused(clear_service: AuthService, engine, protocol: str, method: str) -> None:
    outcome = clear_service.answer(plain(protocol=protocol, method=method))
    assert outcome.answer == Refused("504 5.5.4", "Authentication method not supported", 1)
    assert engine.asked == []


def test_methods_that_are_not_configured_are_refused(make_service, engine) -> None:
    service = make_service(tokens=None)
    for request_ in (apop(), oauth(), oauth(method="oauthbearer")):
        assert service.answer(request_).answer == Refused("504 5.5.4", "Authentication method not supported", 1)
    assert engine.asked == []


@pytest.mark.parametrize("protocol", ["SMTP", "", "http"])
def test_other_protocols_are_refused(service: AuthService, protocol: str) -> None:
    outcome = service.answer(plain(protocol=protocol))
    assert outcome.answer == Refused("504 5.5.4", "Protocol not supported", 0)


# --- the way --------------------------------------------------------------------------------------------------


def test_the_users_own_pool_wins(service: AuthService) -> None:
    assert service.answer(plain(b"own")).answer == Granted("own", ("192.0.2.25", 25), "vip")


def test_routes_see_the_canonical_name_and_the_plan(service: AuthService, routed: list[Facts]) -> None:
    service.answer(plain())
    [facts] = routed
    assert (facts.user, facts.plan, facts.login, facts.time) == ("test", "gold", "test", 1000.0)
    assert (facts.protocol, facts.password_mac) == ("smtp", None)


def envelope(mail: bytes = b"MAIL FROM:<a@b.example>", rcpt: bytes = b"RCPT TO:<c@d.example>") -> AuthRequest:
    return AuthRequest("none", "192.0.2.7", mail_line=mail, rcpt_line=rcpt)


def test_without_login_the_envelope_is_routed(service: AuthService, engine, routed: list[Facts]) -> None:
    assert service.answer(envelope()) == Outcome(Granted(None, SERVER, "core"), "granted", route="default")
    assert engine.asked == []
    assert (routed[0].sender, routed[0].rcpt_domain, routed[0].user) == ("a@b.example", "d.example", None)


def test_a_bad_envelope_is_refused_and_the_client_stays(service: AuthService) -> None:
    outcome = service.answer(envelope(rcpt=b"RCPT TO:<c"))
    refused = Refused("501 5.1.3", "Bad recipient address syntax", 1)
    assert outcome == Outcome(refused, "bad_envelope")
