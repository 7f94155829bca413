from __future__ import annotations

from pathlib import Path

import argon2
import pytest

from authsvc.proof.methods import AuthPass, MethodKeys, Methods, OAuth
from authsvc.proof.passwords import PROFILE
from smtpgate import document
from smtpgate.document import DocumentError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwks.json").write_text("{}")
    (tmp_path / "secret").write_text("s3cret\n")
    return tmp_path


def read(folder: Path, text: str) -> Methods:
    environ = {"SECRET": "from outside"}
    _, keys = document.read(
        text.encode() or b"{}", MethodKeys, source="x.yaml", environ=environ, context={"folder": folder}
    )
    return keys.methods()


def test_defaults(folder: Path) -> None:
    assert read(folder, "") == Methods()
    assert Methods() == Methods(
        argon2id=PROFILE,
        remember=300.0,
        plain_passwords=False,
        external="CN",
        ports={"pop3": 110, "imap": 143},
        auth_pass=None,
        oauth=None,
    )


def test_every_key(folder: Path) -> None:
    text = """
argon2id: {memory: 19MiB, passes: 2, lanes: 1}
remember: 10m
plain_passwords: true
external: {field: emailAddress}
ports: {pop3: 1110, imap: 1143}
auth_pass: {stored: true, protocols: [pop3]}
oauth:
  issuer: https://login.example.com/
  audience: [mail, smtp]
  keys: https://login.example.com/jwks
  user_claim: preferred_username
  algorithms: [PS256]
"""
    assert read(folder, text) == Methods(
        argon2id=argon2.Parameters(argon2.Type.ID, 19, 16, 32, time_cost=2, memory_cost=19456, parallelism=1),
        remember=600.0,
        plain_passwords=True,
        external="emailAddress",
        ports={"pop3": 1110, "imap": 1143},
        auth_pass=AuthPass(None, frozenset({"pop3"})),
        oauth=OAuth(
            "https://login.example.com/",
            ("mail", "smtp"),
            "https://login.example.com/jwks",
            "preferred_username",
            ("PS256",),
        ),
    )


def test_what_is_left_out_of_oauth(folder: Path) -> None:
    oauth = read(folder, "oauth: {issuer: a, audience: b, keys: jwks.json}").oauth
    assert oauth == OAuth("a", ("b",), folder / "jwks.json", "email", ("RS256", "ES256"))


def test_remembering_is_switched_off_with_0s(folder: Path) -> None:
    assert read(folder, "remember: 0s").remember == 0.0


@pytest.mark.parametrize(
    ("text", "secret"),
    [("secret: s3cret", "s3cret"), ('secret: "${SECRET}"', "from outside"), ("secret_file: secret", "s3cret")],
)
def test_where_the_password_for_backends_is_from(folder: Path, text: str, secret: str) -> None:
    methods = read(folder, f"auth_pass: {{{text}}}")
    assert methods.auth_pass == AuthPass(secret, frozenset({"pop3", "imap"}))
    assert secret not in repr(methods)


@pytest.mark.parametrize(
    "url",
    ["https://a.example/jwks?x=1", "https://a.example:8443/", "http://127.0.0.1:8080/jwks", "http://[::1]/jwks"],
)
def test_urls_of_keys(folder: Path, url: str) -> None:
    oauth = read(folder, f"oauth: {{issuer: a, audience: b, keys: '{url}'}}").oauth
    assert oauth is not None
    assert oauth.keys == url


OAUTH = "oauth: {{issuer: a, audience: b, keys: {}}}"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("argon2id: {memory: 257MiB}", "argon2id.memory", "32KiB to 262144KiB with these passes and lanes"),
        ("argon2id: {memory: 31KiB}", "argon2id.memory", "32KiB to 262144KiB"),
        ("argon2id: {passes: 17}", "argon2id.memory", "32KiB to 61680KiB"),
        ("argon2id: {passes: 0}", "argon2id.passes", "0"),
        ("argon2id: {lanes: 65}", "argon2id.lanes", "65"),
        ("remember: 2h", "remember", '"2h" is too long'),
        ("remember: 300", "remember", "300 is not a duration"),
        ("plain_passwords: yes", "plain_passwords", '"yes"'),
        ("external: {field: DN}", "external.field", '"DN"'),
        ("ports: {pop3: 0}", "ports.pop3", "0"),
        ("ports: {smtp: 25}", "ports.smtp", "unknown key"),
        ("auth_pass: {}", "auth_pass", "has no password; expected secret, secret_file or stored"),
        ("auth_pass: {secret: a, stored: true}", "auth_pass", "has more than one"),
        ("auth_pass: {secret: ' hunter2'}", "auth_pass", "is not a password that can be sent"),
        ("auth_pass: {secret: " + "ü" * 65 + "}", "auth_pass", "is not a password that can be sent"),
        ("auth_pass: {stored: true}", "auth_pass.stored", "plain_passwords: true beside it"),
        ("auth_pass: {secret: a, protocols: []}", "auth_pass.protocols", ""),
        (OAUTH.format("gone.json"), "oauth.keys", '"gone.json" is not a file that is there'),
        (OAUTH.format("http://login.example.com/jwks"), "oauth.keys", "lets everyone on the way choose the keys"),
        (OAUTH.format("http://localhost.example.com/jwks"), "oauth.keys", "lets everyone on the way"),
        (OAUTH.format("ftp://login.example.com/jwks"), "oauth.keys", "is not a URL of keys"),
        (OAUTH.format("https:///jwks"), "oauth.keys", "is not a URL of keys"),
        (OAUTH.format("'https://a:b@login.example.com/'"), "oauth.keys", "is not a URL of keys"),
        (OAUTH.format("'https://login.example.com:x/'"), "oauth.keys", "is not a URL of keys"),
        ("oauth: {issuer: a, audience: [], keys: jwks.json}", "oauth.audience", ""),
        *(
            (
                f"oauth: {{issuer: a, audience: b, keys: jwks.json, algorithms: [{name}]}}",
                "oauth.algorithms",
                f'"{name}"',
            )
            for name in ("none", "HS256", "EdDSA", "rs256")
        ),
        ("oauth: {audience: b, keys: jwks.json}", "oauth", "issuer"),
    ],
)
def test_what_is_refused(folder: Path, text: str, where: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(folder, text)
    assert len(caught.value.problems) == 1
    told = str(caught.value.problems[0])
    assert f": {where}" in told
    assert message in told
    assert "hunter2" not in told
