"""Both halves against nginx's: our proxy asks an auth_http server that knows nothing of us, written in njs as
nginx's documentation shows; and Debian's nginx mail proxy asks our auth service.
"""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers.nginx import Nginx
from peers.postfix import Postfix
from peers.process import HOST, LATE, free_port, wait_until
from rawclient import RawClient, plain
from stack import Stack

NJS = """\
const crypto = require('crypto');
const users = {'ann@example.com': 'pass word%+'};

function proves(password, request) {
    const given = decodeURIComponent(request['Auth-Pass']);
    if (request['Auth-Method'] == 'cram-md5') {
        return given == crypto.createHmac('md5', password).update(request['Auth-Salt']).digest('hex');
    }
    return request['Auth-Method'] == 'plain' && given == password;
}

function auth(r) {
    const user = decodeURIComponent(r.headersIn['Auth-User']);
    const granted = user in users && proves(users[user], r.headersIn);
    r.error('asked ' + [r.headersIn['Auth-Protocol'], r.headersIn['Auth-Method'], user,
            'attempt ' + r.headersIn['Auth-Login-Attempt'], r.headersIn['Client-IP']].join(' '));
    if (granted) {
        r.headersOut['Auth-Status'] = 'OK';
        r.headersOut['Auth-Server'] = '{host}';
        r.headersOut['Auth-Port'] = '{port}';
    } else {
        r.headersOut['Auth-Status'] = 'Invalid login or password';
        r.headersOut['Auth-Wait'] = '2';
    }
    r.return(204);
}

export default {auth};
"""

NGINX_MAIL = """\
server_name mx.example.com;
auth_http {url};
proxy_pass_error_message on;
server {{ listen {host}:{submission}; protocol smtp; smtp_auth plain login cram-md5; }}
server {{ listen {host}:{relay}; protocol smtp; smtp_auth none; }}
"""

TEXT = b"Subject: x\n\n.dot\nGr\xc3\xbc\xc3\x9fe\n"
NOWHERE = (HOST, 1)


@pytest.fixture(scope="module")
def mta() -> Iterator[Postfix]:
    server = Postfix("behind")
    try:
        server.start()
        yield server
    finally:
        server.remove()


def arrived(mta: Postfix, recipient: str) -> list[bytes]:
    wait_until(lambda: mta.queued() == 0, "an empty queue")
    return [one.content for one in mta.messages() if one.trace["x-original-to"] == recipient]


def deliver(address: tuple[str, int], mechanism: str, user: str, password: str, recipient: str) -> None:
    with smtplib.SMTP(*address, timeout=20) as client:
        client.ehlo("client.example")
        client.user, client.password = user, password
        exchange = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
        assert client.auth(mechanism, exchange)[0] == 235
        assert client.sendmail("a@example.com", [recipient], TEXT.replace(b"\n", b"\r\n")) == {}


# --- our proxy, their auth server ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OurProxy:
    stack: Stack
    auth: Nginx


@pytest.fixture(scope="module")
def ours(
    mta: Postfix, start_module_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OurProxy]:
    folder = tmp_path_factory.mktemp("njs")
    script = folder / "auth.js"
    script.write_text(NJS.replace("{host}", HOST).replace("{port}", str(mta.port)))
    port = free_port()
    http = (
        f"js_import main from {script}; server {{ listen {HOST}:{port}; location /auth {{ js_content main.auth; }} }}"
    )
    auth = Nginx(folder, "", port, http)
    try:
        # Its policies lead nowhere: where mail goes is what the answer says.
        yield OurProxy(start_module_stack([NOWHERE], auth_url=f"http://{HOST}:{port}/auth"), auth)
    finally:
        auth.stop()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_our_proxy_asks_an_njs_server(ours: OurProxy, mta: Postfix, mechanism: str) -> None:
    recipient = f"njs-{mechanism.lower()}@example.com"
    deliver(ours.stack.proxy, mechanism, "ann@example.com", "pass word%+", recipient)
    assert arrived(mta, recipient) == [TEXT]
    method = "cram-md5" if mechanism == "CRAM-MD5" else "plain"
    assert f"asked smtp {method} ann@example.com attempt 1 127.0.0.1" in ours.auth.log()
    [line] = ours.stack.wait_for_event("transaction", recipients=[recipient])
    assert (line["user"], line["backend"], line["pool"]) == ("ann@example.com", f"{HOST}:{mta.port}", None)
    assert "client=unknown[127.0.0.1], sasl_method=XCLIENT, sasl_username=ann@example.com" in mta.log()


