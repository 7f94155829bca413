"""SASL exchanges as dialogues: challenges in order, credentials or the reason why not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from smtpgate.smtp.sasl import (
    ERROR_CHALLENGES,
    MAX_PASSWORD,
    MAX_TOKEN,
    MAX_USER,
    MECHANISMS,
    PASSWORD_PROMPT,
    TOKEN_MECHANISMS,
    USERNAME_PROMPT,
    Credentials,
    SaslError,
    cram_salt,
)

SALT = "<123.1700000000@mx.example.com>"
DIGEST = b"0123456789abcdef0123456789abcdef"


TOKEN = b"vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="  # RFC 7628 section 4.1
BEARER = b"auth=Bearer " + TOKEN


def run(mechanism: str, initial: bytes | None, *answers: bytes) -> tuple[list[bytes], Credentials]:
    """The challenges that were asked, and what came out. Every answer must be used."""
    exchange = MECHANISMS[mechanism](initial, SALT)
    challenges = []
    waiting = list(answers)
    try:
        challenge = next(exchange)
        while True:
            challenges.append(challenge)
            challenge = exchange.send(waiting.pop(0))
    except StopIteration as finished:
        assert not waiting
        return challenges, finished.value


def test_the_registry() -> None:
    assert list(MECHANISMS) == ["PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL", "XOAUTH2", "OAUTHBEARER"]
    assert frozenset(MECHANISMS) > TOKEN_MECHANISMS


def test_every_token_mechanism_has_an_error_challenge() -> None:
    assert {name.lower() for name in TOKEN_MECHANISMS} == set(ERROR_CHALLENGES)
    assert json.loads(ERROR_CHALLENGES["oauthbearer"]) == {"status": "invalid_token"}
    assert json.loads(ERROR_CHALLENGES["xoauth2"]) == {"status": "400", "schemes": "bearer", "scope": "mail"}


def test_the_prompts_on_the_wire() -> None:
    assert base64.b64encode(USERNAME_PROMPT) == b"VXNlcm5hbWU6"
    assert base64.b64encode(PASSWORD_PROMPT) == b"UGFzc3dvcmQ6"


@pytest.mark.parametrize(
    ("mechanism", "initial", "answers", "challenges", "credentials"),
    [
        ("PLAIN", b"\0test\x001234", [], [], Credentials("plain", b"test", b"1234")),
        ("PLAIN", None, [b"\0test\x001234"], [b""], Credentials("plain", b"test", b"1234")),
        ("PLAIN", b"admin\0test\x001234", [], [], Credentials("plain", b"test", b"1234")),
        ("PLAIN", b"\0a b\0 c\r\n", [], [], Credentials("plain", b"a b", b" c\r\n")),
        ("PLAIN", "\0zoë\0pä".encode(), [], [], Credentials("plain", "zoë".encode(), "pä".encode())),
        (
            "PLAIN",
            b"\0" + b"u" * MAX_USER + b"\0" + b"p" * MAX_PASSWORD,
            [],
            [],
            Credentials("plain", b"u" * MAX_USER, b"p" * MAX_PASSWORD),
        ),
        (
            "LOGIN",
            None,
            [b"test", b"1234"],
            [b"Username:", b"Password:"],
            Credentials("plain", b"test", b"1234"),
        ),
        ("LOGIN", b"test", [b"1234"], [b"Password:"], Credentials("plain", b"test", b"1234")),
        (
            "CRAM-MD5",
            None,
            [b"test " + DIGEST],
            [SALT.encode()],
            Credentials("cram-md5", b"test", DIGEST, SALT),
        ),
        (
            "CRAM-MD5",
            None,
            [b"a user " + DIGEST.upper()],
            [SALT.encode()],
            Credentials("cram-md5", b"a user", DIGEST, SALT),
        ),
        ("EXTERNAL", b"me@example.com", [], [], Credentials("external", b"me@example.com", b"")),
        ("EXTERNAL", b"", [], [], Credentials("external", b"", b"")),
        ("EXTERNAL", None, [b""], [b"Username:"], Credentials("external", b"", b"")),
        ("EXTERNAL", None, [b"me"], [b"Username:"], Credentials("external", b"me", b"")),
        (
            "XOAUTH2",
            b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01",
            [],
            [],
            Credentials("xoauth2", b"someuser@example.com", b"ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"),
        ),
        (
            "XOAUTH2",
            None,
            ["user=zoë d\x01auth=bEARER  ".encode() + TOKEN + b"\x01\x01"],
            [b""],
            Credentials("xoauth2", "zoë d".encode(), TOKEN),
        ),
        (
            "XOAUTH2",
            b"user=" + b"u" * MAX_USER + b"\x01auth=Bearer " + b"t" * MAX_TOKEN + b"\x01\x01",
            [],
            [],
            Credentials("xoauth2", b"u" * MAX_USER, b"t" * MAX_TOKEN),
        ),
        (
            "OAUTHBEARER",
            b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01" + BEARER + b"\x01\x01",
            [],
            [],
            Credentials("oauthbearer", b"user@example.com", TOKEN),
        ),
        ("OAUTHBEARER", b"n,,\x01" + BEARER + b"\x01\x01", [], [], Credentials("oauthbearer", b"", TOKEN)),
        (
            "OAUTHBEARER",
            None,
            [b"y,a=a=2Cb =3Dc=2C,\x01AUTH=Bearer " + TOKEN + b"\x01new=\t\r\n x\x01\x01"],
            [b""],
            Credentials("oauthbearer", b"a,b =c,", TOKEN),
        ),
    ],
)
def test_it_ends_well(
    mechanism: str,
    initial: bytes | None,
    answers: list[bytes],
    challenges: list[bytes],
    credentials: Credentials,
) -> None:
    assert run(mechanism, initial, *answers) == (challenges, credentials)


@pytest.mark.parametrize(
    ("mechanism", "initial", "answers", "reason"),
    [
        ("PLAIN", b"", [], "PLAIN response with 0 NUL octets, expected 2"),
        ("PLAIN", None, [b""], "PLAIN response with 0 NUL octets, expected 2"),
        ("PLAIN", b"test\x001234", [], "PLAIN response with 1 NUL octets, expected 2"),
        ("PLAIN", b"\0test\x0012\x0034", [], "PLAIN response with 3 NUL octets, expected 2"),
        ("PLAIN", b"\0\x001234", [], "empty user name"),
        ("PLAIN", b"\0test\0", [], "empty password"),
        ("PLAIN", b"\0" + b"u" * 256 + b"\x001234", [], "user name of 256 octets, at most 255 are taken"),
        ("PLAIN", b"\0u\0" + b"p" * 2049, [], "password of 2049 octets, at most 2048 are taken"),
        ("LOGIN", b"", [], "empty user name"),
        ("LOGIN", None, [b""], "empty user name"),
        ("LOGIN", None, [b"a\0b"], "NUL octet in the user name"),
        ("LOGIN", None, [b"u" * 256], "user name of 256 octets, at most 255 are taken"),
        ("LOGIN", b"test", [b""], "empty password"),
        ("LOGIN", b"test", [b"12\x0034"], "NUL octet in the password"),
        (
            "CRAM-MD5",
            b"test " + DIGEST,
            [],
            "CRAM-MD5 with an initial response, which RFC 2195 does not know",
        ),
        ("CRAM-MD5", b"", [], "CRAM-MD5 with an initial response, which RFC 2195 does not know"),
        ("CRAM-MD5", None, [b" " + DIGEST], "empty user name"),
        ("CRAM-MD5", None, [b"a\0b " + DIGEST], "NUL octet in the user name"),
        *(
            (
                "CRAM-MD5",
                None,
                [answer],
                "CRAM-MD5 response is not a user name, a space and 32 hexadecimal digits",
            )
            for answer in (
                b"",
                DIGEST,
                b"test",
                b"test ",
                b"test " + DIGEST[1:],
                b"test " + DIGEST + b"0",
                b"test " + DIGEST + b" ",
                b"test " + DIGEST + b"\n",
                b"test\t" + DIGEST,
                b"test g" + DIGEST[1:],
            )
        ),
        ("EXTERNAL", b"a\0b", [], "NUL octet in the user name"),
        ("EXTERNAL", None, [b"u" * 256], "user name of 256 octets, at most 255 are taken"),
        *(
            ("XOAUTH2", None, [answer], "XOAUTH2 response is not user=USER^Aauth=Bearer TOKEN^A^A")
            for answer in (
                b"",
                b"user=ann\x01" + BEARER,
                b"user=ann\x01" + BEARER + b"\x01",
                b"user=ann\x01" + BEARER + b"\x01\x01\x01",
                b"user=ann\x01" + BEARER + b"\x01x=y\x01\x01",
                BEARER + b"\x01user=ann\x01\x01",
                b"n,a=ann,\x01" + BEARER + b"\x01\x01",
            )
        ),
        ("XOAUTH2", b"user=\x01" + BEARER + b"\x01\x01", [], "empty user name"),
        ("XOAUTH2", b"user=a\0b\x01" + BEARER + b"\x01\x01", [], "NUL octet in the user name"),
        *(
            ("XOAUTH2", b"user=ann\x01auth=" + auth + b"\x01\x01", [], "auth is not Bearer and a token of RFC 6750")
            for auth in (
                b"",
                b"Bearer",
                b"Bearer ",
                b"Basic " + TOKEN,
                b"Bearer a b",
                b"Bearer a\r\nb",
                b"Bearer =",
                TOKEN,
            )
        ),
        (
            "XOAUTH2",
            b"user=ann\x01auth=Bearer " + b"t" * (MAX_TOKEN + 1) + b"\x01\x01",
            [],
            "token of 8001 octets, at most 8000 are taken",
        ),
        *(
            ("OAUTHBEARER", header + BEARER + b"\x01\x01", [], "OAUTHBEARER response does not begin with n,a=USER,^A")
            for header in (
                b"",
                b"n,a=ann\x01",
                b"n,ann,\x01",
                b"n,a=,\x01",
                b"n,a=a,b,\x01",
                b"n,a=a=2cb,\x01",
                b"n,a=a\0b,\x01",
                b"p=tls-unique,a=ann,\x01",
                b"F,n,a=ann,\x01",
            )
        ),
        *(
            (
                "OAUTHBEARER",
                b"n,,\x01" + pairs,
                [],
                "OAUTHBEARER response is not KEY=VALUE^A pairs with ^A behind them",
            )
            for pairs in (
                b"",
                BEARER,
                BEARER + b"\x01",
                BEARER + b"\x01\x01\x01",
                BEARER + b"\x01k1=v\x01\x01",
                BEARER + b"\x01k=\0\x01\x01",
            )
        ),
        ("OAUTHBEARER", b"n,,\x01\x01", [], "OAUTHBEARER response with 0 auth pairs, expected 1"),
        (
            "OAUTHBEARER",
            b"n,,\x01" + BEARER + b"\x01" + BEARER + b"\x01\x01",
            [],
            "OAUTHBEARER response with 2 auth pairs, expected 1",
        ),
        (
            "OAUTHBEARER",
            b"n,a=" + b"u" * 256 + b",\x01" + BEARER + b"\x01\x01",
            [],
            "user name of 256 octets, at most 255 are taken",
        ),
    ],
)
def test_it_is_refused(mechanism: str, initial: bytes | None, answers: list[bytes], reason: str) -> None:
    with pytest.raises(SaslError) as refused:
        run(mechanism, initial, *answers)
    assert refused.value.reason == reason
    assert str(refused.value) == reason


def test_an_exchange_can_be_given_up() -> None:
    exchange = MECHANISMS["LOGIN"](None, SALT)
    assert next(exchange) == b"Username:"
    exchange.close()
    with pytest.raises(StopIteration):
        exchange.send(b"test")


def test_the_password_is_not_shown() -> None:
    _, credentials = run("PLAIN", b"\0test\0secret")
    assert repr(credentials) == "Credentials(method='plain', user=b'test', salt=None)"


def test_rfc_2195_example() -> None:
    """Section 2 of the RFC: user tim, secret tanstaaftanstaaf."""
    salt = cram_salt("768", 697170952, "postoffice.reston.mci.net")
    assert salt == "<1896.697170952@postoffice.reston.mci.net>"
    digest = hmac.new(b"tanstaaftanstaaf", salt.encode(), hashlib.md5).hexdigest()
    assert digest == "b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize(
    ("token", "now", "name", "salt"),
    [
        ("ff", 1700000000.9, "mx.example.com", "<255.1700000000@mx.example.com>"),
        ("00", 0.0, "localhost", "<0.0@localhost>"),
        ("f" * 32, 1.5, "a", "<340282366920938463463374607431768211455.1@a>"),
    ],
)
def test_salt(token: str, now: float, name: str, salt: str) -> None:
    assert cram_salt(token, now, name) == salt


@pytest.mark.parametrize("token", ["", "xyz", "1_0", "0x10", " 1", "\u0661"])
def test_salt_needs_a_hexadecimal_token(token: str) -> None:
    with pytest.raises(ValueError, match=r"^salt token is not hexadecimal text$"):
        cram_salt(token, 0.0, "mx")


@pytest.mark.parametrize("name", ["", "a b", "a>b", "<a", "a@b", "m\u00fcx", "a\r\n"])
def test_salt_needs_a_host_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot stand in a salt, expected a host name$"):
        cram_salt("1", 0.0, name)
