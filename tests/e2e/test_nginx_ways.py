"""Both ways with nginx: a stock nginx that asks our auth service, and our proxy that asks an nginx.

The first nginx is Debian's mail module, with real clients in front and Dovecot or a recorder behind. The second
one answers auth_http with a njs script, of the kind that an operator writes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import imaplib
import poplib
import re
import smtplib
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates, make_certificates
from peers.dovecot import Dovecot
from peers.fixtures import StartNginx
from peers.nginx import Nginx
from peers.process import HOST, Process, free_port, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import RELAY, SUBMISSION, UNSHARED, Stack

ROOT = Path(__file__).parents[2]
LETTER = b"Subject: x\r\n\r\nx\r\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def trusting(certificates: Certificates, *, as_client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if as_client:
        context.load_cert_chain(*certificates.client)
    return context


# --- a stock nginx asks our service -------------------------------------------------------------------------

# test proves itself with any of three methods; APOP needs the clear form.
USERS = """\
users:
  test:
    password:
      - "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$I+0u2s/5YMDbd5VFWG2GfQ$Tforfmxu8IHuUPGZaemE+ELgCoG8KsZhecwkC8kV8Wg"
      - "{PLAIN}1234"
    cram_md5: "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
"""
POLICIES = """\
version: 1
replies: {{auth: "454 4.7.0 too many failed logins"}}
limits:
  auth.fail:
    event: auth_fail
    rate: 3/1h
    burst: 3
    key: "{{net}}|{{login}}"
    match: {{client: 127.0.1.5}}
    deny: {{reply: auth, delay: 2s}}
routes:
  - {{name: partner, match: {{rcpt_domain: partner.example}}, pool: partner}}
  - {{name: default, match: {{}}, pool: core}}
pools:
  core: {{backends: [{{name: core, addr: "{host}:{core}"}}]}}
  partner: {{backends: [{{name: partner, addr: "{host}:{partner}"}}]}}
"""
AUTHSVC = """\
bind: {host}:{port}
policies: policies
users: {{file: users.yaml}}
plain_passwords: true
auth_pass: {{stored: true}}
ports: {{pop3: {pop3}, imap: {imap}}}
"""
MAIL = """\
server_name mail.example.com;
auth_http {host}:{auth}/auth;
xclient off;
ssl_certificate {cert};
ssl_certificate_key {key};
server {{ listen {host}:{smtp}; protocol smtp; smtp_auth plain login cram-md5; }}
server {{ listen {host}:{mx}; protocol smtp; smtp_auth none; }}
server {{
    listen {host}:{smtps} ssl;
    protocol smtp;
    smtp_auth external;
    ssl_verify_client on;
    ssl_client_certificate {ca};
}}
server {{ listen {host}:{pop3}; protocol pop3; pop3_auth plain apop cram-md5; }}
server {{ listen {host}:{imap}; protocol imap; imap_auth plain login cram-md5; }}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """A stock nginx before our service, by the ports of its listeners; recorders behind the SMTP ones."""

    smtp: int
    smtps: int
    mx: int
    pop3: int
    imap: int
    core: Recorder
    partner: Recorder
    service: Process
    nginx: Nginx


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, dovecot: Dovecot) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    smtp, smtps, mx, pop3, imap, auth = (free_port() for _ in range(6))
    core, partner = Recorder(HOST, free_port()), Recorder(HOST, free_port())
    (folder / "policies").mkdir()
    ports = {"core": core.address[1], "partner": partner.address[1]}
    (folder / "policies/policies.yaml").write_text(POLICIES.format(host=HOST, **ports))
    (folder / "users.yaml").write_text(USERS)
    conf = AUTHSVC.format(host=HOST, port=auth, pop3=dovecot.pop3, imap=dovecot.imap)
    (folder / "authsvc.yaml").write_text(conf)
    argv = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]
    env = {"SMTPGATE_AUTHSVC_CONF": str(folder / "authsvc.yaml"), "PYTHONPATH": str(ROOT)}
    service = Process("authsvc", argv, folder, env)
    cert, key = certificates.server
    listeners = {"smtp": smtp, "smtps": smtps, "mx": mx, "pop3": pop3, "imap": imap}
    mail = MAIL.format(host=HOST, auth=auth, cert=cert, key=key, ca=certificates.ca, **listeners)
    nginx: Nginx | None = None
    try:
        service.wait_for_port(auth)
        nginx = Nginx(folder, mail, imap)
        yield Front(**listeners, core=core, partner=partner, service=service, nginx=nginx)
    finally:
        if nginx is not None:
            nginx.stop()
        service.stop()
        core.stop()
        partner.stop()


