"""A whole file: its defaults, everything said, the demo, and files that cannot be read."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest

from smtpgate import config
from smtpgate.config import (
    AuthHttpConfig,
    BackendConfig,
    CertificateConfig,
    Config,
    ListenerConfig,
    LogConfig,
    MetricsConfig,
)
from smtpgate.document import DocumentError
from smtpgate.document.account import Account
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls
from smtpgate.smtp.capabilities import MINIMUM
from smtpgate.smtp.server import ServerSettings
from smtpgate.units import HostPort, UnixPath

ROOT = Path(__file__).parents[2]


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    path = folder / "proxy.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, environ or {})


def problems(path: Path) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        config.load(path, {})
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and their keys, and a key with a passphrase."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("pem")
    for name in ("a", "b"):
        new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        files = [
            "-subj",
            f"/CN={name}.example.com",
            "-keyout",
            folder / f"{name}.key",
            "-out",
            folder / f"{name}.pem",
        ]
        subprocess.run(["openssl", *new, *files], check=True, capture_output=True)
    locked = ["ec", "-in", folder / "a.key", "-aes256", "-passout", "pass:x", "-out", folder / "locked.key"]
    subprocess.run(["openssl", *locked], check=True, capture_output=True)
    return folder


def test_the_least_that_works_has_the_documented_defaults(tmp_path):
    conf = load(
        tmp_path,
        """\
server_name: mail.example.com
auth_http: {url: "http://127.0.0.1:18080/auth"}
listeners: [{name: mx, bind: 127.0.0.1:20025}]
""",
    )
    assert conf == Config(
        server_name="mail.example.com",
        workers=1,
        store="memory://",
        policies=None,
        auth_http=AuthHttpConfig(("http://127.0.0.1:18080/auth",), 10.0, {}, "first", cache=0.0, ca=None),
        backend=BackendConfig(BackendSettings(), ()),
        listeners=(
            ListenerConfig(
                name="mx",
                binds=(HostPort("127.0.0.1", 20025),),
                protocol=ServerSettings(
                    server_name="mail.example.com",
                    capabilities=("SIZE 10485760", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN"),
                    mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"),
                    auth_required=True,
                    tls="off",
                    helo_required=False,
                    max_errors=5,
                    max_junk=100,
                    max_recipients=1000,
                    max_line=4096,
                ),
                learn_capabilities=False,
                timeout=60.0,
                idle_timeout=300.0,
                certificates=(),
                envelope="first",
                soft_errors=3,
                error_delay=1.0,
                min_data_rate=500,
                max_sessions_per_ip=None,
                max_sessions_per_network=None,
            ),
        ),
        metrics=None,
        log=LogConfig("json", "info", decisions=False),
        graceful_timeout=30.0,
        state_dir=None,
        account=None,
        max_sessions=10_000,
    )


def test_everything_that_can_be_said(tmp_path, pem):
    (tmp_path / "rules").mkdir()
    conf = load(
        tmp_path,
        f"""\
server_name: mail.example.com
user: 4711
group: 4712
workers: ${{WORKERS}}
max_sessions: 1000000
store: redis://:${{PASSWORD}}@127.0.0.1:6379/0
policies: rules
state_dir: state/smtpgate
auth_http:
  url: [unix:/run/auth.sock:/auth, "https://auth.example.com/?key=${{PASSWORD}}"]
  ca: {pem}/a.pem
  cert: {pem}/b.pem
  key: {pem}/b.key
  timeout: 500ms
  headers: {{X-Auth-Key: "${{PASSWORD}}", X-Site: "1"}}
  cache: 30s
  pass_client_cert: false
  envelope: every
backend:
  xclient: on
  proxy_protocol: v2
  smtp_auth: on
  pass_error_message: true
  tls:
    {{mode: required, verify: on, server_name: mta.test, ca: {pem}/a.pem, cert: {pem}/b.pem, key: {pem}/b.key}}
  allow: [10.0.0.0/8, "2001:db8::/32", 192.0.2.1]
listeners:
  - name: submission
    bind: [127.0.0.1:587, "[::1]:587", unix:/run/submission.sock]
    auth: [login, xoauth2, oauthbearer, none]
    capabilities: [pipelining, size, CHUNKING, SMTPUTF8, X-SITE a b]
    tls: required
    certificate:
      - {{cert: {pem}/a.pem, key: {pem}/a.key}}
      - {{cert: {pem}/b.pem, key: {pem}/b.key}}
    client_certificate: off
    proxy_protocol: []
    greeting_delay: 0s
    timeout: 1m
    idle_timeout: 1h
    bare_newline: normalize
    helo_required: true
    max_errors: 1
    soft_errors: 2
    error_delay: 500ms
    max_junk: 7
    max_recipients: 100
    min_data_rate: 0
    max_sessions_per_ip: 0
    max_sessions_per_network: 9
    max_line: 512
    resolver: []
  - name: mx
    bind: 127.0.0.1:25
    auth: [none]
    capabilities: auto
