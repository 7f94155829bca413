"""auth.py, health.py and app.py through Flask's test client: what nginx sends, what it gets."""

from __future__ import annotations

import hmac
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from authsvc.answer.addresses import Addresses
from authsvc.answer.contract import MAX_BLOCK, SERVER_OVERHEAD
from authsvc.answer.destinations import Destinations
from authsvc.answer.service import Slots
from authsvc.app import create_app
from authsvc.config import Config, Secret
from authsvc.proof import crammd5
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.methods import AuthPass, Methods
from authsvc.proof.passwords import Passwords
from authsvc.proof.proofs import Proofs
from authsvc.proof.remembered import Remembered
from authsvc.users.model import User
from authsvc.users.sources import Caching, YamlFile
from smtpgate.routing.model import BackendSpec, PoolSpec, Route
from smtpgate.units import HostPort

CONFIG = Config(
    bind=HostPort("127.0.0.1", 18080),
    workers=1,
    store="memory://",
    policies=Path("policies"),
    users=(YamlFile(Path("users.yaml")),),
    cache=Caching(),
    failed_login_wait=1.0,
    secret=None,
    log_format="json",
    log_level="info",
)
NGINX = {
    "Host": "127.0.0.1",
    "Auth-Method": "plain",
    "Auth-User": "test",
    "Auth-Pass": "1234",
    "Auth-Protocol": "smtp",
    "Auth-Login-Attempt": "1",
    "Client-IP": "192.0.2.7",
    "Client-Host": "[UNAVAILABLE]",
}
OK = {
    "Auth-Status": "OK",
    "Auth-Server": "127.0.0.1",
    "Auth-Port": "10025",
    "Auth-User": "test",
    "Auth-Pool": "core",
}
WRONG = {
    "Auth-Status": "Authentication credentials invalid",
    "Auth-Error-Code": "535 5.7.8",
    "Auth-Wait": "1",
}


class Users:
    def __init__(self, *users: User) -> None:
        self._users = {user.name: user for user in users}

    def find(self, login: str) -> User | None:
        if login == "bug":
            raise KeyError("a password that must not be logged")
        return self._users.get(login)


@pytest.fixture
def checks() -> dict[str, bool]:
    return {"policies": True, "users": True}


@pytest.fixture
def make(cheap_passwords: Passwords, make_throttle, clock, journal, bulkhead: Bulkhead, checks: dict[str, bool]):
    """A function from a Config to the application."""
    stored = cheap_passwords.make(b"1234")
    names = ("test", "100%", "a+b", "jürgen", "{user}", "x" * 320)
    users = Users(*(User(name, (stored, crammd5.make(b"1234"))) for name in names))
    destinations = Destinations(Addresses(clock, str), clock)
    pool = PoolSpec("core", (BackendSpec("sink", "127.0.0.1", 10025),))
    destinations.replace([Route("default", "core", lambda facts: True, "x:1")], {"core": pool})

    def app(config: Config = CONFIG) -> Flask:
        remembered = Remembered(clock, 300.0, b"k" * 64)
        return create_app(
            config,
            users=users,
            throttle=make_throttle(wait=config.failed_login_wait),
            destinations=destinations,
            proofs=Proofs(config.methods, cheap_passwords, remembered, bulkhead),
            slots=Slots(slow=bulkhead, quick=bulkhead),
            clock=clock,
            journal=journal,
            checks={name: lambda name=name: checks[name] for name in checks},
        )

    return app


@pytest.fixture
def client(make):
    return make().test_client()


def answer(client, **changed: str) -> dict[str, str]:
    response = client.get("/auth", headers=NGINX | {name.replace("_", "-"): changed[name] for name in changed})
    assert response.status_code == 200
    assert response.data == b""
    headers = dict(response.headers)
    assert headers.pop("Content-Length") == "0"
    assert len(str(response.headers)) + SERVER_OVERHEAD <= MAX_BLOCK
    return headers


def test_the_right_password(client) -> None:
    assert answer(client) == OK


def test_a_wrong_password(client) -> None:
    assert answer(client, Auth_Pass="12345") == WRONG


