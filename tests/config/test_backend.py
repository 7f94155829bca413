"""`backend:` as BackendSettings: every form of every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority

from smtpgate import config
from smtpgate.document import DocumentError
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls

HEAD = 'server_name: mx.test\nauth_http: {url: "http://127.0.0.1/"}\nlisteners: [{name: mx, bind: 127.0.0.1:25}]\n'


def settings(folder: Path, text: str) -> BackendSettings:
    path = folder / "proxy.yaml"
    path.write_text(f"{HEAD}backend: {text}\n")
    return config.load(path, {"SECRET": "hunter2"}).backend.settings


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", BackendSettings()),
        ("{xclient: off, pass_error_message: on}", BackendSettings(xclient="off", pass_error_message=True)),
        ("{proxy_protocol: v1}", BackendSettings(proxy_protocol="v1")),
        ("{proxy_protocol: v2}", BackendSettings(proxy_protocol="v2")),
        ("{smtp_auth: off}", BackendSettings()),
        ("{smtp_auth: on}", BackendSettings(auth=BackendAuth(replay=True))),
        (
            '{smtp_auth: {user: proxy, password: "${SECRET}"}}',
            BackendSettings(auth=BackendAuth(user="proxy", password="hunter2")),
        ),
        ("{tls: off}", BackendSettings()),
        ("{tls: false}", BackendSettings()),
        ("{tls: starttls}", BackendSettings(tls=BackendTls("starttls"))),
        ("{tls: required}", BackendSettings(tls=BackendTls("required"))),
        ("{tls: {mode: implicit}}", BackendSettings(tls=BackendTls("implicit"))),
        ("{tls: {mode: starttls, verify: off}}", BackendSettings(tls=BackendTls("starttls", verify=False))),
        (
            "{tls: {mode: required, server_name: mta.test}}",
            BackendSettings(tls=BackendTls("required", server_name="mta.test")),
        ),
    ],
)
def test_a_form(tmp_path, text, expected):
    found = settings(tmp_path, text)
    assert found == expected
    assert "hunter2" not in repr(found)


def test_files_are_relative_to_the_file_that_names_them(authority, tmp_path):
    (tmp_path / "tls").symlink_to(Path(authority.ca).parent)
    cert, key = (Path(path).name for path in authority.issue("proxy.test"))
    tls = settings(tmp_path, f"{{tls: {{mode: required, ca: tls/ca.crt, cert: tls/{cert}, key: tls/{key}}}}}").tls
    folder = tmp_path / "tls"
    assert tls == BackendTls("required", ca=f"{folder}/ca.crt", cert=f"{folder}/{cert}", key=f"{folder}/{key}")


def test_a_key_of_another_certificate(authority, tmp_path):
    cert, _ = authority.issue("one.test")
    _, key = authority.issue("two.test")
    with pytest.raises(DocumentError) as caught:
        settings(tmp_path, f"{{tls: {{mode: required, cert: {cert}, key: {key}}}}}")
    assert [str(problem).removeprefix(f"{tmp_path}/proxy.yaml:") for problem in caught.value.problems] == [
        "4:33: backend.tls.cert: cert and key cannot be used: they do not belong together; "
        "expected a PEM chain and its key"
    ]