metrics: {{bind: 127.0.0.1:9125}}
log: {{format: text, level: debug, decisions: on}}
graceful_timeout: 0s
""",
        {"WORKERS": "4", "PASSWORD": "hunter2"},
    )
    assert conf.workers == 4
    assert (conf.account, conf.max_sessions) == (Account("4711", 4711, 4712), 1_000_000)
    assert conf.store == "redis://:hunter2@127.0.0.1:6379/0"
    assert conf.policies == tmp_path / "rules"
    assert conf.state_dir == tmp_path / "state" / "smtpgate"
    assert not (tmp_path / "state").exists()
    assert conf.auth_http == AuthHttpConfig(
        ("unix:/run/auth.sock:/auth", "https://auth.example.com/?key=hunter2"),
        0.5,
        {"X-Auth-Key": "hunter2", "X-Site": "1"},
        "every",
        cache=30.0,
        ca=pem / "a.pem",
        certificate=CertificateConfig(pem / "b.pem", pem / "b.key"),
    )
    assert conf.backend == BackendConfig(
        BackendSettings(
            "on",
            "v2",
            BackendAuth(replay=True),
            True,
            BackendTls("required", True, "mta.test", f"{pem}/a.pem", f"{pem}/b.pem", f"{pem}/b.key"),
        ),
        (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("192.0.2.1")),
    )
    submission, mx = conf.listeners
    assert submission == ListenerConfig(
        name="submission",
        binds=(HostPort("127.0.0.1", 587), HostPort("::1", 587), UnixPath("/run/submission.sock")),
        protocol=ServerSettings(
            server_name="mail.example.com",
            capabilities=("pipelining", "size", "CHUNKING", "SMTPUTF8", "X-SITE a b"),
            mechanisms=("LOGIN", "XOAUTH2", "OAUTHBEARER"),
            auth_required=False,
            tls="required",
            helo_required=True,
            max_errors=1,
            max_junk=7,
            max_recipients=100,
            max_line=512,
            bare_newline="normalize",
        ),
        learn_capabilities=False,
        timeout=60.0,
        idle_timeout=3600.0,
        certificates=(
            CertificateConfig(pem / "a.pem", pem / "a.key"),
            CertificateConfig(pem / "b.pem", pem / "b.key"),
        ),
        envelope="every",
        soft_errors=2,
        error_delay=0.5,
        min_data_rate=0,
        max_sessions_per_ip=0,
        max_sessions_per_network=9,
    )
    assert mx.protocol.mechanisms == ()
    assert (mx.learn_capabilities, mx.protocol.capabilities) == (True, MINIMUM)
    assert not mx.protocol.auth_required
    assert conf.metrics == MetricsConfig(HostPort("127.0.0.1", 9125))
    assert conf.log == LogConfig("text", "debug", decisions=True)
    assert conf.graceful_timeout == 0.0
    assert "hunter2" not in repr(conf)


@pytest.mark.parametrize("binds", ["127.0.0.1:25", '["[::1]:25", unix:/run/mx.sock]', "127.64.1.2:25"])
def test_bearer_tokens_without_tls_where_only_this_machine_can_listen(tmp_path, binds):
    text = "server_name: a.example\nauth_http: {url: 'http://[::1]/'}\n"
    listener = f"listeners: [{{name: mx, bind: {binds}, tls: off, auth: [xoauth2, oauthbearer]}}]\n"
    conf = load(tmp_path, text + listener)
    assert conf.listeners[0].protocol.mechanisms == ("XOAUTH2", "OAUTHBEARER")


def test_without_auth_http_the_policies_decide(tmp_path):
    (tmp_path / "rules").mkdir()
    conf = load(
        tmp_path,
        "server_name: mx.example.com\npolicies: rules/\nlisteners: [{name: mx, bind: 127.0.0.1:25, auth: [none]}]\n",
    )
    assert conf.auth_http is None
    assert conf.listeners[0].envelope == "first"


def test_the_demo():
    conf = config.load(ROOT / "conf" / "proxy.yaml", {})
    (submission,) = conf.listeners
    assert submission.name == "submission"
    assert submission.binds == (HostPort("127.0.0.1", 20025),)
    assert submission.protocol.mechanisms == ("PLAIN", "LOGIN", "CRAM-MD5")
    assert submission.protocol.capabilities == (
        "SIZE 10485760",
        "PIPELINING",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "DSN",
    )
    assert conf.auth_http is not None
    assert conf.auth_http.urls == ("http://127.0.0.1:18080/auth",)
    assert (conf.workers, conf.store) == (1, "memory://")
    assert conf.policies is not None
    assert conf.policies.samefile(ROOT / "policies")
    assert conf.state_dir == ROOT / "conf" / "../var"


def test_the_demo_takes_store_and_workers_from_the_environment():
    environ = {"SMTPGATE_WORKERS": "2", "SMTPGATE_STORE": "redis://127.0.0.1:6379/0"}
    conf = config.load(ROOT / "conf" / "proxy.yaml", environ)
    assert (conf.workers, conf.store) == (2, "redis://127.0.0.1:6379/0")


@pytest.mark.parametrize(
    ("line", "environ", "folder"),
    [
        ("", {}, None),
        ("", {"STATE_DIRECTORY": ""}, None),
        ("", {"STATE_DIRECTORY": "/var/lib/smtpgate"}, "/var/lib/smtpgate"),
        ("", {"STATE_DIRECTORY": "/var/lib/smtpgate:/var/lib/other"}, "/var/lib/smtpgate"),
        ("state_dir: /srv/state\n", {"STATE_DIRECTORY": "/var/lib/smtpgate"}, "/srv/state"),
    ],
)
def test_systemd_names_a_state_dir_where_the_file_does_not(tmp_path, line, environ, folder):
    text = "server_name: a.example\nauth_http: {url: 'http://[::1]/'}\nlisteners: [{name: mx, bind: 127.0.0.1:25}]\n"
    assert load(tmp_path, text + line, environ).state_dir == (None if folder is None else Path(folder))


@pytest.mark.parametrize(
    "uri",
    [
        "memory://",
        "redis://127.0.0.1:6379/0",
        "rediss://:secret@redis.example.com/1",
        "redis+unix:///run/redis.sock?db=0",
        "redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster",
        "redis+cluster://10.0.0.1:7000,10.0.0.2:7000",
        "valkey://127.0.0.1:6379",
    ],
)
def test_stores(tmp_path, uri):
    text = "server_name: a.example\nauth_http: {url: 'http://[::1]/'}\nlisteners: [{name: mx, bind: 127.0.0.1:25}]\n"
    assert load(tmp_path, f"{text}store: {uri}\n").store == uri


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/auth",
        "http://[::1]:8080/auth?key=secret",
        "https://auth.example.com",
        "unix:/run/auth.sock",
        "unix:/run/auth.sock:/auth",
    ],
)
def test_auth_http_urls(tmp_path, url):
    text = "server_name: a.example\nlisteners: [{name: mx, bind: 127.0.0.1:25}]\n"
    conf = load(tmp_path, f"{text}auth_http: {{url: '{url}'}}\n")
    assert conf.auth_http is not None
    assert conf.auth_http.urls == (url,)


@pytest.mark.parametrize(
    ("cert", "key", "told"),
    [
        ("a.pem", "b.key", "cert and key cannot be used: they do not belong together"),
        ("a.pem", "a.pem", "cert and key cannot be used: one is not PEM, or the key has a passphrase"),
        ("a.pem", "locked.key", "cert and key cannot be used: one is not PEM, or the key has a passphrase"),
    ],
)
def test_certificates_are_looked_at(pem, cert, key, told):
    path = pem / f"{Path(key).stem}.yaml"
    path.write_text(
        f"""\