def attempt(client: smtplib.SMTP, mechanism: str, user: str, password: str) -> tuple[int, bytes]:
    """The reply to one AUTH, good or bad, said as smtplib says it."""
    client.user, client.password = user, password
    try:
        return client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))
    except smtplib.SMTPAuthenticationError as error:
        return error.smtp_code, error.smtp_error


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtp(front: Front, mechanism: str) -> None:
    before = len(front.core.messages)
    with smtplib.SMTP(HOST, front.smtp, timeout=20, source_address=("127.0.1.1", 0)) as client:
        client.ehlo("client.example")
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "CRAM-MD5"]
        assert attempt(client, mechanism, "test", "1234")[0] == 235
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    assert len(front.core.messages) == before + 1


@pytest.mark.parametrize(
    ("mechanism", "source"), [("PLAIN", "127.0.1.2"), ("LOGIN", "127.0.1.3"), ("CRAM-MD5", "127.0.1.4")]
)
def test_smtp_with_a_wrong_password_waits_and_may_try_again(front: Front, mechanism: str, source: str) -> None:
    with smtplib.SMTP(HOST, front.smtp, timeout=20, source_address=(source, 0)) as client:
        client.ehlo()
        began = time.monotonic()
        assert attempt(client, mechanism, "test", "wrong") == (535, b"5.7.8 Authentication credentials invalid")
        assert time.monotonic() - began > 0.9
        assert attempt(client, mechanism, "test", "1234")[0] == 235


def test_smtp_with_too_many_wrong_passwords(front: Front) -> None:
    with smtplib.SMTP(HOST, front.smtp, timeout=20, source_address=("127.0.1.5", 0)) as client:
        client.ehlo()
        codes = [attempt(client, "PLAIN", "test", f"wrong{n}")[0] for n in range(3)]
        assert codes == [535, 535, 535]
        began = time.monotonic()
        assert attempt(client, "PLAIN", "test", "1234") == (454, b"4.7.0 too many failed logins")
        assert time.monotonic() - began > 1.9


def test_smtp_external_with_a_client_certificate(front: Front, certificates: Certificates) -> None:
    before = len(front.core.messages)
    context = trusting(certificates, as_client=True)
    with smtplib.SMTP_SSL(HOST, front.smtps, timeout=20, context=context) as client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["EXTERNAL"]
        assert client.docmd("AUTH", "EXTERNAL =")[0] == 235
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    assert len(front.core.messages) == before + 1


def test_smtp_external_may_not_act_for_somebody_else(front: Front, certificates: Certificates) -> None:
    context = trusting(certificates, as_client=True)
    with smtplib.SMTP_SSL(HOST, front.smtps, timeout=20, context=context) as client:
        client.ehlo()
        name = base64.b64encode(b"test2").decode()
        assert client.docmd("AUTH", f"EXTERNAL {name}") == (535, b"5.7.8 Authentication credentials invalid")


@pytest.mark.parametrize(("recipient", "where"), [("b@example.com", "core"), ("b@partner.example", "partner")])
def test_smtp_without_login_goes_where_its_recipient_goes(front: Front, recipient: str, where: str) -> None:
    recorder: Recorder = getattr(front, where)
    before = len(recorder.messages)
    with smtplib.SMTP(HOST, front.mx, timeout=20) as client:
        assert client.sendmail("a@example.com", [recipient], LETTER) == {}
    assert [message.recipients for message in recorder.messages[before:]] == [(f"rcpt TO:<{recipient}>".encode(),)]


