from __future__ import annotations

import hashlib

import pytest

from authsvc.proof import apop

STAMP = b"<1896.697170952@dbc.mtview.ca.us>"


def test_the_example_of_rfc_1939() -> None:
    assert apop.verify(b"tanstaaf", STAMP, b"c4c9334bac560ecc979e58001b3e22fb")


@pytest.mark.parametrize(
    ("password", "digest"),
    [
        (b"tanstaag", b"c4c9334bac560ecc979e58001b3e22fb"),
        (b"tanstaaf", b"C4C9334BAC560ECC979E58001B3E22FB"),
        (b"tanstaaf", b"c4c9334bac560ecc979e58001b3e22f"),
        (b"tanstaaf", b""),
        (b"tanstaaf", b"\xff" * 32),
        (None, b"c4c9334bac560ecc979e58001b3e22fb"),
    ],
)
def test_refuses(password: bytes | None, digest: bytes) -> None:
    assert not apop.verify(password, STAMP, digest)


def test_another_timestamp() -> None:
    assert not apop.verify(b"tanstaaf", b"<1@x>", b"c4c9334bac560ecc979e58001b3e22fb")


def test_nobody_can_answer_for_an_unknown_user() -> None:
    digest = hashlib.md5(STAMP + bytes(8), usedforsecurity=False).hexdigest().encode()
    assert not apop.verify(None, STAMP, digest)
