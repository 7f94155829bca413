"""The whole service: gunicorn with conf/gunicorn.authsvc.py, asked over raw sockets as nginx asks, and by nginx."""

from __future__ import annotations

import hmac
import itertools
import json
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers.fixtures import StartNginx, StartSink
from peers.process import HOST, Process, free_port, wait_until

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]

POLICIES = """
version: 1
replies: {auth: "454 4.7.0 too many failed logins"}
limits:
  auth.fail.pair:
    event: auth_fail
    rate: 3/1h
    burst: 3
    key: "{net}|{login}"
    deny: {reply: auth, delay: 2s, max_delay: 15s}
routes:
  - {name: by-domain, match: {rcpt_domain: partner.example, user: test2}, pool: partner}
  - {name: default, match: {}, pool: demo}
pools:
  demo: {backends: [{name: sink, addr: "127.0.0.1:10025"}]}
  partner: {backends: [{name: partner, addr: "localhost:10026"}]}
"""
PARTNER = """
  partner:
    cram_md5: "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
    pool: partner
    plan: gold
"""


CLIENTS = itertools.count(20)
"""The last octet of client addresses, so that no two wrong logins share a bucket."""


class Service:
    """A running service with copies of its files, to be edited."""

    def __init__(self, folder: Path, policies: str = POLICIES) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "policies").mkdir()
        (folder / "policies/policies.yaml").write_text(policies)
        (folder / "users.yaml").write_text((ROOT / "conf/users.yaml").read_text() + PARTNER)
        self.configure("")
        self.process = Process("authsvc", ARGV, folder, environment())
        self.process.wait_for_port(self.port)
        # gunicorn's first process listens before there is a worker.
        assert self.get("/healthz") == (200, b"ok\n")

    def configure(self, more: str) -> None:
        text = f"bind: {HOST}:{self.port}\npolicies: policies\nusers: {{file: users.yaml}}\n{more}"
        (self.folder / "authsvc.yaml").write_text(text)

    def ask(self, request: bytes) -> bytes:
        """One connection, all that comes back."""
        with socket.create_connection((HOST, self.port), timeout=10) as connection:
            connection.sendall(request)
            received = b""
            while more := connection.recv(65536):
                received += more
            return received

    def headers(self, request: bytes) -> dict[str, str]:
        """The Auth- headers of the answer."""
        head = self.ask(request).partition(b"\r\n\r\n")[0].decode("latin-1")
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:])
        return {name: value for name, value in pairs if name.startswith("Auth-")}

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.process.output().splitlines() if line.startswith("{")]


def environment() -> dict[str, str]:
    return {"SMTPGATE_AUTHSVC_CONF": "authsvc.yaml", "SMTPGATE_STORE": "", "PYTHONUNBUFFERED": "1"}


