from __future__ import annotations

import hashlib

import pytest

from authsvc.proof import md5state

# RFC 1321 appendix A.5.
SUITE = {
    b"": "d41d8cd98f00b204e9800998ecf8427e",
    b"a": "0cc175b9c0f1b6a831c399e269772661",
    b"abc": "900150983cd24fb0d6963f7d28e17f72",
    b"message digest": "f96b697d7cb7938d525a2f31aaf161d0",
    b"abcdefghijklmnopqrstuvwxyz": "c3fcd3d76192e4007dfb496cca67e13b",
    b"12345678901234567890123456789012345678901234567890123456789012345678901234567890": (
        "57edf4a22be3c955ac49da2e2107b67a"
    ),
}


@pytest.mark.parametrize("message", SUITE, ids=lambda message: f"{len(message)} octets")
def test_the_test_suite_of_rfc_1321(message: bytes) -> None:
    assert md5state.finish(md5state.INITIAL, message).hex() == SUITE[message]


def test_equals_hashlib_at_every_length_around_the_padding() -> None:
    for length in range(200):
        message = bytes(value * 7 % 256 for value in range(length))
        expected = hashlib.md5(message, usedforsecurity=False).digest()
        assert md5state.finish(md5state.INITIAL, message) == expected, length


def test_a_stored_state_is_taken_up_again() -> None:
    head, tail = bytes(range(64)), b"the rest"
    state = md5state.load(md5state.dump(md5state.compress(md5state.INITIAL, head)))
    expected = hashlib.md5(head + tail, usedforsecurity=False).digest()
    assert md5state.finish(state, tail, before=64) == expected
