"""The whole service once more: tokens, POP3 and IMAP, old stored forms. Asked over raw sockets, as nginx asks."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from peers.process import HOST, Process, free_port, wait_until

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]
POLICIES = """
version: 1
routes: [{name: default, match: {}, pool: demo}]
pools: {demo: {backends: [{name: sink, addr: "127.0.0.1:10025"}]}}
"""
CONF = """
policies: policies
users: {file: users.yaml}
plain_passwords: true
ports: {pop3: 1110, imap: 1143}
auth_pass: {stored: true}
oauth: {issuer: "https://login.example.com/", audience: mail, keys: jwks.json}
"""
# doveadm pw -s SSHA256 -p 1234, and doveadm pw -s BLF-CRYPT -r 4 -p 1234
USERS = """# kept
users:
  clear: {password: "{PLAIN}1234"}
  token@example.com: {plan: gold}
  old:
    password: "{SSHA256}HTzX/4E9ne2vnJr3D/2OxSSy711HWO1DJp28evxrvxgf4gJa"
  bcrypt: {password: ["$2y$04$GENk/muDOhQ1LBK.sx3se.kBLbD6i3okFKgsOvOei9P8mx.c91mtS"]}
"""
KEY = RSAKey.generate_key(2048, {"kid": "2026"})
SALT = b"<1896.697170952@mail.example.com>"


class Service:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "policies").mkdir()
        (folder / "policies" / "policies.yaml").write_text(POLICIES)
        (folder / "users.yaml").write_text(USERS)
        (folder / "jwks.json").write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
        (folder / "authsvc.yaml").write_text(f"bind: {HOST}:{self.port}\n{CONF}")
        environ = {"SMTPGATE_AUTHSVC_CONF": "authsvc.yaml", "PYTHONUNBUFFERED": "1"}
        self.process = Process("authsvc", ARGV, folder, environ)
        self.process.wait_for_port(self.port)

    def ask(
        self, user: bytes, password: bytes, *, method: bytes = b"plain", protocol: bytes = b"smtp"
    ) -> dict[str, str]:
        """The Auth- headers of the answer."""
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            connection.sendall(
                b"GET /auth HTTP/1.0\r\nHost: 127.0.0.1\r\nAuth-Method: %b\r\nAuth-User: %b\r\nAuth-Pass: %b\r\n"
                b"Auth-Salt: %b\r\nAuth-Protocol: %b\r\nAuth-Login-Attempt: 1\r\nClient-IP: 192.0.2.7\r\n\r\n"
                % (method, user, password, SALT, protocol)
            )
            block = b""
            while more := connection.recv(65536):
                block += more
        assert len(block) < 1024
        pairs = (line.split(": ", 1) for line in block.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")[1:])
        return {name: value for name, value in pairs if name.startswith("Auth-")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("methods"))
    yield service
    service.process.stop()


WRONG = {"Auth-Status": "Authentication credentials invalid", "Auth-Error-Code": "535 5.7.8", "Auth-Wait": "1"}


def token(**changed: object) -> bytes:
    claims = {"iss": "https://login.example.com/", "aud": "mail", "exp": int(time.time()) + 60}
    claims |= {"email": "token@example.com"} | changed
    return jwt.encode({"alg": "RS256", "kid": "2026"}, claims, KEY).encode()


@pytest.mark.parametrize(
    ("method", "user"),
    [(b"xoauth2", b"token@example.com"), (b"oauthbearer", b"token@example.com"), (b"oauthbearer", b"")],
)
def test_a_token(service: Service, method: bytes, user: bytes) -> None:
    assert service.ask(user, token(), method=method) == {
        "Auth-Status": "OK",
        "Auth-Server": "127.0.0.1",
        "Auth-Port": "10025",
        "Auth-User": "token@example.com",
        "Auth-Pool": "demo",
        "Auth-Plan": "gold",
    }


@pytest.mark.parametrize(
    ("user", "changed"),
    [
        (b"token@example.com", {"exp": int(time.time()) - 60}),
        (b"token@example.com", {"aud": "calendar"}),
        (b"clear", {}),
        (b"nobody@example.com", {"email": "nobody@example.com"}),
    ],
)
def test_a_bad_token_looks_like_a_wrong_password(service: Service, user: bytes, changed: dict[str, object]) -> None:
    assert service.ask(user, token(**changed), method=b"xoauth2") == WRONG
    assert service.ask(b"clear", b"wrong") == WRONG


def test_no_token_enters_the_log(service: Service) -> None:
    sent = token(aud="calendar")
    service.ask(b"token@example.com", sent, method=b"xoauth2")
    wait_until(lambda: "token refused: invalid_claim (aud)" in service.process.output(), "the reason is logged")
    assert sent.decode() not in service.process.output()
    assert sent.split(b".")[2].decode() not in service.process.output()


def digest_of(method: bytes) -> bytes:
    if method == b"apop":
        return hashlib.md5(SALT + b"1234", usedforsecurity=False).hexdigest().encode()
    return hmac.new(b"1234", SALT, "md5").hexdigest().encode()


@pytest.mark.parametrize(
    ("protocol", "method", "port"),
    [(b"pop3", b"apop", "1110"), (b"pop3", b"cram-md5", "1110"), (b"imap", b"cram-md5", "1143")],
)
def test_pop3_and_imap_by_challenge(service: Service, protocol: bytes, method: bytes, port: str) -> None:
    granted = service.ask(b"clear", digest_of(method), method=method, protocol=protocol)
    assert granted == {
        "Auth-Status": "OK",
        "Auth-Server": "127.0.0.1",
        "Auth-Port": port,
        "Auth-User": "clear",
        "Auth-Pass": "1234",
        "Auth-Pool": "demo",
    }
    for user, digest in ((b"clear", b"0" * 32), (b"nobody", digest_of(method))):
        assert service.ask(user, digest, method=method, protocol=protocol) == WRONG


@pytest.mark.parametrize("protocol", [b"pop3", b"imap"])
def test_pop3_and_imap_by_password(service: Service, protocol: bytes) -> None:
    granted = service.ask(b"clear", b"1234", protocol=protocol)
    assert (granted["Auth-Status"], "Auth-Pass" in granted) == ("OK", False)


def test_old_stored_forms_become_argon2id_at_a_login(service: Service) -> None:
    path = service.folder / "users.yaml"
    for user in (b"old", b"bcrypt"):
        assert service.ask(user, b"wrong") == WRONG
    assert path.read_text() == USERS
    for user, form in ((b"old", "{SSHA256}"), (b"bcrypt", "$2y$")):
        assert service.ask(user, b"1234")["Auth-Status"] == "OK"
        wait_until(lambda form=form: form not in path.read_text(), f"{form} is replaced")
    assert path.read_text().count("{ARGON2ID}") == 2
    assert path.read_text().startswith("# kept\n")
    wait_until(lambda: service.process.output().count('"users_loaded"') >= 2, "the service read its own edits")
    for user in (b"old", b"bcrypt"):
        assert service.ask(user, b"1234")["Auth-Status"] == "OK"
        assert service.ask(user, b"wrong") == WRONG


def test_nothing_broke_on_the_way(service: Service) -> None:
    assert "Traceback" not in service.process.output()
    assert "internal_error" not in service.process.output()