def test_cram_md5(client) -> None:
    salt = "<1.2@mail.example.com>"
    digest = hmac.new(b"1234", salt.encode(), "md5").hexdigest()
    assert answer(client, Auth_Method="cram-md5", Auth_Pass=digest, Auth_Salt=salt) == OK


def test_pop3_by_cram_md5_gets_the_password_for_the_backend(make) -> None:
    methods = Methods(auth_pass=AuthPass("s3cr\u00e9t"), ports={"pop3": 1110, "imap": 1143})
    salt = "<1.2@mail.example.com>"
    digest = hmac.new(b"1234", salt.encode(), "md5").hexdigest()
    sent = {"Auth_Method": "cram-md5", "Auth_Pass": digest, "Auth_Salt": salt, "Auth_Protocol": "pop3"}
    client = make(replace(CONFIG, methods=methods)).test_client()
    password = "s3cr\u00e9t".encode().decode("latin-1")
    assert answer(client, **sent) == OK | {"Auth-Port": "1110", "Auth-Pass": password}


def test_none(client) -> None:
    sent = {"Auth_User": "", "Auth_Pass": "", "Auth_SMTP_Helo": "x"}
    sent |= {"Auth_SMTP_From": "MAIL FROM:<a@b>", "Auth_SMTP_To": "RCPT TO:<c@d>"}
    assert answer(client, Auth_Method="none", **sent) == {
        name: value for name, value in OK.items() if name != "Auth-User"
    }


# Names as nginx escapes them (reference/auth_http.md section 4), raw octets read as latin-1.
@pytest.mark.parametrize(
    ("sent", "user"),
    [
        ("100%25", "100%"),
        ("a+b", "a+b"),
        ("jürgen".encode().decode("latin-1"), "jürgen".encode().decode("latin-1")),
        ("j%C3%BCrgen", "jürgen".encode().decode("latin-1")),
        ("{user}", "{user}"),
        ("x" * 320, "x" * 320),
    ],
)
def test_hostile_names_that_are_users(client, sent: str, user: str) -> None:
    assert answer(client, Auth_User=sent) == OK | {"Auth-User": user}


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "jürgen",
        "test%00",
        "%00",
        "test%0D%0AAuth-Status:%20OK",
        "test%0A",
        "x" * 10_000,
        "%00" * 9_000,
        "%",
        "%zz",
        "{}",
        "{0.__class__}",
        "${jndi:ldap://x}",
        "*",
        "../../etc/passwd",
        "\xff\xfe",
        "%ED%A0%80",
        "%E2%80%AEtset",
        "test ",
        "'; DROP TABLE users; --",
    ],
)
def test_hostile_names_that_are_nobody(client, journal, sent: str) -> None:
    assert answer(client, Auth_User=sent) == WRONG
    assert answer(client, Auth_User="test", Auth_Pass=sent) == WRONG
    assert [line[1] for line in journal.lines] == ["auth", "auth"]


@pytest.mark.parametrize(
    "changed",
    [
        {"Client-IP": ""},
        {"Client-IP": "256.1.1.1"},
        {"Auth-Login-Attempt": "x"},
        {"Auth-Method": ""},
    ],
)
def test_what_is_no_request_is_told_to_client_and_log(client, journal, changed: dict[str, str]) -> None:
    response = client.get("/auth", headers=NGINX | changed)
    assert response.status_code == 400
    assert response.headers["Auth-Status"] == "Temporary authentication failure"
    assert response.headers["Auth-Error-Code"] == "454 4.7.0"
    assert response.headers["Auth-Wait"] == "1"
    level, event, fields = journal.lines[0]
    assert (level, event) == ("warning", "auth_bad_request")
    assert next(iter(changed)) in str(fields["reason"])


