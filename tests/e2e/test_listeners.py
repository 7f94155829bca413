"""How clients reach the proxy: through HAProxy, over TLS as the openssl command sees it, by IPv6 and unix sockets."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dns.rcode
import pytest
from certificates import Authority, Pair
from nameserver import name_server
from peers.fixtures import StartHAProxy, StartPostfix
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import RELAY, Stack

GREETING = b"220 proxy.example.net ESMTP ready\r\n"
CLIENT = "127.0.0.77"
EVERYBODY = ["127.0.0.0/8"]


@dataclass(frozen=True)
class Pki:
    """mx: for mx.example.com and *.mail.example.com; other: for other.example.net. test, revoked: clients' ones."""

    authority: Authority
    mx: Pair
    other: Pair
    test: Pair
    revoked: Pair
    crl: Path


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    mx = authority.sign("mx", "mx.example.com", "*.mail.example.com")
    other = authority.sign("other", "other.example.net")
    test = authority.sign("test", "test", organization="Acme")
    revoked = authority.sign("revoked", "test2")
    return Pki(authority, mx, other, test, revoked, authority.revoke(revoked))


@pytest.fixture(scope="module")
def stack(pki: Pki, start_module_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Two workers, and a listener for each way to meet a client."""
    pair = {"cert": str(pki.mx.cert), "key": str(pki.mx.key)}
    other = {"cert": str(pki.other.cert), "key": str(pki.other.key)}
    asked = {"ca": str(pki.authority.ca), "crl": str(pki.crl)}
    implicit = {"tls": "implicit", "certificate": [pair]}
    mailbox = tmp_path_factory.mktemp("sock") / "mx.sock"
    return start_module_stack(
        [(HOST, free_port())],
        workers=2,
        pool={"health": {"probe": "off"}},
        listeners=[
            {"name": "tls", **implicit, "certificate": [pair, other]},
            {"name": "old", **implicit, "tls_options": {"versions": ["TLSv1.2"], "ciphers": "ECDHE+CHACHA20"}},
            {"name": "required", **implicit, "client_certificate": {"mode": "required", **asked}},
            {
                "name": "external",
                "tls": "starttls",
                "certificate": [pair],
                "auth": ["plain", "external"],
                "client_certificate": {"mode": "optional", **asked},
            },
            {"name": "unix", "bind": f"unix:{mailbox}"},
            {"name": "many", "bind": [f"{HOST}:{free_port()}", f"[::1]:{free_port()}"], "server_name": "six.example"},
        ],
    )


# --- TLS, as testssl.sh would look at it ---------------------------------------------------------------------------


def s_client(address: tuple[str, int], *options: str | Path, said: str = "QUIT\r\n") -> str:
    """What `openssl s_client` prints of one connection, both streams together."""
    command = ["openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-ign_eof", *map(str, options)]
    done = subprocess.run(
        command, input=said, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    return done.stdout


@pytest.mark.parametrize(
    ("listener", "option", "version"),
    [
        ("tls", "-tls1_2", "TLSv1.2"),
        ("tls", "-tls1_3", "TLSv1.3"),
        ("tls", "-tls1_1", None),
        ("old", "-tls1_2", "TLSv1.2"),
        ("old", "-tls1_3", None),
    ],
)
def test_protocols(stack: Stack, listener: str, option: str, version: str | None) -> None:
    said = s_client(stack.listeners[listener], option, "-cipher", "ALL:@SECLEVEL=0")
    assert (f"Protocol  : {version}" in said or f"New, {version}" in said) if version else "Cipher is (NONE)" in said
    assert ("220 proxy.example.net ESMTP ready" in said) == (version is not None)


def test_ciphers(stack: Stack) -> None:
    assert "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305" in s_client(stack.listeners["old"])
    assert "Cipher is (NONE)" in s_client(stack.listeners["old"], "-cipher", "ECDHE+AESGCM")


@pytest.mark.parametrize(
    ("name", "subject"),
    [("mx.example.com", "mx"), ("a.mail.example.com", "mx"), ("other.example.net", "other"), ("no.example", "mx")],
)
def test_the_name_chooses_the_certificate(stack: Stack, pki: Pki, name: str, subject: str) -> None:
    said = s_client(stack.listeners["tls"], "-servername", name, "-CAfile", pki.authority.ca)
    assert "Verify return code: 0 (ok)" in said
    assert {"mx": "subject=CN = mx.example.com", "other": "subject=CN = other.example.net"}[subject] in said


def test_alpn(stack: Stack) -> None:
    address = stack.listeners["tls"]
    assert "ALPN protocol: smtp" in s_client(address, "-alpn", "h2,smtp")
    refused = s_client(address, "-alpn", "h2,http/1.1")
    assert "no application protocol" in refused
    assert "220 " not in refused
    stack.wait_for_event("connection_lost", reason="TLS handshake: client offers no smtp by ALPN")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_worker_resumes_the_sessions_of_all(stack: Stack, pki: Pki, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(pki.authority.ca))
    context.maximum_version = version
    before = len(stack.log_events("session", listener="tls"))

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        with (
            socket.create_connection(stack.listeners["tls"], timeout=15) as plain,
            context.wrap_socket(plain, server_hostname="mx.example.com", session=session) as secure,
        ):
            assert secure.recv(1000) == GREETING  # TLS 1.3: the ticket stands before it
            return secure.session, secure.session_reused

    session, reused = connect(None)
    assert not reused
    seen = 1
    for seen in range(2, 60):
        session, reused = connect(session)
        assert reused
        if seen >= 8 and len({line["pid"] for line in stack.log_events("session", listener="tls")[before:]}) == 2:
            break
    lines = stack.wait_for_event("session", before + seen, listener="tls")[before:]
    assert len({line["pid"] for line in lines}) == 2


def test_a_required_certificate(stack: Stack, pki: Pki) -> None:
    address = stack.listeners["required"]
    assert "421 4.7.1 No required SSL certificate" in s_client(address)
    said = s_client(address, "-cert", pki.test.cert, "-key", pki.test.key)
    assert "220 proxy.example.net ESMTP ready" in said
    assert "Acceptable client certificate CA names" not in said or "CN = test-ca" in said


def test_a_revoked_certificate(stack: Stack, pki: Pki) -> None:
    said = s_client(stack.listeners["required"], "-cert", pki.revoked.cert, "-key", pki.revoked.key)
    assert "220 " not in said
    assert "alert certificate revoked" in said
    stack.wait_for_event("connection_lost", reason="TLS handshake: certificate not believed: certificate revoked")


def test_a_renewed_certificate_is_shown_and_sessions_go_on(stack: Stack, pki: Pki) -> None:
    context = ssl.create_default_context(cafile=str(pki.authority.ca))

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection(stack.listeners["tls"], timeout=15)
        secure = context.wrap_socket(plain, server_hostname="other.example.net")
        assert secure.recv(1000) == GREETING
        return secure

    with connect() as before:
        renewed = pki.authority.sign("other", "other.example.net")
        stack.wait_for_event("certificates_loaded", stack.workers, listener="tls")
        with connect() as after:
            shown = after.getpeercert()
        assert shown is not None
        assert int(str(shown["serialNumber"]), 16) == renewed.x509.serial_number
        before.sendall(b"NOOP\r\n")
        assert before.recv(1000) == b"250 2.0.0 OK\r\n"


# --- EXTERNAL ------------------------------------------------------------------------------------------------------


def test_external_end_to_end(stack: Stack, pki: Pki) -> None:
    def secured(pair: Pair | None) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=str(pki.authority.ca))
        context.check_hostname = False
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        smtp = smtplib.SMTP(*stack.listeners["external"], timeout=15)
        assert smtp.ehlo()[0] == 250
        assert b"EXTERNAL" not in smtp.ehlo_resp
        smtp.starttls(context=context)
        smtp.ehlo()
        assert smtp.esmtp_features["auth"].split() == ["PLAIN", "EXTERNAL"]
        return smtp

    with secured(pki.test) as smtp:
        assert smtp.docmd("AUTH", "EXTERNAL =") == (235, b"2.0.0 OK")
    with secured(pki.test) as smtp:  # "test", and then somebody else
        assert smtp.docmd("AUTH", "EXTERNAL") == (334, b"VXNlcm5hbWU6")
        assert smtp.docmd("dGVzdA==") == (235, b"2.0.0 OK")
    with secured(pki.test) as smtp:
        assert smtp.docmd("AUTH", "EXTERNAL dGVzdDI=")[0] == 535
    with secured(None) as smtp:
        assert smtp.docmd("AUTH", "EXTERNAL dGVzdA==") == (535, b"5.7.8 No certificate was shown")
    users = [line["user"] for line in stack.wait_for_event("auth", 2, listener="external", result=235)]
    assert users == ["test", "test"]
    logins = {line["login"] for line in stack.auth_log_events("auth", method="external")}
    assert logins == {"<>", "test", "test2"}


# --- addresses -----------------------------------------------------------------------------------------------------


def test_several_binds_ipv6_and_a_unix_socket(stack: Stack) -> None:
    binds = next(one["bind"] for one in stack.keys["listeners"] if one["name"] == "many")
    four, six = binds
    with socket.create_connection((HOST, int(four.rpartition(":")[2])), timeout=15) as sock:
        assert sock.recv(1000) == b"220 six.example ESMTP ready\r\n"
    with socket.create_connection(("::1", int(six.rpartition(":")[2])), timeout=15) as sock:
        assert sock.recv(1000) == b"220 six.example ESMTP ready\r\n"
    stack.wait_for_event("session", client="::1", listener="many")
    path = next(one["bind"] for one in stack.keys["listeners"] if one["name"] == "unix").removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.settimeout(15)
        assert sock.recv(1000) == GREETING
        sock.sendall(b"AUTH PLAIN AHRlc3QAMTIzNA==\r\n")
        assert sock.recv(1000) == b"235 2.0.0 OK\r\n"
    assert [line["client"] for line in stack.auth_log_events("auth", client="unix:")] == ["unix:"]


# --- somebody in front ---------------------------------------------------------------------------------------------


@pytest.mark.peer("haproxy")
@pytest.mark.parametrize(
    "option",
    [
        "send-proxy",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl,cert-cn",
    ],
)
def test_behind_haproxy_all_see_the_clients_address(
    option: str, haproxy: StartHAProxy, postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    [mta] = postfix(main={"smtpd_authorized_xclient_hosts": "127.0.0.0/8"})
    stack = start_stack([(HOST, mta.port)], listeners=[{"name": "mx", "proxy_protocol": EVERYBODY}])
    port = free_port()
    haproxy(
        f"listen mx\n    bind {HOST}:{port}\n    unique-id-format %ts\n    server smtpgate "
        f"{stack.proxy[0]}:{stack.proxy[1]} source {HOST} {option}",
        port,
    )
    with RawClient((HOST, port), source=CLIENT) as client:
        assert client.greeted().login().deliver().startswith(b"250 ")
    [message] = mta.wait_for(1)
    assert f"[{CLIENT}]" in message.trace["received"]
    assert [line["client"] for line in stack.auth_log_events("auth", login="test")] == [CLIENT]
    [line] = stack.wait_for_event("session", client=CLIENT)
    assert line["via"] == HOST


def test_whoever_is_not_in_front_is_refused_with_its_true_address(start_stack: Callable[..., Stack]) -> None:
    stack = start_stack([(HOST, free_port())], listeners=[{"name": "mx", "proxy_protocol": ["127.0.0.1"]}])
    with RawClient(stack.proxy, source=CLIENT) as client:
        client.send(b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 25\r\n")
        assert client.at_end()
    [line] = stack.wait_for_event("refused")
    assert (line["client"], line["listener"]) == (CLIENT, "mx")


def test_a_relay_that_says_xclient_and_a_client_that_may_not(start_stack: Callable[..., Stack]) -> None:
    with Recorder(HOST, free_port()) as backend:
        stack = start_stack([backend.address], listeners=[{**RELAY, "xclient": ["127.0.0.1"]}], auth_url=None)
        with RawClient(stack.proxy, source="127.0.0.1") as relay:
            relay.greeted()
            assert relay.ask(b"XFORWARD IDENT=4F2") == b"250 2.0.0 OK\r\n"
            assert relay.ask(b"XCLIENT ADDR=192.0.2.7 NAME=c.example HELO=c LOGIN=ann") == GREETING
            assert relay.deliver().startswith(b"250 ")
        with RawClient(stack.proxy, source=CLIENT) as client:
            assert client.greeted().ask(b"XCLIENT ADDR=192.0.2.7").startswith(b"500 ")
        wait_until(lambda: len(backend.messages) == 1, "the message is there")
        assert backend.conversations[0].client == "192.0.2.7"
        assert b"LOGIN=ann NAME=c.example" in bytes(backend.conversations[0].octets)
        [line] = stack.wait_for_event("session", impostures=1)
        assert line["client"] == CLIENT
        [line] = stack.wait_for_event("session", via="127.0.0.1")
        assert (line["client"], line["user"]) == ("192.0.2.7", "ann")


# --- before the greeting -------------------------------------------------------------------------------------------


def test_names_of_clients_and_a_greeting_that_keeps_them_waiting(start_stack: Callable[..., Stack]) -> None:
    table = {
        ("77.0.0.127.in-addr.arpa", "PTR"): ["client.example."],
        ("client.example", "A"): [CLIENT],
        ("78.0.0.127.in-addr.arpa", "PTR"): dns.rcode.SERVFAIL,
    }
    with Recorder(HOST, free_port()) as backend, name_server(table) as server:
        listener = {**RELAY, "resolver": [f"127.0.0.1:{server.port}"], "greeting_delay": "200ms"}
        pool = {"health": {"probe": "off"}}
        stack = start_stack([backend.address], listeners=[listener], auth_url=None, pool=pool)
        for source, name in ((CLIENT, b"client.example"), ("127.0.0.78", b"[TEMPUNAVAIL]")):
            with RawClient(stack.proxy, source=source) as client:
                assert client.greeted().deliver().startswith(b"250 ")
            assert b"NAME=" + name in b"".join(bytes(one.octets) for one in backend.conversations)
        with RawClient(stack.proxy, source=CLIENT) as client:
            client.send(b"EHLO client.example\r\n")
            assert client.reply() == b"503 5.5.0 Improper use of SMTP command pipelining\r\n"
            assert client.at_end()
        [line] = stack.wait_for_event("early_talker")
        assert (line["client"], line["said"]) == (CLIENT, "EHLO client.example\r\n")
        assert server.asked["77.0.0.127.in-addr.arpa", "PTR"] <= stack.workers