def test_smtp_without_login_has_error_codes_of_its_own(front: Front) -> None:
    with RawClient((HOST, front.mx)) as client:
        client.greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        assert client.ask(b"RCPT TO:<b@>") == b"501 5.1.3 Bad recipient address syntax\r\n"
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"250 ")


def test_no_password_in_what_the_service_prints(front: Front) -> None:
    with smtplib.SMTP(HOST, front.smtp, timeout=20, source_address=("127.0.1.6", 0)) as client:
        client.ehlo()
        assert attempt(client, "PLAIN", "test", "Sesam-oeffne-dich")[0] == 535
    assert "Sesam" not in front.service.output()


# POP3 and IMAP: reference/auth_http.md section 8.


class Pop3(poplib.POP3):
    """With CRAM-MD5, which poplib does not speak."""

    def cram_md5(self, user: str, password: str) -> bytes:
        challenge = base64.b64decode(self._shortcmd("AUTH CRAM-MD5").split()[1])
        digest = hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()
        return self._shortcmd(base64.b64encode(f"{user} {digest}".encode()).decode())


def user_pass(client: Pop3, password: str) -> bytes:
    assert client.user("test").startswith(b"+OK")
    return client.pass_(password)


POP3_WAYS: dict[str, Callable[[Pop3, str], bytes]] = {
    "USER/PASS": user_pass,
    "APOP": lambda client, password: client.apop("test", password),
    "CRAM-MD5": lambda client, password: client.cram_md5("test", password),
}


@pytest.mark.parametrize("way", POP3_WAYS)
def test_pop3(front: Front, way: str) -> None:
    client = Pop3(HOST, front.pop3, timeout=20)
    assert re.fullmatch(rb"\+OK POP3 ready <\d+\.\d+@mail\.example\.com>", client.getwelcome())
    assert POP3_WAYS[way](client, "1234").startswith(b"+OK")
    assert b"Subject: mail of test" in client.retr(1)[1]
    client.quit()


@pytest.mark.parametrize("way", POP3_WAYS)
def test_pop3_with_a_wrong_password(front: Front, way: str) -> None:
    client = Pop3(HOST, front.pop3, timeout=20)
    began = time.monotonic()
    with pytest.raises(poplib.error_proto, match="-ERR Authentication credentials invalid"):
        POP3_WAYS[way](client, f"wrong {way}")
    assert time.monotonic() - began > 0.9
    client.close()


def imap_login(client: imaplib.IMAP4, password: str) -> str:
    return client.login("test", password)[0]


def imap_cram_md5(client: imaplib.IMAP4, password: str) -> str:
    return client.login_cram_md5("test", password)[0]


def imap_plain(client: imaplib.IMAP4, password: str) -> str:
    return client.authenticate("PLAIN", lambda challenge: f"\0test\0{password}".encode())[0]


IMAP_WAYS = {"LOGIN": imap_login, "CRAM-MD5": imap_cram_md5, "PLAIN": imap_plain}


@pytest.mark.parametrize("way", IMAP_WAYS)
def test_imap(front: Front, way: str) -> None:
    with imaplib.IMAP4(HOST, front.imap, timeout=20) as client:
        assert IMAP_WAYS[way](client, "1234") == "OK"
        assert client.select() == ("OK", [b"1"])
        _, fetched = client.fetch("1", "(BODY[HEADER.FIELDS (SUBJECT)])")
        assert b"Subject: mail of test" in fetched[0][1]


@pytest.mark.parametrize("way", IMAP_WAYS)
def test_imap_with_a_wrong_password(front: Front, way: str) -> None:
    with imaplib.IMAP4(HOST, front.imap, timeout=20) as client:
        began = time.monotonic()
        with pytest.raises(imaplib.IMAP4.error, match="Authentication credentials invalid"):
            IMAP_WAYS[way](client, f"wrong {way}")
        assert time.monotonic() - began > 0.9


# --- our proxy asks an nginx --------------------------------------------------------------------------------