def nginx(user: bytes, password: bytes, *, method: bytes = b"plain", more: bytes = b"", ip: int = 7) -> bytes:
    """A request, octet for octet as nginx writes it (reference/auth_http.md section 3)."""
    return (
        b"GET /auth HTTP/1.0\r\nHost: 127.0.0.1\r\nAuth-Method: %b\r\nAuth-User: %b\r\nAuth-Pass: %b\r\n"
        b"Auth-Protocol: smtp\r\nAuth-Login-Attempt: 1\r\nClient-IP: 192.0.2.%d\r\n"
        b"Client-Host: [UNAVAILABLE]\r\n%b\r\n"
    ) % (method, user, password, ip, more)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all the tests that change nothing; each wrong login has a client address of its own."""
    service = Service(tmp_path_factory.mktemp("authsvc"))
    yield service
    service.process.stop()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """One for a test that edits or ends it."""
    service = Service(tmp_path)
    yield service
    service.process.stop()


def dateless(block: bytes) -> bytes:
    return re.sub(rb"Date: [A-Z][a-z]{2}, [^\r]{20} GMT", b"Date: -", block)


def test_the_block_of_a_grant(service: Service) -> None:
    block = service.ask(nginx(b"test", b"1234"))
    assert len(block) < 1024
    assert dateless(block) == (
        b"HTTP/1.0 200 OK\r\nServer: gunicorn\r\nDate: -\r\nConnection: close\r\n"
        b"Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: 10025\r\nAuth-User: test\r\nAuth-Pool: demo\r\n"
        b"Content-Length: 0\r\n\r\n"
    )


def test_the_block_of_a_refusal(service: Service) -> None:
    block = service.ask(nginx(b"test", b"12345"))
    assert len(block) < 1024
    assert dateless(block) == (
        b"HTTP/1.0 200 OK\r\nServer: gunicorn\r\nDate: -\r\nConnection: close\r\n"
        b"Auth-Status: Authentication credentials invalid\r\nAuth-Error-Code: 535 5.7.8\r\nAuth-Wait: 1\r\n"
        b"Content-Length: 0\r\n\r\n"
    )


def test_a_route_that_depends_on_the_recipient_is_left_to_the_proxy(service: Service) -> None:
    assert service.headers(nginx(b"test2", b"password")) == {
        "Auth-Status": "OK",
        "Auth-Server": "127.0.0.1",
        "Auth-Port": "10025",
        "Auth-User": "test2",
        "Auth-Pool": "*",
    }


def test_cram_md5(service: Service) -> None:
    salt = b"<1896.697170952@mail.example.com>"
    digest = hmac.new(b"1234", salt, "md5").hexdigest().encode()
    right = nginx(b"test", digest, method=b"cram-md5", more=b"Auth-Salt: " + salt + b"\r\n")
    assert service.headers(right)["Auth-User"] == "test"
    wrong = nginx(b"test2", digest, method=b"cram-md5", more=b"Auth-Salt: " + salt + b"\r\n", ip=8)
    assert service.headers(wrong)["Auth-Error-Code"] == "535 5.7.8"


def test_none(service: Service) -> None:
    envelope = b"Auth-SMTP-Helo: \r\nAuth-SMTP-From: mail   From:<a@b>  SIZE=1\r\nAuth-SMTP-To: RCPT TO:<c@d>\r\n"
    assert service.headers(nginx(b"", b"", method=b"none", more=envelope)) == {
        "Auth-Status": "OK",
        "Auth-Server": "127.0.0.1",
        "Auth-Port": "10025",
        "Auth-Pool": "demo",
    }


def test_the_users_own_pool_and_a_backend_that_is_a_host_name(service: Service) -> None:
    digest = hmac.new(b"1234", b"<1.2@x>", "md5").hexdigest().encode()
    headers = service.headers(nginx(b"partner", digest, method=b"cram-md5", more=b"Auth-Salt: <1.2@x>\r\n"))
    assert headers.pop("Auth-Server") in ("127.0.0.1", "::1")
    assert headers == {
        "Auth-Status": "OK",
        "Auth-Port": "10026",
        "Auth-User": "partner",
        "Auth-Pool": "partner",
        "Auth-Plan": "gold",
    }


MALFORMED = {
    "Auth-Status": "Malformed credentials or command",
    "Auth-Error-Code": "501 5.5.2",
    "Auth-Wait": "1",
}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "535 5.7.8"),
        (b"100%25", "535 5.7.8"),
        (b"a+b", "535 5.7.8"),
        ("jürgen".encode(), "535 5.7.8"),
        ("jürgen".encode("latin-1"), "535 5.7.8"),
        (bytes(range(0x80, 0x100)), "535 5.7.8"),
        (b"test%00", "535 5.7.8"),
        (b"test%0D%0AAuth-Status:%20OK", "535 5.7.8"),
        (b"{user}", "535 5.7.8"),
        (b"x" * 10_000, "535 5.7.8"),
        (b"%00" * 9_216, "535 5.7.8"),
        (b"te\x7fst", "501 5.5.2"),
        (b"te\x00st", "501 5.5.2"),
        (b"te\rst", "501 5.5.2"),
        (b"x" * 70_000, "501 5.5.2"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_hostile_names_are_refused_with_a_reply(service: Service, sent: bytes, code: str) -> None:
    for user, password in ((sent, b"x"), (b"test", sent)):
        headers = service.headers(nginx(user, password, ip=next(CLIENTS)))
        assert headers["Auth-Error-Code"] == code
        assert headers["Auth-Wait"] == "1"
    assert "internal_error" not in {line["event"] for line in service.log()}


CERTIFICATE = b"Auth-SSL: on\r\nAuth-SSL-Subject: CN=test\r\nAuth-SSL-Verify: %b\r\n"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (nginx(b"nobody", b"x", more=b"Auth-User: test\r\nAuth-Pass: 1234\r\n"), "535 5.7.8"),
        (nginx(b"nobody", b"x", more=b"Auth_User: test\r\nAuth_Pass: 1234\r\n"), "535 5.7.8"),
        (nginx(b"test", b"1234", more=b"Auth-Method: none\r\n"), "504 5.5.4"),
        (nginx(b"test", b"1234", more=b"Client-IP: 127.0.0.1\r\n"), "454 4.7.0"),
        (nginx(b"", b"", method=b"external", more=CERTIFICATE % b"FAILED\r\nAuth-SSL-Verify: SUCCESS"), "535 5.7.8"),
        (nginx(b"", b"", method=b"external", more=CERTIFICATE % b"FAILED\r\nAuth_SSL_Verify: SUCCESS"), "535 5.7.8"),
        (nginx(b"test", b"1234", more=b"X: y\r\n z: w\r\n"), "501 5.5.2"),
        (nginx(b"test", b"1234", more=b"".join(b"X-%d: y\r\n" % n for n in range(60))), "501 5.5.2"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + nginx(b"test", b"1234"), "501 5.5.2"),
    ],
)
def test_headers_that_stand_twice_or_nearly_so_forge_nothing(service: Service, request_: bytes, code: str) -> None:
    request_ = request_.replace(b"192.0.2.7", b"192.0.2.%d" % next(CLIENTS), 1)
    assert service.headers(request_)["Auth-Error-Code"] == code


def test_raw_controls_in_the_envelope_are_a_syntax_error(service: Service) -> None:
    envelope = b"Auth-SMTP-From: MAIL FROM:<a\x01@b>\r\nAuth-SMTP-To: RCPT TO:<c@d>\r\n"
    assert service.headers(nginx(b"", b"", method=b"none", more=envelope)) == MALFORMED


def test_one_connection_serves_several_requests(service: Service) -> None:
    with socket.create_connection((HOST, service.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(nginx(b"test", b"1234").replace(b"HTTP/1.0", b"HTTP/1.1"))
            block = b""
            while not block.endswith(b"\r\n\r\n"):
                block += connection.recv(65536)
            assert b"Connection: keep-alive\r\n" in block
            assert b"Auth-Status: OK\r\n" in block


def test_guessing_reaches_the_limit_and_then_the_right_password_is_not_looked_at(service: Service) -> None:
    wrong, right = nginx(b"test", b"guess", ip=9), nginx(b"test", b"1234", ip=9)
    codes = [service.headers(wrong)["Auth-Error-Code"] for _ in range(5)]
    assert codes == ["535 5.7.8"] * 3 + ["454 4.7.0"] * 2
    assert service.headers(right) == {
        "Auth-Status": "too many failed logins",
        "Auth-Error-Code": "454 4.7.0",
        "Auth-Wait": "15",
    }
    assert service.headers(nginx(b"test", b"1234", ip=10))["Auth-Status"] == "OK"


def test_no_password_enters_the_log(service: Service) -> None:
    service.ask(nginx(b"test", b"hunter2-is-secret", ip=11))
    service.ask(nginx(b"test", b"hunter2-is-secret\x01", ip=11))
    wait_until(lambda: "InvalidHeader" in service.process.output(), "the bad request is logged")
    assert "hunter2" not in service.process.output()


def test_health(service: Service) -> None:
    assert service.get("/healthz") == (200, b"ok\n")
    assert service.get("/readyz") == (200, b'{"policies":true,"users":true}\n')


def test_an_edit_takes_effect_and_a_broken_one_changes_nothing(own_service: Service) -> None:
    users = own_service.folder / "users.yaml"
    good = users.read_text()
    third = nginx(b"test3", b"1234")
    assert own_service.headers(third)["Auth-Error-Code"] == "535 5.7.8"
    users.write_text(good.replace("\n  test2:", "\n  test3:"))
    wait_until(lambda: "users_loaded" in events(own_service, 2), "the new user is loaded")
    assert own_service.headers(nginx(b"test3", b"password"))["Auth-Status"] == "OK"
    users.write_text(good + "  test4: {plann: gold}\n")
    (own_service.folder / "policies/policies.yaml").write_text(POLICIES.replace("rate:", "rat:"))
    wait_until(lambda: own_service.get("/readyz")[1] == b'{"policies":false,"users":false}\n', "both")
    assert own_service.get("/readyz")[0] == 503
    assert own_service.headers(nginx(b"test3", b"password"))["Auth-Status"] == "OK"
    problems = [line["problems"] for line in own_service.log() if line["event"] == "users_rejected"]
    assert len(problems) == 1
    assert problems[0][0].startswith(f"users.yaml:{good.count(chr(10)) + 1}:11: users.test4.plann: unknown key")


def events(service: Service, times: int) -> set[str]:
    """The events that were logged at least so many times."""
    seen = [str(line["event"]) for line in service.log()]
    return {event for event in seen if seen.count(event) >= times}


def test_a_broken_start_tells_every_problem_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "users.yaml").write_text("users: {}\n")
    (tmp_path / "authsvc.yaml").write_text("polices: policies\nusers: {file: users.yaml}\nworkers: 0\n")
    ended = subprocess.run(
        ARGV, cwd=tmp_path, env=os.environ | environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert [line.partition(" ")[0] for line in ended.stderr.splitlines()] == [
        "authsvc.yaml:1:1:",
        "authsvc.yaml:1:1:",
        "authsvc.yaml:3:1:",
    ]


def test_a_reload_with_a_broken_configuration_keeps_serving(own_service: Service) -> None:
    own_service.configure("workers: 0\n")
    (own_service.folder / "policies/policies.yaml").write_text("nonsense")
    (own_service.folder / "users.yaml").write_text("nonsense")
    own_service.process.signal(signal.SIGHUP)
    wait_until(lambda: "the configuration stays as it was" in own_service.process.output(), "the reload is refused")
    wait_until(lambda: own_service.process.output().count("Booting worker") == 2, "a new worker")
    wait_until(lambda: "Worker exiting" in own_service.process.output(), "the old worker is gone")
    assert own_service.headers(nginx(b"test", b"1234"))["Auth-Status"] == "OK"
    assert own_service.get("/readyz") == (503, b'{"policies":false,"users":false}\n')
    assert own_service.process.running


def test_term_ends_it_at_once(own_service: Service) -> None:
    assert own_service.process.stop() == 0
    assert "Traceback" not in own_service.process.output()


@pytest.mark.peer("libnginx-mod-mail")
def test_a_stock_nginx(tmp_path: Path, nginx_mail: StartNginx, smtp_sink: StartSink) -> None:
    """Three mechanisms, a wrong password on the way, a delivery; then one wrong password too many."""
    sink, port = smtp_sink(), free_port()
    policies = POLICIES.replace("127.0.0.1:10025", f"{HOST}:{sink.port}").replace("burst: 3", "burst: 4")
    service = Service(tmp_path, policies.replace(", max_delay: 15s", ""))
    nginx_mail(
        f"""
        server_name mail.example.com;
        auth_http {HOST}:{service.port}/auth;
        server {{ listen {HOST}:{port}; protocol smtp; smtp_auth plain login cram-md5; xclient off; }}
        """,
        port,
    )
    try:
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            with smtplib.SMTP(HOST, port, timeout=20) as client:
                client.ehlo()
                assert login(client, mechanism, "wrong") == (535, b"5.7.8 Authentication credentials invalid")
                assert login(client, mechanism, "1234")[0] == 235
                assert client.sendmail("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\nx\r\n") == {}
        with smtplib.SMTP(HOST, port, timeout=20) as client:
            client.ehlo()
            assert login(client, "PLAIN", "wrong") == (535, b"5.7.8 Authentication credentials invalid")
            assert login(client, "PLAIN", "1234") == (454, b"4.7.0 too many failed logins")
    finally:
        service.process.stop()


def login(client: smtplib.SMTP, mechanism: str, password: str) -> tuple[int, bytes]:
    """The reply to one attempt of the user test, good or bad."""
    client.user, client.password = "test", password
    try:
        return client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))
    except smtplib.SMTPAuthenticationError as error:
        return error.smtp_code, error.smtp_error