def test_a_bug_is_a_temporary_failure_and_its_place_is_logged(client, journal) -> None:
    response = client.get("/auth", headers=NGINX | {"Auth-User": "bug"})
    assert response.status_code == 500
    assert response.headers["Auth-Status"] == "Temporary authentication failure"
    assert response.headers["Auth-Error-Code"] == "454 4.7.0"
    level, event, fields = journal.lines[0]
    assert (level, event, fields["error"]) == ("error", "internal_error", "KeyError")
    assert str(fields["where"][-1]).endswith(" find")
    assert "password that must not" not in repr(journal.lines)


def test_a_line_for_each_request_and_no_secret_in_it(client, journal, clock) -> None:
    answer(client)
    answer(client, Auth_Pass="secret-of-the-user")
    assert journal.lines == [
        (
            "info",
            "auth",
            {
                "method": "plain",
                "client": "192.0.2.7",
                "attempt": 1,
                "login": "test",
                "result": "granted",
                "user": "test",
                "route": "default",
                "ms": 0.0,
            },
        ),
        (
            "info",
            "auth",
            {
                "method": "plain",
                "client": "192.0.2.7",
                "attempt": 1,
                "login": "test",
                "result": "wrong",
                "code": "535 5.7.8",
                "wait": 1,
                "ms": 0.0,
            },
        ),
    ]


def test_a_login_that_needs_an_operator_is_a_warning(client, journal) -> None:
    salt = "<1.2@mail.example.com>"
    digest = hmac.new(b"1234", salt.encode(), "md5").hexdigest()
    sent = {"Auth_Method": "cram-md5", "Auth_Pass": digest, "Auth_Salt": salt, "Auth_Protocol": "imap"}
    assert answer(client, **sent) == {
        "Auth-Status": "Temporary authentication failure",
        "Auth-Error-Code": "454 4.7.0",
        "Auth-Wait": "1",
    }
    level, event, fields = journal.lines[0]
    assert (level, event, fields["result"], fields["protocol"]) == ("warning", "auth", "no_password", "imap")
    assert fields["detail"] == "nginx needs a password for the imap backend, and there is none; see auth_pass"


def test_the_limit_that_refused_is_logged(client, engine, denied, journal) -> None:
    engine.looked = denied()
    assert answer(client) == {
        "Auth-Status": "too many failed logins, retry in 120s",
        "Auth-Error-Code": "454 4.7.0",
        "Auth-Wait": "3",
    }
    assert journal.lines[0][2]["limit"] == "auth.fail.pair"


# --- who may ask ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, "", "wrong", "hunter2 ", "HUNTER2", "hunter2,hunter2", "h\xfc"])
def test_without_the_secret_nobody_is_answered(make, journal, given: str | None) -> None:
    client = make(replace(CONFIG, secret=Secret("X-Auth-Key", "hunter2"))).test_client()
    headers = NGINX | ({} if given is None else {"X-Auth-Key": given})
    response = client.get("/auth", headers=headers)
    assert response.status_code == 403
    assert not [name for name in dict(response.headers) if name.startswith("Auth-")]
    assert journal.lines == [("warning", "auth_forbidden", {"peer": "127.0.0.1", "header": "X-Auth-Key"})]


def test_with_the_secret(make) -> None:
    client = make(replace(CONFIG, secret=Secret("X-Auth-Key", "hunter2"))).test_client()
    response = client.get("/auth", headers=NGINX | {"x-auth-key": "hunter2"})
    assert response.headers["Auth-Status"] == "OK"


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/auth", 405), ("GET", "/", 404)])
def test_other_requests(client, method: str, path: str, status: int) -> None:
    assert client.open(path, method=method).status_code == status


# --- health ---------------------------------------------------------------------------------------------------


def test_healthz(client, checks: dict[str, bool]) -> None:
    checks["policies"] = False
    response = client.get("/healthz")
    assert (response.status_code, response.data) == (200, b"ok\n")


@pytest.mark.parametrize(("policies", "users", "status"), [(True, True, 200), (False, True, 503), (True, False, 503)])
def test_readyz(client, checks: dict[str, bool], policies: bool, users: bool, status: int) -> None:
    checks.update(policies=policies, users=users)
    response = client.get("/readyz")
    assert (response.status_code, response.json) == (status, {"policies": policies, "users": users})