server_name: mail.example.com
auth_http: {{url: "http://127.0.0.1:18080/auth"}}
listeners:
  - name: mx
    bind: 127.0.0.1:20025
    tls: starttls
    certificate: [{{cert: {cert}, key: {key}}}]
"""
    )
    assert problems(path) == [f"{path}:7:19: listeners[0].certificate[0]: {told}; expected a PEM chain and its key"]


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "proxy.yaml"
    assert problems(path) == [
        f"{path}:1:1: cannot be read: No such file or directory; expected a file that this user may read"
    ]


def test_a_folder_is_no_file(tmp_path):
    assert problems(tmp_path) == [
        f"{tmp_path}:1:1: cannot be read: Is a directory; expected a file that this user may read"
    ]


def test_a_file_without_end_is_not_read_whole():
    assert problems(Path("/dev/zero")) == ["/dev/zero:1:1: the file has 1048577 octets; expected at most 1048576"]


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (b"", "1:1: the file is empty; expected keys with values"),
        (b"\xef\xbb\xbf", "1:1: the file is empty; expected keys with values"),
        (b"server_name: m\xe4il\n", "1:15: octet 0xe4 is not UTF-8; expected UTF-8"),
        (b"backend:\n\txclient: on\n", "2:1: a tab may not indent; expected spaces"),
        (b"a: &a [x]\nb: [*a, *a]\n", None),
        (b"[" * 100, "1:1: the file is not a mapping; expected keys with values"),
        (b"a: " + b"[" * 100, None),
    ],
)
def test_files_that_are_no_configuration(tmp_path, octets, told):
    path = tmp_path / "proxy.yaml"
    path.write_bytes(octets)
    found = problems(path)
    assert found
    if told is not None:
        assert found == [f"{path}:{told}"]