# auth_http as an operator writes it for nginx: nothing in it knows of us, the bearer tokens apart.
SCRIPT = """\
import crypto from 'crypto';

var PASSWORDS = {'test': '1234', 'zo\\u00eb %+ d': 'p\\u00e4 %'};
var TOKENS = {'good.token-1': 'test'};

function user_of(method, user, pass, salt) {
    if (method == 'plain') {
        return PASSWORDS[user] === pass && user;
    }
    if (method == 'cram-md5' && user in PASSWORDS) {
        return crypto.createHmac('md5', PASSWORDS[user]).update(salt).digest('hex') === pass && user;
    }
    if (method == 'xoauth2' || method == 'oauthbearer') {
        return (user === '' || TOKENS[pass] === user) && TOKENS[pass];
    }
}

function auth(r) {
    var asked = r.headersIn;
    var method = asked['Auth-Method'];
    r.headersOut['Auth-Server'] = '$HOST';
    r.headersOut['Auth-Port'] = '$BACKEND';
    r.headersOut['Auth-Cache'] = '60';
    r.headersOut['Auth-Status'] = 'OK';
    if (method == 'none') {
        if (!/^RCPT TO:<[^>]+@example\\.com>/i.test(asked['Auth-SMTP-To'])) {
            r.headersOut['Auth-Status'] = 'Nobody here';
            r.headersOut['Auth-Error-Code'] = '550 5.1.1';
            r.headersOut['Auth-Wait'] = '1';
        }
        return r.return(200);
    }
    var pass = decodeURIComponent(asked['Auth-Pass'] || '');
    var user = user_of(method, decodeURIComponent(asked['Auth-User'] || ''), pass, asked['Auth-Salt']);
    if (user) {
        r.headersOut['Auth-User'] = user;
    } else {
        r.headersOut['Auth-Status'] = 'Invalid login or password';
        r.headersOut['Auth-Wait'] = '1';
    }
    r.return(200);
}

export default {auth};
"""


@dataclass(frozen=True, slots=True)
class Asking:
    """Our proxy, the nginx that answers it, and what is behind."""

    stack: Stack
    nginx: Nginx
    recorder: Recorder

    @property
    def submission(self) -> tuple[str, int]:
        return self.stack.listeners["submission"]


def start_njs(folder: Path, backend: int, more: str = "") -> tuple[Nginx, int]:
    """An nginx that answers auth_http on a port of HOST. more: of its `server {}`."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    (folder / "auth.js").write_text(SCRIPT.replace("$HOST", HOST).replace("$BACKEND", str(backend)))
    listen = f"listen {HOST}:{port}{' ssl' if 'ssl_' in more else ''};"
    server = f"server {{ {listen} {more} location /auth {{ js_content main.auth; }} }}"
    return Nginx(folder, "", port, f"js_import main from {folder}/auth.js; {server}"), port


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Asking]:
    folder = tmp_path_factory.mktemp("asking")
    recorder = Recorder(HOST, free_port())
    nginx, port = start_njs(folder / "njs", recorder.address[1])
    cert, key = certificates.server
    tls = {"tls": "starttls", "certificate": [{"cert": str(cert), "key": str(key)}]}
    tokens = ["plain", "login", "cram-md5", "xoauth2", "oauthbearer"]
    stack = Stack(
        folder,
        [],
        listeners=[{**SUBMISSION, "auth": tokens, "tls": "off"}, {"name": "tls", "auth": tokens, **tls}, RELAY],
        policy={"routes.yaml": "version: 1\n"},
        auth_url=f"http://{HOST}:{port}/auth",
    )
    yield Asking(stack, nginx, recorder)
    stack.stop()
    nginx.stop()
    recorder.stop()


def test_the_proxy_offers_tokens_in_clear_only_where_the_operator_said_so(asking: Asking) -> None:
    with smtplib.SMTP(*asking.submission, timeout=20) as client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_proxy_passwords(asking: Asking, mechanism: str) -> None:
    before = len(asking.recorder.messages)
    with smtplib.SMTP(*asking.submission, timeout=20) as client:
        client.ehlo()
        began = time.monotonic()
        assert attempt(client, mechanism, "test", "wrong") == (535, b"5.7.0 Invalid login or password")
        assert time.monotonic() - began > 0.9
        assert attempt(client, mechanism, "test", "1234") == (235, b"2.0.0 OK")
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    assert len(asking.recorder.messages) == before + 1
    assert b" LOGIN=test" in asking.recorder.conversations[-1].octets


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_proxy_passwords_of_any_octets(asking: Asking, mechanism: str) -> None:
    """Escaped by us, unescaped by nginx's script: percent signs, plus signs, spaces and UTF-8."""
    user, password = "zoë %+ d".encode(), "pä %".encode()
    with RawClient(asking.submission) as client:
        client.greeted()
        if mechanism == "PLAIN":
            reply = client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password))
        else:
            client.ask(b"AUTH LOGIN " + base64.b64encode(user))
            reply = client.ask(base64.b64encode(password))
        assert reply == b"235 2.0.0 OK\r\n"


