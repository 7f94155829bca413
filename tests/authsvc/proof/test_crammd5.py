from __future__ import annotations

import hmac

import pytest

from authsvc.proof import crammd5, md5state

# Printed by `doveadm pw -s CRAM-MD5 -p …` of Dovecot 2.3.19.1 (Debian 12).
DOVECOT = {
    b"1234": "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302",
    b"password": "{CRAM-MD5}9186d855e11eba527a7a52ca82b313e180d62234f0acc9051b527243d41e2740",
    b"": "{CRAM-MD5}00747cf2ffaf11c5ea4a64979c3901fc1d20dee13f480bb598f7d8575b23e61b",
    b"a" * 64: "{CRAM-MD5}6957714d5e68e79c4af1e64841006d9a695110dd110308dabf8a187ea80da0bc",
    b"a" * 65: "{CRAM-MD5}b2cd8008bd902fd6febd4776452458261cc5aa16cb564c22a27db9c098233e63",
    "pä ss%".encode(): "{CRAM-MD5}038f757553db2ceaf4c3f12e53795ff7a077eb94c5e5994c21c503ffce0dcdd4",
}
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"


@pytest.mark.parametrize("password", DOVECOT, ids=lambda password: f"{len(password)} octets")
def test_stored_form_is_dovecots(password: bytes) -> None:
    assert crammd5.make(password) == DOVECOT[password]
    assert crammd5.is_stored_form(DOVECOT[password])


@pytest.mark.parametrize("password", DOVECOT, ids=lambda password: f"{len(password)} octets")
@pytest.mark.parametrize("length", [0, 1, 39, 55, 56, 64, 200])
def test_accepts_what_hmac_computes(password: bytes, length: int) -> None:
    challenge = (CHALLENGE * 6)[:length]
    digest = hmac.new(password, challenge, "md5").hexdigest().encode()
    assert crammd5.verify(DOVECOT[password], challenge, digest)


def test_the_example_of_rfc_2195() -> None:
    assert crammd5.verify(crammd5.make(b"tanstaaftanstaaf"), CHALLENGE, b"b913a602c7eda7a495b4e6e7334d3890")


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param(hmac.new(b"12345", CHALLENGE, "md5").hexdigest().encode(), id="another password"),
        pytest.param(hmac.new(b"1234", b"<other@host>", "md5").hexdigest().encode(), id="another challenge"),
        pytest.param(hmac.new(b"1234", CHALLENGE, "md5").hexdigest().upper().encode(), id="upper case"),
        pytest.param(hmac.new(b"1234", CHALLENGE, "md5").hexdigest().encode()[:31], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 32, id="not ASCII"),
    ],
)
def test_refuses(digest: bytes) -> None:
    assert not crammd5.verify(DOVECOT[b"1234"], CHALLENGE, digest)


def test_nobody_can_answer_for_an_unknown_user() -> None:
    # The digest that follows from the stand-in's own states is refused as well.
    zeros = md5state.load(bytes(16))
    digest = md5state.finish(zeros, md5state.finish(zeros, CHALLENGE, before=64), before=64).hex().encode()
    assert not crammd5.verify(None, CHALLENGE, digest)
    assert not crammd5.verify("{CRAM-MD5}not a state", CHALLENGE, digest)


@pytest.mark.parametrize(
    "text",
    [
        "fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302",
        "{CRAM-MD5}",
        "{CRAM-MD5}" + "A" * 64,
        "{CRAM-MD5}" + "a" * 63,
        "{CRAM-MD5}" + "a" * 64 + "\n",
        "{PLAIN}1234",
    ],
)
def test_other_forms_are_not_the_stored_form(text: str) -> None:
    assert not crammd5.is_stored_form(text)
