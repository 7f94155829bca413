"""TLS of the service: what its files may be, and both halves of mutual TLS over the real gunicorn."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from peers.process import HOST, Process, free_port, pause, wait_until
from stack import GATHERED

from authsvc import config
from authsvc.tls import Tls, context
from smtpgate.document import DocumentError
from smtpgate.drivers.authhttp import AuthHttp
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthUnavailable
from smtpgate.session.streams import Peer

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
POLICIES = """
version: 1
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: a, addr: "127.0.0.1:10025"}]}}
"""
QUERY = AuthQuery("plain", 1, Peer("192.0.2.7", 40000, "192.0.2.1", 25), "[UNAVAILABLE]", b"test", b"1234")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority."""
    return make_certificates(tmp_path_factory.mktemp("strangers"), "another authority")


def test_a_context(certificates: Certificates) -> None:
    open_to_all = context(Tls(*certificates.server))
    assert open_to_all.minimum_version is ssl.TLSVersion.TLSv1_2
    assert open_to_all.verify_mode is ssl.CERT_NONE
    assert context(Tls(*certificates.server, certificates.ca)).verify_mode is ssl.CERT_REQUIRED


def load(folder: Path, tls: str) -> config.Config:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "users.yaml").write_text("users: {}\n")
    (folder / "authsvc.yaml").write_text(f"policies: policies\nusers: {{file: users.yaml}}\ntls: {tls}\n")
    return config.load(folder / "authsvc.yaml", {})


def test_the_key(tmp_path: Path, certificates: Certificates) -> None:
    (cert, key), ca = certificates.server, certificates.ca
    assert load(tmp_path, f"{{cert: {cert}, key: {key}}}").tls == Tls(cert, key)
    assert load(tmp_path, f"{{cert: {cert}, key: {key}, client_ca: {ca}}}").tls == Tls(cert, key, ca)
    for files, message in (
        ((cert, certificates.client[1], ca), "tls: cert and key do not belong together; expected a PEM chain"),
        ((key, key, ca), "tls: has a file that cannot be used; expected a PEM chain and its key"),
        ((cert, key, key), "tls: has a file that cannot be used; expected a PEM chain and its key"),
    ):
        with pytest.raises(DocumentError) as caught:
            load(tmp_path, "{{cert: {}, key: {}, client_ca: {}}}".format(*files))
        assert message in str(caught.value)


# --- both halves --------------------------------------------------------------------------------------------

IMPATIENT = """
import authsvc.tls

authsvc.tls.HANDSHAKE = 1.0
from authsvc.wsgi import app
"""


class Service:
    """A running service that takes clients of one authority with one secret header."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.port = free_port()
        (folder / "policies").mkdir()
        (folder / "policies/policies.yaml").write_text(POLICIES)
        (folder / "users.yaml").write_text((ROOT / "conf/users.yaml").read_text())
        cert, key = certificates.server
        (folder / "authsvc.yaml").write_text(
            f"bind: {HOST}:{self.port}\npolicies: policies\nusers: {{file: users.yaml}}\nauth_cache: 20s\n"
            f"tls: {{cert: {cert}, key: {key}, client_ca: {certificates.ca}}}\n"
            "secret: {name: X-Auth-Key, value: hunter2}\n"
        )
        (folder / "impatient.py").write_text(IMPATIENT)
        argv = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "impatient:app"]
        path = os.pathsep.join([str(folder), str(ROOT)])
        environ = {"SMTPGATE_AUTHSVC_CONF": str(folder / "authsvc.yaml"), "PYTHONPATH": path}
        self.process = Process("authsvc", argv, folder, environ)
        self.process.wait_for_port(self.port)

    @property
    def log(self) -> list[dict[str, object]]:
        pause(GATHERED)
        return [json.loads(line) for line in self.process.output().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("service"), certificates)
    yield started
    started.process.stop()


def ask(service: Service, ca: Path, client: tuple[Path, Path] | None, key: str = "hunter2") -> AuthAnswer:
    """One question of our proxy's client."""
    auth = AuthHttp(
        [f"https://{HOST}:{service.port}/auth"],
        5.0,
        {"X-Auth-Key": key},
        ca=str(ca),
        certificate=None if client is None else (str(client[0]), str(client[1])),
    )
    try:
        return auth.ask(QUERY)
    finally:
        auth.close()


def test_the_proxy_shows_its_certificate_and_the_secret(service: Service, certificates: Certificates) -> None:
    assert ask(service, certificates.ca, certificates.client) == AuthGranted(user="test", pool="core")


def test_what_the_service_lets_the_proxy_keep_is_not_asked_again(
    service: Service, certificates: Certificates
) -> None:
    auth = AuthHttp(
        [f"https://{HOST}:{service.port}/auth"],
        5.0,
        {"X-Auth-Key": "hunter2"},
        cache=60.0,
        ca=str(certificates.ca),
        certificate=(str(certificates.client[0]), str(certificates.client[1])),
    )
    query = replace(QUERY, peer=replace(QUERY.peer, host="192.0.2.99"))
    assert [auth.ask(query), auth.ask(query)] == [AuthGranted(user="test", pool="core")] * 2
    auth.forget()
    assert auth.ask(query) == AuthGranted(user="test", pool="core")
    auth.close()
    asked = [line for line in service.log if line["event"] == "auth" and line["client"] == "192.0.2.99"]
    assert len(asked) == 2


def test_a_certificate_does_not_stand_for_the_secret(service: Service, certificates: Certificates) -> None:
    answer = ask(service, certificates.ca, certificates.client, key="hunter3")
    assert isinstance(answer, AuthUnavailable)
    assert "HTTP 403 " in answer.reason


def test_a_client_without_a_certificate_of_the_authority_is_refused(
    service: Service, certificates: Certificates, strangers: Certificates
) -> None:
    for client in (None, strangers.client):
        assert isinstance(ask(service, certificates.ca, client), AuthUnavailable)
    reasons = {"PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"}
    wait_until(
        lambda: all(any(reason in str(line.get("message")) for line in service.log) for reason in reasons),
        "both are in the log",
    )
    assert "Traceback" not in service.process.output()


def test_the_proxy_asks_no_server_of_another_authority(
    service: Service, certificates: Certificates, strangers: Certificates
) -> None:
    answer = ask(service, strangers.ca, certificates.client)
    assert isinstance(answer, AuthUnavailable)
    assert "CERTIFICATE_VERIFY_FAILED" in answer.reason


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(service: Service, certificates: Certificates, version: ssl.TLSVersion) -> None:
    mine = ssl.create_default_context(cafile=str(certificates.ca))
    mine.load_cert_chain(*certificates.client)
    mine.minimum_version = mine.maximum_version = version
    with (
        socket.create_connection((HOST, service.port), timeout=10) as sock,
        mine.wrap_socket(sock, server_hostname=HOST) as tls,
    ):
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert tls.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_handshake_that_does_not_come_ends(service: Service) -> None:
    began = time.monotonic()
    with socket.create_connection((HOST, service.port), timeout=10) as silent:
        assert silent.recv(1) == b""
    assert time.monotonic() - began < 20.0
    wait_until(lambda: "no handshake in 1 s" in service.process.output(), "it is in the log")