def bearer(mechanism: str, user: str, token: str) -> bytes:
    """The initial response of a mechanism."""
    if mechanism == "XOAUTH2":
        return base64.b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode())
    authzid = f"a={user}" if user else ""
    return base64.b64encode(f"n,{authzid},\x01host=x\x01port=25\x01auth=Bearer {token}\x01\x01".encode())


REFUSED_TOKEN = {
    "XOAUTH2": (b'{"status":"400","schemes":"bearer","scope":"mail"}', b""),
    "OAUTHBEARER": (b'{"status":"invalid_token"}', b"AQ=="),
}


@pytest.mark.parametrize(("mechanism", "user"), [("XOAUTH2", "test"), ("OAUTHBEARER", "test"), ("OAUTHBEARER", "")])
def test_proxy_tokens(asking: Asking, mechanism: str, user: str) -> None:
    challenge, answer = REFUSED_TOKEN[mechanism]
    name = mechanism.encode()
    before = len(asking.recorder.messages)
    with RawClient(asking.submission) as client:
        client.greeted()
        assert client.ask(b"AUTH " + name + b" " + bearer(mechanism, user, "bad.token")) == (
            b"334 " + base64.b64encode(challenge) + b"\r\n"
        )
        assert client.ask(answer) == b"535 5.7.0 Invalid login or password\r\n"
        assert client.ask(b"AUTH " + name) == b"334 \r\n"
        assert client.ask(bearer(mechanism, user, "good.token-1")) == b"235 2.0.0 OK\r\n"
        assert client.deliver() == b"250 2.0.0 recorded\r\n"
    assert len(asking.recorder.messages) == before + 1
    assert b" LOGIN=test" in asking.recorder.conversations[-1].octets
    assert "bad.token" not in asking.stack.output()
    assert "good.token" not in asking.stack.output()


def test_proxy_tokens_after_starttls(asking: Asking, certificates: Certificates) -> None:
    with smtplib.SMTP(*asking.stack.listeners["tls"], timeout=20) as client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "CRAM-MD5"]
        token = bearer("OAUTHBEARER", "test", "good.token-1").decode()
        assert client.docmd("AUTH", f"OAUTHBEARER {token}") == (500, b"5.5.1 Invalid command")
        client.starttls(context=trusting(certificates))
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"]
        assert client.docmd("AUTH", f"OAUTHBEARER {token}") == (235, b"2.0.0 OK")


def test_proxy_without_login(asking: Asking) -> None:
    before = len(asking.recorder.messages)
    with RawClient(asking.stack.listeners["relay"]) as client:
        client.greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>") == b"250 2.0.0 OK\r\n"
        assert client.ask(b"RCPT TO:<b@example.org>") == b"550 5.1.1 Nobody here\r\n"
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"250 ")
        assert client.opened().end(LETTER) == b"250 2.0.0 recorded\r\n"
    assert len(asking.recorder.messages) == before + 1


# --- what the proxy's auth_http settings do, from the file to the wire --------------------------------------