def test_a_refusal_of_an_njs_server_is_passed_on_after_its_wait(ours: OurProxy) -> None:
    with RawClient(ours.stack.proxy) as client:
        client.greeted()
        began = time.monotonic()
        assert client.ask(b"AUTH PLAIN " + plain("ann@example.com", "wrong")) == (
            b"535 5.7.0 Invalid login or password\r\n"
        )
        assert 2.0 <= time.monotonic() - began < 2.0 + LATE
        client.login("ann@example.com", "pass word%+")
    assert "asked smtp plain ann@example.com attempt 2 127.0.0.1" in ours.auth.log()


# --- their proxy, our auth server ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TheirProxy:
    nginx: Nginx
    submission: tuple[str, int]
    relay: tuple[str, int]
    stack: Stack


@pytest.fixture(scope="module")
def theirs(
    mta: Postfix, start_module_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TheirProxy]:
    stack = start_module_stack([(HOST, mta.port)])
    submission, relay = free_port(), free_port()
    mail = NGINX_MAIL.format(url=stack.auth_url, host=HOST, submission=submission, relay=relay)
    nginx = Nginx(tmp_path_factory.mktemp("nginx"), mail, submission)
    try:
        yield TheirProxy(nginx, (HOST, submission), (HOST, relay), stack)
    finally:
        nginx.stop()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_nginx_asks_our_auth_service(theirs: TheirProxy, mta: Postfix, mechanism: str) -> None:
    recipient = f"nginx-{mechanism.lower()}@example.com"
    deliver(theirs.submission, mechanism, "test", "1234", recipient)
    assert arrived(mta, recipient) == [TEXT]
    assert "client=unknown[127.0.0.1], sasl_method=XCLIENT, sasl_username=test\n" in mta.log()
    method = "cram-md5" if mechanism == "CRAM-MD5" else "plain"
    granted = theirs.stack.auth_log_events("auth", method=method, result="granted", user="test")
    assert granted[-1]["route"] == "default"


def test_nginx_makes_a_wrong_password_wait(theirs: TheirProxy) -> None:
    wrong = {
        b"AUTH PLAIN " + plain("test", "wrong"): b"535 5.7.8 Authentication credentials invalid\r\n",
        b"AUTH PLAIN " + plain("nobody", "1234"): b"535 5.7.8 Authentication credentials invalid\r\n",
    }
    with RawClient(theirs.submission) as client:
        client.greeted()
        for command, reply in wrong.items():
            began = time.monotonic()
            assert client.ask(command) == reply
            assert 1.0 <= time.monotonic() - began < 1.0 + LATE
        # nginx keeps the session, as the wait is above zero.
        client.login("test", "1234")


def test_nginx_asks_for_the_envelope_where_nobody_logs_in(theirs: TheirProxy, mta: Postfix) -> None:
    recipient = "nginx-none@example.com"
    with smtplib.SMTP(*theirs.relay, timeout=20) as client:
        client.ehlo("client.example")
        assert "auth" not in client.esmtp_features
        assert client.sendmail("a@example.com", [recipient], TEXT.replace(b"\n", b"\r\n")) == {}
    assert arrived(mta, recipient) == [TEXT]
    assert theirs.stack.auth_log_events("auth", method="none", result="granted") != []
    with RawClient(theirs.relay) as raw:
        raw.greeted()
        assert raw.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        assert raw.ask(b"RCPT TO:<no domain>") == b"501 5.1.3 Bad recipient address syntax\r\n"
        assert raw.ask(b"RCPT TO:<b@example.com>").startswith(b"250 ")


def test_nginx_is_told_of_a_throttled_login(start_stack: Callable[..., Stack], tmp_path: Path, mta: Postfix) -> None:
    policy = """\
version: 1
limits:
  auth.fail.pair:
    event: auth_fail
    rate: 1/10m
    burst: 1
    key: "{net}|{login}"
    deny: {reply: "454 4.7.0 too many failed logins, retry in {retry}s", delay: 2s}
"""
    stack = start_stack([(HOST, mta.port)], policy={"limits.yaml": policy})
    submission, relay = free_port(), free_port()
    mail = NGINX_MAIL.format(url=stack.auth_url, host=HOST, submission=submission, relay=relay)
    nginx = Nginx(tmp_path, mail, submission)
    try:
        with RawClient((HOST, submission)) as client:
            client.greeted()
            assert client.ask(b"AUTH PLAIN " + plain("test", "wrong"))[:9] == b"535 5.7.8"
            began = time.monotonic()
            reply = client.ask(b"AUTH PLAIN " + plain("test", "1234"))
            assert reply.startswith(b"454 4.7.0 too many failed logins, retry in ")
            assert 2.0 <= time.monotonic() - began < 2.0 + LATE
            client.login("test2", "password")
    finally:
        nginx.stop()
