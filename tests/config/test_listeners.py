"""`listeners:` as ListenerConfig: TLS, whom to believe, and what a listener has of its own."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import certificates
import pytest
from cryptography.hazmat.primitives import serialization

from smtpgate import config
from smtpgate.config import (
    AuthHttpConfig,
    BackendConfig,
    CertificateConfig,
    ClientCertificateConfig,
    ListenerConfig,
    TlsOptionsConfig,
)
from smtpgate.document import DocumentError
from smtpgate.routing.model import BackendSettings
from smtpgate.units import HostPort

HEAD = """\
server_name: mail.example.com
auth_http: {url: "http://127.0.0.1/", envelope: never}
listeners:
  - name: mx
    bind: 127.0.0.1:20025
"""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.crt, crl.pem, mx.crt and mx.key; locked.key with the second passphrase of words.txt, none.txt has none."""
    folder = tmp_path_factory.mktemp("pki")
    authority = certificates.Authority(folder)
    pair = authority.sign("mx", "mx.example.com")
    authority.revoke(pair)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (folder / "locked.key").write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"second")))
    (folder / "words.txt").write_text("first\nsecond\n")
    (folder / "none.txt").write_text("")
    return folder


@pytest.fixture
def load(pki: Path) -> Callable[[str], ListenerConfig]:
    def load(lines: str) -> ListenerConfig:
        path = pki / "proxy.yaml"
        path.write_text(HEAD + "".join(f"    {line}\n" for line in lines.splitlines()))
        return config.load(path, {}).listeners[0]

    return load


def told(load: Callable[[str], ListenerConfig], lines: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(lines)
    return [str(problem).partition("proxy.yaml:")[2] for problem in caught.value.problems]


def test_tls_in_full(load: Callable[[str], ListenerConfig], pki: Path) -> None:
    mx = load("""\
tls: required
certificate: [{cert: mx.crt, key: mx.key}, {cert: mx.crt, key: locked.key, password_file: words.txt}]
tls_options: {versions: [TLSv1.3], ciphers: ECDHE+AESGCM, curve: secp384r1, tickets: off}
client_certificate: {mode: optional, ca: ca.crt, crl: crl.pem}
auth: [external]
""")
    assert mx.certificates == (
        CertificateConfig(pki / "mx.crt", pki / "mx.key"),
        CertificateConfig(pki / "mx.crt", pki / "locked.key", pki / "words.txt"),
    )
    assert mx.tls_options == TlsOptionsConfig("TLSv1.3", "TLSv1.3", "ECDHE+AESGCM", "secp384r1", tickets=False)
    assert mx.client_certificate == ClientCertificateConfig("optional", pki / "ca.crt", pki / "crl.pem")
    assert mx.protocol.mechanisms == ("EXTERNAL",)


CERTIFICATE = "tls: implicit\ncertificate: [{cert: mx.crt, key: mx.key}]\n"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "tls: implicit\ncertificate: [{cert: mx.crt, key: locked.key, password_file: none.txt}]",
            "7:19: listeners[0].certificate[0]: password_file has 0 lines; expected a passphrase a line, at most 64",
        ),
        (
            "tls: implicit\ncertificate: [{cert: mx.crt, key: locked.key, password_file: ca.crt}]",
            "7:19: listeners[0].certificate[0]: cert and key cannot be used: one is not PEM, or no passphrase of "
            "password_file opens the key; expected a PEM chain and its key",
        ),
        (
            CERTIFICATE + "client_certificate: {mode: required, ca: mx.key}",
            "8:42: listeners[0].client_certificate.ca: holds no certificate; expected a PEM file of certificates",
        ),
        (
            CERTIFICATE + "client_certificate: {mode: required, ca: ca.crt, crl: ca.crt}",
            "8:54: listeners[0].client_certificate.crl: holds no revocation list; "
            "expected a PEM file, -----BEGIN X509 CRL-----",
        ),
        (
            CERTIFICATE + "client_certificate: off\nauth: [login, external]",
            '9:19: listeners[0].auth[1]: "external" needs clients\' certificates; '
            "expected client_certificate: {mode: optional, ca: ca.pem}",
        ),
    ],
)
def test_files_are_looked_at(load: Callable[[str], ListenerConfig], lines: str, problem: str) -> None:
    assert told(load, lines) == [problem]


def test_whom_to_believe(load: Callable[[str], ListenerConfig]) -> None:
    mx = load("""\
proxy_protocol: [10.0.0.0/8, "2001:db8::/32", "unix:"]
xclient: [192.0.2.1]
greeting_delay: 1500ms
resolver: [127.0.0.53, "2001:db8::53", "127.0.0.1:5353", "[::1]:5354"]
resolver_timeout: 500ms
max_line: 8KiB
""")
    assert mx.proxy_protocol == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), "unix:")
    assert mx.xclient == (ip_network("192.0.2.1/32"),)
    assert mx.greeting_delay == 1.5
    assert mx.resolver == (
        HostPort("127.0.0.53", 53),
        HostPort("2001:db8::53", 53),
        HostPort("127.0.0.1", 5353),
        HostPort("::1", 5354),
    )
    assert (mx.resolver_timeout, mx.protocol.max_line) == (0.5, 8192)


def test_what_is_its_own(load: Callable[[str], ListenerConfig]) -> None:
    mx = load("""\
server_name: mx2.example.com
auth_http: {url: "http://127.0.0.2/", pass_client_cert: true, envelope: every}
backend: {xclient: on, allow: [10.0.0.0/8]}
""")
    assert mx.protocol.server_name == "mx2.example.com"
    assert mx.auth_http == AuthHttpConfig(("http://127.0.0.2/",), 10.0, {}, "every", pass_client_cert=True)
    assert mx.backend == BackendConfig(BackendSettings(xclient="on"), (ip_network("10.0.0.0/8"),))
    assert mx.envelope == "every"


def test_what_is_the_files(load: Callable[[str], ListenerConfig]) -> None:
    mx = load("resolver: 127.0.0.1")
    assert (mx.protocol.server_name, mx.envelope) == ("mail.example.com", "never")
    assert (mx.auth_http, mx.backend, mx.client_certificate) == (None, None, None)


def test_listeners_with_an_auth_http_of_their_own_need_none_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    listener = 'name: mx, bind: "127.0.0.1:25", auth_http: {url: "http://127.0.0.1/"}'
    path.write_text(f"server_name: a.example\nlisteners: [{{{listener}}}]\n")
    assert config.load(path, {}).auth_http is None


@pytest.mark.parametrize(
    "key", ["certificate: [{cert: LONG, key: LONG}]", "auth_http: {url: 'https://a.test/', ca: LONG}"]
)
def test_a_path_that_the_kernel_refuses_is_told(load: Callable[[str], ListenerConfig], key: str) -> None:
    problems = told(load, "tls: starttls\n" + key.replace("LONG", 300 * "x"))
    assert any("cannot be looked at: File name too long; expected a path that may be read" in one for one in problems)


@pytest.mark.parametrize("value", ["53", "true"])
def test_a_number_is_no_name_server(load: Callable[[str], ListenerConfig], value: str) -> None:
    (problem,) = told(load, f"resolver: {value}")
    assert "is not the address of a name server" in problem