def log_in(stack: Stack, password: str = "1234") -> bytes:
    with RawClient(stack.proxy) as client:
        return client.greeted().ask(b"AUTH PLAIN " + base64.b64encode(f"\0test\0{password}".encode()))


def test_https_failover_and_grants_that_outlive_the_service(tmp_path: Path, certificates: Certificates) -> None:
    """Two URLs: nobody, and an nginx with TLS. Then the nginx goes away, and then the policies change."""
    cert, key = certificates.server
    nginx, port = start_njs(tmp_path / "njs", 25, f"ssl_certificate {cert}; ssl_certificate_key {key};")
    nobody = free_port()
    urls = [f"http://{HOST}:{nobody}/auth", f"https://{HOST}:{port}/auth"]
    auth_http: dict[str, Any] = {"url": urls, "ca": str(certificates.ca), "cache": "30s"}
    stack = Stack(tmp_path, [], policy={"routes.yaml": "version: 1\n"}, auth_url=None, proxy={"auth_http": auth_http})
    try:
        assert log_in(stack) == b"235 2.0.0 OK\r\n"
        [told] = stack.log_events("auth_failover")
        assert told["reason"].startswith(f"auth server {HOST}:{nobody}: ConnectionRefusedError: ")
        nginx.stop()
        assert log_in(stack) == b"235 2.0.0 OK\r\n"
        assert log_in(stack, "12345") == b"454 4.7.0 Temporary authentication failure\r\n"
        stack.edit_policy("routes.yaml", "version: 1\n# edited\n")
        stack.wait_for_event("policies_loaded", 2)
        assert log_in(stack) == b"454 4.7.0 Temporary authentication failure\r\n"
    finally:
        stack.stop()
        nginx.stop()


@pytest.mark.parametrize("listener", ["submission", "relay"])
def test_a_client_that_leaves_while_the_service_thinks(tmp_path: Path, listener: str) -> None:
    """nginx does not notice, and opens a backend session for nobody (reference/auth_http.md section 1)."""
    with socket.create_server((HOST, free_port())) as silent, Recorder(HOST, free_port()) as backend:
        url = f"http://{HOST}:{silent.getsockname()[1]}/auth"
        stack = Stack(
            tmp_path,
            [backend.address],
            listeners=[SUBMISSION, RELAY],
            pool=UNSHARED,
            auth_url=None,
            proxy={"auth_http": {"url": url, "timeout": "60s"}},
        )
        try:
            client = RawClient(stack.listeners[listener]).greeted()
            if listener == "relay":
                assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
                client.send(b"RCPT TO:<b@example.com>\r\n")
            else:
                client.send(b"AUTH PLAIN " + base64.b64encode(b"\0test\x001234") + b"\r\n")
            silent.settimeout(15)
            question, _ = silent.accept()
            with question:
                assert question.recv(65536).startswith(b"GET /auth HTTP/1.1\r\n")
                client.close()
                began = time.monotonic()
                question.settimeout(15)
                assert question.recv(100) == b""  # the question is given up
                assert time.monotonic() - began < 10
            [session] = stack.wait_for_event("session", listener=listener)
            assert session["end"] == "connection lost: client closed the connection"
            assert backend.conversations == []
        finally:
            stack.stop()


def test_a_client_that_leaves_in_an_auth_wait(tmp_path: Path, nginx_mail: StartNginx) -> None:
    """The service holds its refusal back for minutes; the session does not outlive its client."""
    port = free_port()
    refuse = 'add_header Auth-Status "no"; add_header Auth-Wait 200; return 200;'
    nginx_mail("", port, f"server {{ listen {HOST}:{port}; location / {{ {refuse} }} }}")
    stack = Stack(tmp_path, [], policy={"routes.yaml": "version: 1\n"}, auth_url=f"http://{HOST}:{port}/")
    try:
        with RawClient(stack.proxy) as client:
            client.greeted()
            client.send(b"AUTH PLAIN " + base64.b64encode(b"\0test\x001234") + b"\r\n")
            assert client.reply(1.0) == b""
        wait_until(lambda: bool(stack.log_events("session")), "the session has ended")
    finally:
        stack.stop()
